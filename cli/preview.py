"""`keyscale preview`: what `upscale` would show with the same flags, as a picture, a page or a clip."""

from __future__ import annotations

from typing import Any

from keyscale.cli.options import preview_options
from keyscale.cli.settings import ConfiguredCommand

__all__ = ["command", "preview"]

_EXAMPLES = """\
Examples:

\b
  keyscale preview talk.mp4 camera.json                 talk.preview.png
  keyscale preview talk.mp4 camera.json -o camera.html  a page to scrub
  keyscale preview talk.mp4 camera.json -o look.mp4     a small clip
"""


def preview(*, output: str | None, overwrite: bool, embed: bool, **values: Any) -> None:
    """Show the camera over VIDEO and what it will see. Takes the flags of upscale and runs no network."""
    from pathlib import Path

    from keyscale.cli.apart import look_at
    from keyscale.cli.terminal import write_path
    from keyscale.engine.request import request_of

    request = request_of(values)
    video = Path(request.job.source)
    path = output if output is not None else str(video.parent / f"{video.stem}.preview.png")
    # After the flags: a wrong one is answered at once.
    from keyscale.engine.review.preview import check_kind, write_preview
    from keyscale.engine.runners.prepare import prepare_plan

    check_kind(path)
    plan = prepare_plan(request.job, remote=request.remote is not None, look=look_at())
    write_preview(plan, path, overwrite=overwrite, embed=embed)
    write_path(path)


def command() -> ConfiguredCommand:
    """The command with its flags."""
    return ConfiguredCommand("preview", preview, preview_options(), epilog=_EXAMPLES)
