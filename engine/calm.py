"""What a job does about the noise of its source: options of a `Job`."""

from __future__ import annotations

from dataclasses import dataclass

from keyscale.engine import forms
from keyscale.engine.options import check_fields, option

__all__ = ["Calm"]


@dataclass(frozen=True, kw_only=True)
class Calm:
    """Noise taken out of the source before it is enlarged."""

    steady: float | None = option(
        0.0,
        "Average noise away over neighbouring frames where nothing moves; a number is the strength.",
        "Model",
        form=forms.Dial(),
        docs="average noise away over neighbouring frames where nothing moves, before they are enlarged: `auto` goes "
        "by the noise, a number is the strength; see [calm.md](calm.md)",
        default_docs="`off`",
    )
    """Share of the mean in the result; 0 is off, None goes by the noise that there is."""

    def __post_init__(self) -> None:
        check_fields(self)
