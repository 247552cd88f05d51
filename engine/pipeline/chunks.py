"""Chunks of a plan made: reader -> upscaler -> sampler -> writer, a thread each, bounded queues between them.

Where the network runs on a GPU in torch, one thread has that do the work of upscaler and sampler.

What a chunk holds depends on the plan and the source alone, never on which chunks were made before it: groups of
repeated frames and the reuse of results end at chunk borders.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from keyscale.engine.camera.geometry import Window
from keyscale.engine.camera.sampler import mixed, sample
from keyscale.engine.errors import DecodeError, Interrupted, VerificationError
from keyscale.engine.pipeline.encoder import ChunkWriter
from keyscale.engine.plan.plan import Chunk, Plan
from keyscale.engine.source.colour import PixelArray
from keyscale.engine.source.media import OpenMedia
from keyscale.engine.source.planes import SourcePicture, same_picture, stored_part
from keyscale.engine.source.reader import Lost, read_frames
from keyscale.engine.source.steady import Steady
from keyscale.engine.threads import Channel, Stages
from keyscale.engine.workspace.folder import WorkFolder

if TYPE_CHECKING:
    from keyscale.engine.device.line import ShownFrame
    from keyscale.engine.models.enlarger import Enlarger
    from keyscale.engine.pipeline.upscaler import Upscaler
    from keyscale.engine.threads import NetworkLock

__all__ = ["Tally", "make_frame", "run_chunks"]

GROUP_FRAMES = 64
"""Output frames that one super-resolved picture serves at most, so that progress keeps moving."""

GROUP_GROWTH = 1.5
"""How much a group's common window may outgrow its first: beyond, a second inference costs less."""

POLL_SECONDS = 0.25

GRACE_SECONDS = 0.8
"""How long a stopped pipeline may take to remove what it had begun."""


@dataclass
class Tally:
    """Counts of a run, written by the stages and read by who reports progress."""

    frames: int = 0
    """Output frames encoded."""
    lost: int = 0
    """Source frames that could not be decoded and were bridged by the one before."""
    lost_in: Counter[int] = field(default_factory=Counter)
    """The same by the index of the chunk."""
    waits: bool = False
    """Another job of this process runs its network, and this one waits for the lock."""


@dataclass(eq=False)
class _Group:
    """Output frames of one chunk that show the same pixels, perhaps by different rectangles."""

    chunk: Chunk
    pixels: SourcePicture
    outputs: list[int]
    window: Window
    first_area: int


@dataclass(frozen=True, eq=False)
class _Picture:
    """One super-resolved window and the output frames to sample from it."""

    group: _Group
    pixels: PixelArray


@dataclass(frozen=True, eq=False)
class _Sampled:
    chunk: Chunk
    picture: Future[PixelArray] | ShownFrame


def run_chunks(
    plan: Plan,
    chunks: Sequence[Chunk],
    folder: WorkFolder,
    upscaler: Upscaler | None,
    *,
    sampler_threads: int = 1,
    should_stop: Callable[[], bool],
    tally: Tally,
    open_media: OpenMedia | None = None,
    network_lock: NetworkLock | None = None,
    claim: Callable[[Chunk], bool] | None = None,
) -> Iterator[Tally]:
    """Make `chunks` (ascending) and finish each in `folder`; yields the tally several times a second.

    The source is the file that the plan names, or what `open_media` opens. A `network_lock` is held while the
    network runs. With `claim` each chunk is asked for as it is begun, and the first that is refused ends the run.
    Ends early when `should_stop` says so; the chunk in work is dropped then. Threads that hang in a network call
    may outlive the generator in that case; they are daemons and write nothing under a finished name.

    Raises:
        KeyscaleError: whatever a stage reports.
    """
    stages = Stages(should_stop)
    groups: Channel[_Group] = Channel(stages, 2)
    pictures: Channel[_Picture] = Channel(stages, 1)
    sampled: Channel[_Sampled] = Channel(stages, sampler_threads + 1)
    pool = ThreadPoolExecutor(sampler_threads, thread_name_prefix="keyscale-sampler")
    stays = upscaler is not None and stays_on_device(upscaler.model)
    device = plan.job.compute.device if upscaler is None else upscaler.model.place
    stages.start("reader", lambda: _read(plan, chunks, groups, stages, tally, open_media, claim, planes=stays))
    tally.waits = network_lock is not None and upscaler is not None

    def upscale() -> None:
        with contextlib.ExitStack() as held:
            ready = _locked(groups, stages, tally, network_lock, held)
            if upscaler is not None and stays:
                _on_device(plan, upscaler, ready, sampled)
            else:
                _upscale(upscaler, ready, pictures)

    stages.start("upscaler", upscale)
    if not stays:
        stages.start("sampler", lambda: _sample(plan, pictures, sampled, pool))
    stages.start("writer", lambda: _write(plan, folder, sampled, tally, device))
    try:
        while not stages.wait(POLL_SECONDS):
            yield tally
            if should_stop():
                return
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        stages.dismiss(GRACE_SECONDS)
        pool.shutdown(wait=True)  # what is still sampled is a picture each


