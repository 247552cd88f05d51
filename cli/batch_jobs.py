"""A batch's clips and flags -> the jobs that it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyscale.engine.batch.manifest import columns_of
from keyscale.engine.choices import Codec
from keyscale.engine.errors import KeyscaleError, UsageError
from keyscale.engine.job import Job, default_output
from keyscale.engine.options import Option
from keyscale.engine.request import request_of
from keyscale.engine.wording import Named, as_flag

if TYPE_CHECKING:
    from keyscale.engine.batch.clip import BatchClip, Clip
    from keyscale.engine.batch.outputs import Places

__all__ = ["batch_clips"]


def batch_clips(
    clips: Sequence[Clip],
    *,
    output_dir: Path,
    flags: Mapping[str, Any],
    places: Places | None = None,
    kind: type[Job] = Job,
) -> tuple[BatchClip, ...]:
    """Each clip as a job, in the same order, or with the fault that keeps it from being one.

    A clip's own options win over the flags. Results are `.mp4`, for ProRes `.mov`, unless a manifest names them
    otherwise. Every job updates: what is there and came from the same job is left alone. Nothing is written, and no
    folder is made.

    Args:
        clips: as `find_clips` or `Watch.poll` gives them.
        output_dir: where results go.
        flags: values of options that hold for all clips; `video`, `keyframes` and `output` are the clips' own.
        places: what earlier calls took, where a batch goes on for clips that come later; None begins anew.
        kind: the class of the jobs.

    Raises:
        UsageError: the flags are wrong by themselves.
    """
    from keyscale.engine.batch.clip import BatchClip
    from keyscale.engine.batch.outputs import Places

    flags = {**flags, "update": True}
    # Whatever is wrong for all of them is said once, before anything starts.
    request_of({**flags, "video": "video", "output": None})
    columns = columns_of(kind)
    places = Places(output_dir) if places is None else places
    values: list[dict[str, Any]] = []
    faults: list[KeyscaleError | None] = []
    for clip in clips:
        own: dict[str, Any] = {}
        try:
            if clip.fault is None:
                own = _own_flags(clip, columns)
            faults.append(clip.fault)
        except KeyscaleError as error:
            faults.append(error)
        values.append({**flags, **own})
    suffixes = [Path(default_output("video", each.get("codec", Codec.AUTO))).suffix for each in values]
    sound = [number for number, fault in enumerate(faults) if fault is None]
    taken = dict(zip(sound, places.take([(clips[number], suffixes[number]) for number in sound]), strict=True))
    made = []
    for number, (clip, fault) in enumerate(zip(clips, faults, strict=True)):
        # Where there is no job, it says where people would have looked for the result.
        meant = clip.output if clip.output is not None else clip.stem.with_name(clip.stem.name + suffixes[number])
        place = taken.get(number, fault)
        found = BatchClip(
            name=clip.name,
            video=str(clip.video) if clip.link is None else clip.name,
            # A file that is called so; it is standard input to a single job alone.
            keyframes=None if clip.keyframes is None else "./-" if str(clip.keyframes) == "-" else str(clip.keyframes),
            output=str(place if isinstance(place, Path) else output_dir / meant),
            fault=place if isinstance(place, KeyscaleError) else None,
            where=clip.where,
        )
        if found.fault is None:
            own = {"video": clip.link or found.video, "keyframes": found.keyframes, "output": found.output}
            try:
                found = replace(found, job=request_of(values[number] | own, kind=kind).job)
            except KeyscaleError as error:
                error.message = f"{clip.where}: {error.message}" if clip.where else error.message
                found = replace(found, fault=error)
        made.append(found)
    return tuple(made)


def _own_flags(clip: Clip, columns: Mapping[str, Option]) -> dict[str, Any]:
    """A clip's own options.

    Raises:
        UsageError: a value is refused by itself; the message names manifest, line and column.
    """
    own: dict[str, Any] = {}
    for column, value in clip.options.items():
        each = columns[column]

        def as_column(named: Named, each: Option = each) -> str:
            return as_flag(named) if named.name != each.name else each.key

        try:
            own[each.name] = each.read(value)
        except UsageError as error:
            prefix = clip.where if error.option == each.name else f"{clip.where}: {column}"
            error.word(as_column)
            error.message = f"{prefix}: {error.message}"
            error.args = (error.message,)
            raise
    return own
