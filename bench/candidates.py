"""What `bench.quality` compares: Lanczos, published and shipped networks, checkpoints; and how a clip is enlarged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.quality import Options
    from keyscale.engine.job import Precision

__all__ = ["HEAVY", "REFERENCES", "Candidate", "candidates", "enlarge"]

REFERENCES = ("realesr-animevideov3", "realesr-general-x4v3")
HEAVY = "RealESRGAN_x4plus"
REFERENCE_SOURCES = ("crf23", "crf33")
"""Where a default run judges the published networks, which take most of its time; with `--docs` or sources of one's
own they are judged everywhere."""
HEAVY_SOURCES, HEAVY_RATIO = ("crf23",), 4.0
"""Where the heaviest one is judged: at its own scale it takes seconds a frame."""
HALF = 0.5
"""Strength that is judged beside the looks."""
CRF = 4
"""Of the results: what the encoder takes from them is little beside what is compared."""


@dataclass(frozen=True)
class Candidate:
    """A row of the tables."""

    name: str
    model: str | None
    """Registry name or a checkpoint's path; None is keyscale's own choice."""
    precision: Precision
    scale: int | None = None
    """Of its network, where it is judged at ratios of its own alone; None is judged at all."""
    digest: str = ""
    """Of its weights: rows of others are measured again."""
    sources: tuple[str, ...] | None = None
    """Names of sources that it is judged at; None is all."""
    ratios: tuple[float, ...] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further options of its jobs, as text."""

    def takes(self, ratio: float, source: str) -> bool:
        """Whether it is judged there. A network for x2 is for all up to x2, one for x4 for all above."""
        if self.scale is not None and (self.scale <= 2) != (ratio <= 2):
            return False
        return (self.sources is None or source in self.sources) and (self.ratios is None or ratio in self.ratios)


def candidates(options: Options) -> list[Candidate]:
    """Everything that is compared, in the tables' order.

    Raises:
        KeyscaleError: a checkpoint is absent or wrong.
    """
    from keyscale.engine.forms import LOOKS
    from keyscale.engine.job import Mode, Precision
    from keyscale.engine.models import all_models, at_look, defaults_for, describe

    fp32, auto = Precision.FP32, Precision.AUTO
    places = None if options.everywhere else REFERENCE_SOURCES
    found = [Candidate("Lanczos", "lanczos", auto)]
    found += [Candidate(name, name, fp32, sources=places) for name in REFERENCES]
    if options.heavy:
        found.append(Candidate(HEAVY, HEAVY, fp32, sources=HEAVY_SOURCES, ratios=(HEAVY_RATIO,)))
    for spec in all_models():
        if spec.shipped:
            own = {Precision.FP32: spec.files[0].sha256, Precision.INT8: "".join(f.sha256 for f in spec.quantised)}
            found += [
                Candidate(f"{spec.name} {precision.value}", spec.name, precision, spec.scale, digest)
                for precision, digest in own.items()
            ]
    chosen = defaults_for(Mode.FAST).values()
    for spec in chosen if options.looks else ():
        for look, share in LOOKS.items():
            at = at_look(spec, share)
            for precision, files in ((fp32, at.files), (Precision.INT8, at.quantised)):
                digest = "".join(f.sha256 for f in files)
                name = f"{spec.name} {look} {precision.value}"
                found.append(Candidate(name, spec.name, precision, spec.scale, digest, settings={"look": look}))
        digest = "".join(f.sha256 for f in spec.quantised)
        name = f"{spec.name} strength {HALF} int8"
        found.append(Candidate(name, spec.name, Precision.INT8, spec.scale, digest, settings={"strength": str(HALF)}))
    digest = "".join(file.sha256 for spec in chosen for file in spec.quantised)
    for settings in ({}, *options.settings):
        name = ", ".join(["automatic choice", *(f"{option} {value}" for option, value in settings.items())])
        found.append(Candidate(name, None, auto, digest=digest, settings=settings))
    for name, path in options.students:
        spec = describe(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(Candidate(name, str(path), fp32, spec.scale, digest))
    words = [word.lower() for word in options.only]
    return [one for one in found if not words or any(word in one.name.lower() for word in words)]


def enlarge(small: Path, output: Path, size: tuple[int, int], candidate: Candidate) -> float:
    """Make a small clip large by a whole job; its seconds.

    Args:
        small: a video at `footage.RATE`.
        output: the video to write.
        size: width and height of the result.
        candidate: what makes it.
    """
    from bench.loops import pipeline
    from keyscale.engine.job import Job, Verify
    from keyscale.engine.options import build, options_of

    options = options_of(Job)
    values = {
        "video": str(small),
        "output": str(output),
        "size": size,
        "fps": None,
        "crf": CRF,
        "model": candidate.model,
        "offline": True,
        "device": "cpu",
        "precision": candidate.precision,
        "overwrite": True,
        "resume": False,
        "verify": Verify.QUICK,
    } | {name: options[name].read(value) for name, value in candidate.settings.items()}
    seconds, _ = pipeline(build(Job, values))
    return seconds