def make_frame(
    plan: Plan, frame: int, upscaler: Upscaler | None, should_stop: Callable[[], bool], tally: Tally
) -> PixelArray:
    """One output frame as `run_chunks` hands it to the encoder, `(H, W, 3)`; its chunk is read from the start for that.

    A network whose context isn't exact may be a code off where the job would use the result of an earlier frame again.

    Raises:
        Interrupted: `should_stop` said so.
        KeyscaleError: the frame cannot be decoded or computed.
    """
    chunk = next(chunk for chunk in plan.chunks if chunk.start <= frame < chunk.end)
    groups = _gathered(plan, [chunk], should_stop, tally, None, None, planes=False)
    group = next((group for group in groups if frame in group.outputs), None)
    if group is None:
        raise Interrupted("interrupted")
    return _sampled_from(plan, _Picture(group, _enlarged(upscaler, group)), frame)


def _read(
    plan: Plan,
    chunks: Sequence[Chunk],
    groups: Channel[_Group],
    stages: Stages,
    tally: Tally,
    open_media: OpenMedia | None,
    claim: Callable[[Chunk], bool] | None,
    *,
    planes: bool,
) -> None:
    for group in _gathered(plan, chunks, stages.stopped, tally, open_media, claim, planes=planes):
        groups.put(group)
    stages.check()
    groups.close()


def _gathered(
    plan: Plan,
    chunks: Sequence[Chunk],
    should_stop: Callable[[], bool],
    tally: Tally,
    open_media: OpenMedia | None,
    claim: Callable[[Chunk], bool] | None,
    *,
    planes: bool,
) -> Iterator[_Group]:
    """Decode what the chunks show and gather equal neighbours into groups; ends early once `should_stop` says so."""
    outputs = deque((chunk, n) for chunk in chunks for n in range(chunk.start, chunk.end))
    # Output frames show source frames in ascending order, so each decoded frame serves the head of the queue.
    wanted = np.unique(np.concatenate([plan.source_index[chunk.start : chunk.end] for chunk in chunks]))
    frames = read_frames(
        plan.info,
        plan.info.pts[wanted].tolist(),
        deep=plan.encoder.bit_depth > 8,
        tone=plan.tone,
        keep_going=plan.job.keep_going_on_decode_errors,
        should_stop=should_stop,
        open_media=open_media,
        planes=planes,
        steady=_steady(plan, chunks),
    )
    group: _Group | None = None
    pixels: SourcePicture | None = None
    begun: Chunk | None = None
    for frame in frames:
        if isinstance(frame, Lost):
            tally.lost += 1
            if outputs:
                tally.lost_in[outputs[0][0].index] += 1
            if pixels is None:
                continue  # nothing to bridge with yet: the first frame that decodes stands in
        elif pixels is None or not same_picture(pixels, frame.picture):
            pixels = frame.picture
        while outputs and plan.pts(outputs[0][1]) <= frame.pts:
            if claim is not None and outputs[0][0] is not begun:
                begun = outputs[0][0]
                if not claim(begun):
                    outputs.clear()
                    break
            joined = _joined(plan, group, *outputs.popleft(), pixels)
            if group is not None and joined is not group:
                yield group
            group = joined
        if claim is not None and not outputs:
            break
    if should_stop() or (group is None and claim is not None and pixels is not None):
        return
    if group is None:
        raise DecodeError(f"no frame of {plan.info.path} that the job shows can be decoded")
    yield group


def _steady(plan: Plan, chunks: Sequence[Chunk]) -> Steady | None:
    """How pictures are made steady, and where: in all that the network sees of them for these chunks."""
    if plan.job.calm.steady == 0:
        return None
    halo, align = (plan.model.halo, plan.model.align) if plan.model is not None else (0, 1)
    seen: dict[int, Window] = {}
    for chunk in chunks:
        for n in range(chunk.start, chunk.end):
            window, pts = plan.window(n), plan.pts(n)
            seen[pts] = window.union(seen[pts]) if pts in seen else window

    def part_of(pts: int) -> Window:
        return stored_part(plan.info, seen[pts].widened(halo, align, plan.geometry.lattice))

    return Steady(plan.job.calm.steady, part_of, plan.info.decoded_size, plan.info.orientation)


def _joined(plan: Plan, group: _Group | None, chunk: Chunk, n: int, pixels: SourcePicture) -> _Group:
    """The group with output frame `n` in it where that fits, else another one."""
    window = plan.window(n)
    if group is not None and group.chunk is chunk and group.pixels is pixels and len(group.outputs) < GROUP_FRAMES:
        union = group.window.union(window)
        if union.area <= GROUP_GROWTH * group.first_area:
            group.window = union
            group.outputs.append(n)
            return group
    return _Group(chunk, pixels, [n], window, window.area)


