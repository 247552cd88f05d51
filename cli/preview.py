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


def preview(
    *, output: str | None, overwrite: bool, embed: bool, notify: bool, on_done: str | None, **values: Any
) -> None:
    """Show the camera over VIDEO and what it will see. Takes the flags of upscale and runs no network."""
    from keyscale.cli.apart import look_at
    from keyscale.cli.notices import announced
    from keyscale.cli.source import local_source
    from keyscale.cli.terminal import write_path
    from keyscale.engine.addresses import is_address, local_name
    from keyscale.engine.errors import UsageError
    from keyscale.engine.request import request_of
    from keyscale.engine.wording import say

    request = request_of(values)
    video = local_name(request.job.source)
    path = output if output is not None else str(video.parent / f"{video.stem}.preview.png")
    # After the flags: a wrong one is answered at once.
    from keyscale.engine.review.preview import check_kind, write_preview
    from keyscale.engine.runners.prepare import prepare_plan

    if check_kind(path) == ".html" and is_address(request.job.source) and not embed:
        raise UsageError(
            say("{output} {}: a page links to its source, and of an address there is a copy for some days only", path),
            remedy=say("Give {embed=True} too."),
        )
    with announced(path, notify=notify, on_done=on_done):
        job = local_source(request.job, quiet=values["quiet"])
        plan = prepare_plan(job, remote=request.remote is not None, look=look_at())
        write_preview(plan, path, overwrite=overwrite, embed=embed)
    write_path(path)


def command() -> ConfiguredCommand:
    """The command with its flags."""
    return ConfiguredCommand("preview", preview, preview_options(), epilog=_EXAMPLES)
