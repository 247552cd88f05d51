"""A plan written to be looked at, in the form that the name's extension says."""

from __future__ import annotations

from pathlib import Path

from keyscale.engine.errors import UsageError
from keyscale.engine.files import drafted
from keyscale.engine.plan.plan import Plan
from keyscale.engine.wording import say

__all__ = ["KINDS", "check_kind", "write_preview"]

KINDS = (".png", ".html", ".mp4")
"""Extensions of what can be written."""


def check_kind(path: str) -> str:
    """The extension of a preview or a comparison, in lower case.

    Raises:
        UsageError: it is another one than those of `KINDS`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in KINDS:
        raise UsageError(
            say("{output} {} does not end in one of {}", path, ", ".join(KINDS)),
            remedy=say("Name a picture, {output} preview.png, or one of the others."),
        )
    return suffix


def write_preview(plan: Plan, path: str, *, overwrite: bool = False, embed: bool = False) -> None:
    """Write the preview of a plan; `embed` puts frames of the source into a page instead of a link to it.

    Raises:
        UsageError: the extension is none of `KINDS`, or frames are to be embedded in what is no page.
        StorageError: the file is there and may not be replaced, or cannot be written.
        KeyscaleError: the source cannot be decoded.
    """
    suffix = check_kind(path)
    if embed and suffix != ".html":
        raise UsageError(
            f"goes with a page alone, and {path} is none", option="embed", remedy=say("Leave {embed} out.")
        )
    with drafted(path, overwrite=overwrite) as draft:
        if suffix == ".png":
            from keyscale.engine.review.sheet import contact_sheet

            contact_sheet(plan).save(draft, "PNG")
        elif suffix == ".html":
            from keyscale.engine.review.page import preview_page

            text = preview_page(plan, Path(path), embed=embed)
            draft.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
        else:
            from keyscale.engine.review.clip import write_preview_clip

            write_preview_clip(plan, draft)