def _locked(
    groups: Channel[_Group],
    stages: Stages,
    tally: Tally,
    network_lock: NetworkLock | None,
    held: contextlib.ExitStack,
) -> Iterator[_Group]:
    """The groups; from the first one on `held` holds the lock."""
    for group in groups:
        if tally.waits and network_lock is not None:
            held.enter_context(network_lock.taken(stages.check))
            tally.waits = False
        yield group


def _upscale(upscaler: Upscaler | None, groups: Iterable[_Group], pictures: Channel[_Picture]) -> None:
    chunk: Chunk | None = None
    for group in groups:
        if upscaler is not None and group.chunk is not chunk:
            upscaler.forget()
            chunk = group.chunk
        pictures.put(_Picture(group, _enlarged(upscaler, group)))
    pictures.close()


def _enlarged(upscaler: Upscaler | None, group: _Group) -> PixelArray:
    assert isinstance(group.pixels, np.ndarray)
    return _seen(group) if upscaler is None else upscaler(group.pixels, group.window)


def _seen(group: _Group) -> PixelArray:
    """The group's window of the source."""
    assert isinstance(group.pixels, np.ndarray)
    window = group.window
    return group.pixels[window.y0 : window.y1, window.x0 : window.x1]


def stays_on_device(model: Enlarger) -> bool:
    """Whether frames stay on the network's device from the decoder's planes to the encoder's: on GPUs, in torch."""
    return model.place.partition(":")[0] in {"cuda", "mps"}


def _on_device(plan: Plan, upscaler: Upscaler, groups: Iterable[_Group], sampled: Channel[_Sampled]) -> None:
    """Network, camera and colour of each output frame, in order; nothing is waited for here."""
    from keyscale.engine.device.line import DeviceLine

    line = DeviceLine(
        upscaler,
        geometry=plan.geometry,
        scale=plan.scale,
        target=(plan.job.target.width, plan.job.target.height),
        colour=plan.colour,
        pixel_format=plan.encoder.pixel_format,
        deep=plan.encoder.bit_depth > 8,
        strength=plan.strength,
    )
    chunk: Chunk | None = None
    for group in groups:
        if group.chunk is not chunk:
            upscaler.forget()
            chunk = group.chunk
        picture = line.picture(group.pixels, group.window)
        shown: ShownFrame | None = None
        rect = plan.rects[group.outputs[0]]
        for n in group.outputs:
            if shown is None or not np.array_equal(plan.rects[n], rect):
                rect = plan.rects[n]
                shown = line.shown(picture, group.pixels, group.window, rect, plan.placements[n])
            sampled.put(_Sampled(group.chunk, shown))
        del picture, shown
    sampled.close()


def _sample(plan: Plan, pictures: Channel[_Picture], sampled: Channel[_Sampled], pool: ThreadPoolExecutor) -> None:
    """One task an output frame, in order; where neither pixels nor camera moved, the same one again."""
    for picture in pictures:
        group = picture.group
        task: Future[PixelArray] | None = None
        rect = plan.rects[group.outputs[0]]
        for n in group.outputs:
            if task is None or not np.array_equal(plan.rects[n], rect):
                rect = plan.rects[n]
                task = pool.submit(_sampled_from, plan, picture, n)
            sampled.put(_Sampled(group.chunk, task))
    sampled.close()


def _sampled_from(plan: Plan, picture: _Picture, frame: int) -> PixelArray:
    """Output frame `frame` of a picture."""
    group, target = picture.group, (plan.job.target.width, plan.job.target.height)
    how = plan.geometry, plan.rects[frame], plan.placements[frame], target
    shown = sample(picture.pixels, group.window, plan.scale, *how)
    if plan.strength == 1:
        return shown
    return mixed(sample(_seen(group), group.window, 1, *how), shown, plan.strength)


def _write(plan: Plan, folder: WorkFolder, sampled: Channel[_Sampled], tally: Tally, device: str) -> None:
    """Encode pictures chunk by chunk; a chunk that is not complete leaves no file."""
    source = iter(sampled)
    item = next(source, None)
    while item is not None:
        chunk = item.chunk
        with ChunkWriter(
            folder.part(chunk),
            plan.encoder,
            plan.colour,
            (plan.job.target.width, plan.job.target.height),
            plan.rate,
            mastering=plan.info.mastering if plan.tone is None else None,
            light_level=plan.info.light_level if plan.tone is None else None,
            device=device,
        ) as writer:
            while item is not None and item.chunk is chunk:
                writer.write(item.picture.result())
                tally.frames += 1
                item = next(source, None)
            if writer.frames != chunk.frames:
                raise VerificationError(
                    f"chunk {chunk.index} came out with {writer.frames} frames instead of {chunk.frames}",
                    remedy="This is a fault of keyscale: please report it with the command and the plan.",
                )
        folder.finish(chunk, lost=tally.lost_in[chunk.index])
