"""`keyscale compare`: before and after at the same moments, as a picture, a page or a clip."""

from __future__ import annotations

import sys
from typing import Any

from keyscale.cli.options import compare_options
from keyscale.cli.settings import ConfiguredCommand
from keyscale.cli.terminal import SafeStream, printable, write_path
from keyscale.engine.choices import Reference

__all__ = ["command", "compare"]

_EXAMPLES = """\
Examples:

\b
  keyscale compare talk.keyscale.mp4             finds its source by the key
  keyscale compare talk.mp4 clip.mp4 camera.json -o look.html    a slider
  keyscale compare fast.mp4 quality.mp4 -o split.mp4    split screen
  keyscale compare original.mp4 enlarged.mp4 --reference first   PSNR too
"""


def compare(
    *,
    result: str | None,
    output: str | None,
    overwrite: bool,
    reference: Reference,
    notify: bool,
    on_done: str | None,
    **values: Any,
) -> None:
    """Show VIDEO as its camera sees it beside RESULT, or two results, at the same moments. Runs no network.

    A result alone is compared with its source, which is found in the same folder by the key in the result.
    """
    from pathlib import Path

    from keyscale.cli.apart import look_at
    from keyscale.cli.notices import announced
    from keyscale.cli.source import local_source
    from keyscale.engine.addresses import is_address
    from keyscale.engine.addresses import shown as shown_address
    from keyscale.engine.errors import UsageError
    from keyscale.engine.request import request_of

    for given in (values["video"], result):
        if given is not None and not is_address(given) and Path(given).suffix.lower() == ".json":
            raise UsageError(
                f"{given} looks like keyframes",
                remedy=f"The camera comes last: keyscale compare VIDEO RESULT {given}.",
            )
    job = request_of(values).job
    if is_address(result or job.source):
        raise UsageError(
            f"{shown_address(result or job.source)} is an address, and a result has to be a file here",
            remedy="Download it, and name the file.",
        )
    shown = Path(result or job.source)
    path = output if output is not None else str(shown.parent / f"{shown.stem}.compare.png")
    # After the flags: a wrong one is answered at once.
    from keyscale.engine.review.compare import write_comparison
    from keyscale.engine.review.comparison import pair_of
    from keyscale.engine.review.origin import origin_of
    from keyscale.engine.review.preview import check_kind

    check_kind(path)
    with announced(path, notify=notify, on_done=on_done):
        job = local_source(job, quiet=values["quiet"])
        look, say = look_at(), SafeStream(sys.stderr)
        after = result
        if after is None:
            after = job.source
            job = origin_of(after, job, look)
            camera = f" and {job.keyframes}" if job.keyframes is not None else ", the whole picture"
            say.line(printable(f"{after} was made of {job.source}{camera}"))
        pair = pair_of(job, after, look)
        for note in pair.notes:
            say.line(printable(f"warning: {note}"))
        told = write_comparison(pair, path, overwrite=overwrite, reference=reference)
        say.line(printable(told))
    write_path(path)


def command() -> ConfiguredCommand:
    """The command with its flags."""
    return ConfiguredCommand("compare", compare, compare_options(), epilog=_EXAMPLES)
