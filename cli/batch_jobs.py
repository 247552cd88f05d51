"""A batch's clips and flags -> the jobs that it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import typer
from typer.main import get_command

from keyscale.cli import options as opt
from keyscale.cli.settings import cast_text, check, flag_name
from keyscale.cli.upscale import upscale

if TYPE_CHECKING:
    from keyscale.engine.batch.clip import BatchClip, Clip
    from keyscale.engine.batch.outputs import Places
    from keyscale.engine.errors import KeyscaleError

__all__ = ["batch_clips"]


def batch_clips(
    clips: Sequence[Clip], *, output_dir: Path, flags: Mapping[str, Any], places: Places | None = None
) -> tuple[BatchClip, ...]:
    """Each clip as a job, in the same order, or with the fault that keeps it from being one.

    A clip's own options win over the flags. Results are `.mp4`, for ProRes `.mov`, unless a manifest names them
    otherwise. Every job updates: what is there and came of the same job is left alone. Nothing is written, and no
    folder is made.

    Args:
        clips: as `find_clips` or `Watch.poll` gives them.
        output_dir: where results go.
        flags: arguments of `build_job` by their names there, as Typer gives them to a command; not `video`,
            `keyframes` and `output`.
        places: what earlier calls took, where a batch goes on for clips that come later; None begins anew.

    Raises:
        UsageError: the flags are wrong by themselves.
    """
    from keyscale.engine.batch.outputs import Places
    from keyscale.engine.errors import KeyscaleError

    # Whatever is wrong for all of them is said once, before anything starts.
    opt.build_job(**{"video": "video"} | dict(flags))
    places = Places(output_dir) if places is None else places
    drafts: list[_Draft] = []
    for clip in clips:
        try:
            if clip.fault is not None:
                raise clip.fault
            drafts.append(_Draft(clip, flags={**flags, **_own_flags(clip)}))
        except KeyscaleError as error:
            drafts.append(_Draft(clip, flags=dict(flags), fault=error))
    sound = [draft for draft in drafts if draft.fault is None]
    for draft, place in zip(sound, places.take([(draft.clip, draft.suffix) for draft in sound]), strict=True):
        if isinstance(place, Path):
            draft.output = place
        else:
            draft.fault = place
    return tuple(_batch_clip(draft, output_dir) for draft in drafts)


@dataclass
class _Draft:
    clip: Clip
    flags: dict[str, Any]
    fault: KeyscaleError | None = None
    output: Path | None = None

    @property
    def suffix(self) -> str:
        return Path(opt.default_output("video", self.flags.get("codec", opt.CodecChoice.AUTO))).suffix


def _batch_clip(draft: _Draft, output_dir: Path) -> BatchClip:
    from keyscale.engine.batch.clip import BatchClip
    from keyscale.engine.errors import KeyscaleError

    clip = draft.clip
    # Where there is no job, it says where people would have looked for the result.
    meant = clip.output if clip.output is not None else clip.stem.with_name(clip.stem.name + draft.suffix)
    found = BatchClip(
        name=clip.name,
        video=str(clip.video),
        keyframes=None if clip.keyframes is None else str(clip.keyframes),
        output=str(draft.output or output_dir / meant),
        fault=draft.fault,
        where=clip.where,
    )
    if draft.fault is not None:
        return found
    try:
        job = opt.build_job(
            **draft.flags | {"video": found.video, "keyframes": found.keyframes, "output": found.output, "update": True}
        )
    except KeyscaleError as error:
        error.message = f"{clip.where}: {error.message}" if clip.where else error.message
        return replace(found, fault=error)
    return replace(found, job=job)


def _own_flags(clip: Clip) -> dict[str, Any]:
    """A clip's options as arguments of `build_job`, cast as the command line casts them.

    Raises:
        UsageError: a value is refused by itself; the message names manifest, line and column.
    """
    from keyscale.engine.errors import UsageError

    own: dict[str, Any] = {}
    for name, value in clip.options.items():
        param, kind = _parameters()[name]
        # What the command line would have got; numbers that JSON writes as 30.0 are whole ones all the same.
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else value
        try:
            if isinstance(value, bool) is not param.is_flag and not isinstance(value, str):
                must = "true or false" if param.is_flag else "text or a number"
                raise UsageError(f"it must be {must}, not {value!r}")
            cast = cast_text(param, text if param.is_flag else str(text))
            check(param.name, cast)
        except UsageError as error:
            raise UsageError(f"{clip.where}: {name}: {error.message}", remedy=error.remedy) from error
        own[param.name] = cast if kind is None else kind(cast)
    return own


@cache
def _parameters() -> dict[str, tuple[Any, Any]]:
    """Of upscale's flags, by name: the parameter, and the class of its choices."""
    program = typer.Typer(add_completion=False)
    program.command()(upscale)
    hints = get_type_hints(upscale)
    return {
        name: (param, hints[param.name] if hasattr(hints[param.name], "__members__") else None)
        for param in get_command(program).params
        if (name := flag_name(param)) is not None and param.name in hints
    }
