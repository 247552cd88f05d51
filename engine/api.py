"""keyscale for programs: `upscale` and `plan`, as the package `keyscale` offers them (docs/python.md)."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from os import PathLike, environ
from types import TracebackType
from typing import Literal

from keyscale.engine.arguments import Request, in_python, read_arguments, said_in_python
from keyscale.engine.camera.framing import Framing
from keyscale.engine.errors import Interrupted, UsageError
from keyscale.engine.events import Done, Event, Failed, Note, Progress
from keyscale.engine.plan.plan import Plan
from keyscale.engine.runners.prepare import prepare, prepare_plan
from keyscale.engine.threads import Keeper

__all__ = ["Upscaling", "plan", "upscale"]

POLL_S = 0.5
"""How long a wait may last before it is looked whether it makes sense; where signals do not wake a waiting thread, the
longest that Ctrl-C is not noticed."""


def upscale(
    video: str | PathLike[str],
    keyframes: str | PathLike[str] | Framing | None = None,
    output: str | PathLike[str] | None = None,
    *,
    start: float | None = None,
    end: float | None = None,
    keep_going_on_decode_errors: bool = False,
    size: tuple[int, int] | str = (1080, 1920),
    fit: Literal["cover", "contain", "stretch"] = "cover",
    fps: float | Fraction | str = 30,
    overwrite: bool = False,
    update: bool = False,
    codec: Literal["auto", "h264", "hevc", "av1", "prores", "h264_nvenc", "hevc_nvenc", "av1_nvenc"] = "auto",
    crf: int | None = None,
    preset: str | None = None,
    bit_depth: Literal[8, 10] | None = None,
    audio: bool = True,
    verify: Literal["full", "quick"] = "full",
    mode: Literal["fast", "quality"] = "fast",
    model: str | PathLike[str] | None = None,
    denoise: float | None = None,
    offline: bool = False,
    device: str = "auto",
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto",
    tile: int | Literal["auto"] = "auto",
    chunk_seconds: float = 8.0,
    resume: bool = True,
    remote: bool = False,
    remote_containers: int | None = None,
    remote_fallback: Literal["none", "local"] = "none",
    max_cost: float | None = None,
) -> Upscaling:
    """Crop a video along keyframes, upscale what the camera sees, write a verified clip.

    Nothing begins before the result is iterated or run:

        for event in upscale("talk.mp4", "camera.json", "clip.mp4"):
            ...
        done = upscale("talk.mp4", "camera.json", "clip.mp4").run()

    Args:
        video: the source; it is only read.
        keyframes: the camera, as the path of a keyframes file or as a `Framing`; None is the whole picture.
        output: the result; None is `NAME.keyscale.mp4` beside the source. Its extension chooses the container.
            `"r2://BUCKET/KEY"` is kept in the current folder under the key's last part and stored there too.
        start: begin at this second of the source; None is the keyframes file's trim, else 0.
        end: end at this second of the source; None is the keyframes file's trim, else the source's end.
        keep_going_on_decode_errors: bridge source frames that cannot be decoded; otherwise they are an error.
        size: width and height of the result in pixels, both even, 2 to 16384; or text such as `"1080x1920"`.
        fit: how a camera rectangle of another shape meets `size`: filled, shown whole with bars, or distorted.
        fps: frames a second of the result, exactly: 30, `Fraction(30000, 1001)`, 29.97 (and the other NTSC rates, read
            as the fractions they stand for), text as on the command line, or `"source"`.
        overwrite: replace an existing result, once the new one is verified.
        update: skip the job where the result is there and came of the same source, framing and settings, which
            `Done.skipped` says; replace it where keyscale made it of others.
        codec: the video encoder; `"auto"` is H.264, HEVC with 10 bits for HDR sources, and AV1 in `.webm`.
        crf: quality, lower is better: 0 to 51, for AV1 0 to 63; None is the mode's own.
        preset: the encoder's own preset; None is the mode's own.
        bit_depth: bits a sample; None is 8, and 10 for HDR sources and ProRes.
        audio: False leaves the sound out.
        verify: `"full"` decodes every frame of the result before it gets its name, `"quick"` two seconds at either end.
        mode: defaults of network and encoder.
        model: another network than the mode's: a name of `keyscale models list`, a checkpoint's path, or `"lanczos"`.
        denoise: strength of noise removal, 0 to 1, for `model="realesr-general-x4v3"` alone.
        offline: never download weights.
        device: `"auto"`, `"cpu"`, `"mps"`, `"cuda"` or `"cuda:N"`.
        precision: arithmetic of the network.
        tile: side of a tile in source pixels, 32 or more; `"auto"` follows the memory, 0 never tiles.
        chunk_seconds: seconds of the result in a chunk, 0.1 to 3600: what an interruption can cost.
        resume: False removes what an earlier run of the same job had finished.
        remote: make the chunks on Modal GPUs. The environment variable `MODAL_ENABLED` is for commands alone.
        remote_containers: with `remote`, containers at once at most, 1 to 1000; None is what the deployment allows.
        remote_fallback: with `remote`, make `"local"`ly what cannot be made there.
        max_cost: with `remote`, begin nothing that is estimated to cost more dollars.

    Raises:
        UsageError: an argument has a wrong type or value; files are looked at later.
    """
    # Taken as they are: type checkers hold callers to the types above, and `read_arguments` those who use none.
    return Upscaling(read_arguments(locals()))


def plan(
    video: str | PathLike[str],
    keyframes: str | PathLike[str] | Framing | None = None,
    output: str | PathLike[str] | None = None,
    *,
    start: float | None = None,
    end: float | None = None,
    keep_going_on_decode_errors: bool = False,
    size: tuple[int, int] | str = (1080, 1920),
    fit: Literal["cover", "contain", "stretch"] = "cover",
    fps: float | Fraction | str = 30,
    overwrite: bool = False,
    update: bool = False,
    codec: Literal["auto", "h264", "hevc", "av1", "prores", "h264_nvenc", "hevc_nvenc", "av1_nvenc"] = "auto",
    crf: int | None = None,
    preset: str | None = None,
    bit_depth: Literal[8, 10] | None = None,
    audio: bool = True,
    verify: Literal["full", "quick"] = "full",
    mode: Literal["fast", "quality"] = "fast",
    model: str | PathLike[str] | None = None,
    denoise: float | None = None,
    offline: bool = False,
    device: str = "auto",
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto",
    tile: int | Literal["auto"] = "auto",
    chunk_seconds: float = 8.0,
    resume: bool = True,
    remote: bool = False,
    remote_containers: int | None = None,
    remote_fallback: Literal["none", "local"] = "none",
    max_cost: float | None = None,
) -> Plan:
    """What `upscale` would do with the same arguments, frame by frame. Runs no network and writes nothing.

    Raises:
        UsageError: an argument, or what the keyframes file holds, is wrong.
        KeyscaleError: the source, the network or, with `remote`, the cost is what stands against it.
    """
    request = read_arguments(locals())
    job = request.job
    with said_in_python(*_names(request)):
        found = prepare_plan(job, remote=request.remote is not None, framing=request.framing)
        if request.remote is not None:
            from keyscale.engine.remote.prices import affordable, check_suited, deployment_estimate, wanted_gpus

            check_suited(found, wanted_gpus(environ))
            expected = deployment_estimate(found, environ, containers=request.remote.containers)
            affordable(expected, request.remote.max_cost)
    return replace(found, warnings=tuple(in_python(warning, *_names(request)) for warning in found.warnings))


class Upscaling:
    """A job that `upscale` was asked for. Iterating it, or `run`, does it, once.

    Iterating gives events: `Progress`, at least one every two seconds once the job is prepared; `Note`; and `Done` as
    the last one. The work goes on in threads of its own, whatever the loop does meanwhile. A loop that is left early
    ends it, by `break` as by an exception; so does `close`, from any thread. Whoever ends it waits until no thread and
    no open file of it is left. Finished chunks are kept for the next time.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._gate = threading.Lock()
        self._work: _Work | None = None
        self._closed = False
        self._result: Done | None = None

    @property
    def output(self) -> str:
        """Where the finished file will stand."""
        return self._request.job.output

    @property
    def result(self) -> Done | None:
        """The last event, once the job is done."""
        return self._result

    def __iter__(self) -> Iterator[Progress | Note | Done]:
        """Do the job.

        Raises:
            Interrupted: `close` was called from elsewhere.
            KeyscaleError: whatever failed; nothing half done has a finished name.
            UsageError: the job was done, or closed, already.
        """
        work = self._begin()
        try:
            for event in work.events():
                if isinstance(event, Done):
                    self._result = event
                yield event
        finally:
            work.end()

    def run(self, on_event: Callable[[Progress | Note | Done], object] | None = None) -> Done:
        """Do the job and return its last event; `on_event` is called with each of them. Errors as of iterating."""
        for event in self:
            if on_event is not None:
                on_event(event)
        assert self._result is not None
        return self._result

    def close(self) -> None:
        """End the work, if there is any, and wait for that; finished chunks are kept."""
        with self._gate:
            self._closed = True
            work = self._work
        if work is not None:
            work.end()

    def __enter__(self) -> Upscaling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Upscaling of {self._request.job.source!r} to {self.output!r}>"

    def _begin(self) -> _Work:
        with self._gate:
            if self._work is not None or self._closed:
                raise UsageError("this job was begun or closed already", remedy="Call upscale() again.")
            self._work = _Work(self._request)
        self._work.start()
        return self._work


