"""A clip as a batch's inputs name it, before any flag is applied to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keyscale.engine.errors import KeyscaleError

__all__ = ["Clip", "OptionValue"]

OptionValue = str | bool | int | float
"""What a manifest says of a flag: text from CSV, any of these from JSON."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One video to make, or why there is none to make."""

    name: str
    """How people know it: its path beneath the folder, or as it was named."""
    video: Path
    keyframes: Path | None = None
    """None where the whole picture is used, and where `fault` says that they are missing."""
    stem: Path
    """Where the result goes beneath the output folder, without a suffix."""
    output: Path | None = None
    """Where a manifest wants it beneath the output folder, unchecked; None follows `stem`."""
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    """Flags of this clip alone, by name without the dashes before it (`no-audio`), unchecked."""
    where: str = ""
    """Manifest and line, for messages; empty where no manifest named it."""
    fault: KeyscaleError | None = None
    """Why nothing can be made of it; the other clips go on."""