class _Work:
    """The job in a thread of its own. It knows nothing of who listens, so that one who leaves can be noticed."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._names = _names(request)
        self._stop = threading.Event()
        self._told: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._keeper = Keeper("keyscale-job", self._run)

    def start(self) -> None:
        # The interpreter freezes threads as it ends, in the middle of whatever they write.
        atexit.register(self.end)
        self._keeper.start()

    def events(self) -> Iterator[Progress | Note | Done]:
        """What the job tells, up to `Done`, or what ended it raised."""
        while True:
            at_work = self._keeper.is_alive()
            try:
                told = self._told.get(timeout=POLL_S)
            except queue.Empty:
                if at_work:
                    continue
                raise RuntimeError("the job ended without a result") from None
            if isinstance(told, BaseException):
                try:
                    raise told
                finally:
                    del told  # it holds this frame by its traceback, and with it all that the job has in memory
            assert not isinstance(told, Failed)
            yield told
            if isinstance(told, Done):
                return

    def end(self) -> None:
        """Stop, and wait until nothing of it is left."""
        self._stop.set()
        # What drops the last reference may be one of the job's own threads, which cannot wait for itself.
        if not self._keeper.includes(threading.current_thread()):
            while self._keeper.is_alive():
                self._keeper.join(POLL_S)
            atexit.unregister(self.end)

    def _run(self) -> None:
        try:
            with said_in_python(*self._names):
                for event in self._make():
                    told = event
                    if isinstance(told, Note):
                        told = replace(told, message=in_python(told.message, *self._names))
                    self._told.put(told)
        except Interrupted as error:
            error.remedy = error.remedy or "Call upscale() again: what is finished of it is not made again."
            self._told.put(error)
        except BaseException as error:
            self._told.put(error)

    def _make(self) -> Iterator[Event]:
        request, options = self._request, self._request.remote
        prepared = prepare(request.job, remote=options is not None, framing=request.framing)
        if options is None:
            from keyscale.engine.runners.local import run_local

            return run_local(prepared, self._stop)
        from keyscale.engine.remote.run import run_remote

        return run_remote(prepared, options, self._stop)


def _names(request: Request) -> tuple[str | None, ...]:
    """What messages may name that is no word of keyscale's."""
    job = request.job
    return job.source, job.output, job.keyframes, job.model.name, job.publish_to
