"""The networks keyscale knows: names, shapes, cost, context, licence and weights files.

Pure data without torch: the planner imports it and must answer in milliseconds.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from keyscale.engine.errors import ModelError
from keyscale.engine.forms import LOOKS
from keyscale.engine.job import Mode
from keyscale.engine.models.foreign_findings import Findings
from keyscale.engine.models.shipped import DataFile, Student, read_manifest

__all__ = [
    "DEEP_HALO",
    "Architecture",
    "Family",
    "LookFiles",
    "ModelSpec",
    "WeightsFile",
    "all_models",
    "context",
    "defaults_for",
    "family",
    "find",
    "macs_per_pixel",
    "receptive_field",
]

Architecture = Literal["srvgg", "rrdb", "plain", "foreign"]
Family = Literal["student", "general", "animevideo", "x4plus", "anime6b", "custom"]

RELEASES = "https://github.com/xinntao/Real-ESRGAN/releases/download"
LICENCE = "BSD-3-Clause"
"""Licence of Real-ESRGAN's code and of all its published weights."""
OWN_LICENCE = "MIT"
"""Licence of the weights in the package."""

DEEP_HALO = 80
"""Context of networks whose receptive field is too wide to compute: an approximation, in cells of the network's grid.

A 23-block RRDBNet sees about 349 cells each way; windows widened by that much would cost many times the picture itself.
What lies farther than 80 cells moves the result little: of x4plus by up to 0.24 codes of 8 bits, where 64 cells left
1.4 and 48 left 4.5 (fp32, the middle of two photographed frames of 336x336 pixels against the whole). A cell is a pixel
at x4, 2x2 at x2, 4x4 at x1.
"""

EXACT_HALO_LIMIT = 94
"""Receptive field of the 6-block RRDBNet in cells; up to here the context is exact, beyond it is `DEEP_HALO`."""


@dataclass(frozen=True)
class WeightsFile:
    """One file that holds a model's weights."""

    filename: str
    sha256: str
    """Lower-case hexadecimal digest of the whole file."""
    size: int
    """Bytes."""
    url: str | None
    """Where the file is published; None where it is only ever found on disk or in the package."""


@dataclass(frozen=True)
class LookFiles:
    """A network's weights at one place between its natural and its crisp end."""

    share: float
    """Of the crisp end."""
    weights: WeightsFile
    quantised: tuple[WeightsFile, ...]
    """As of `ModelSpec`."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a network is, as far as planning needs to know."""

    name: str
    family: Family
    architecture: Architecture
    scale: int
    """Output pixels per input pixel along each side."""
    features: int
    """Channels of the trunk."""
    blocks: int
    """SRVGG and plain: 3x3 convolutions between the first and the last one. RRDB: residual-in-residual blocks."""
    growth: int = 32
    """RRDB: channels that each dense layer adds. Unused by the others."""
    fold: int = 1
    """Plain: side of the cells of input pixels that become channels before the first convolution (1: none)."""
    licence: str = LICENCE
    files: tuple[WeightsFile, ...] = ()
    """Accepted weights, the preferred first; empty for a user's own checkpoint. Both of a mixture."""
    blend: float = 0.0
    """Share of the second one of `files` where both are mixed, else 0."""
    quantised: tuple[WeightsFile, ...] = ()
    """The same network in int8 as OpenVINO's `.xml` and `.bin`; empty where there is none."""
    findings: Findings | None = None
    """Of a foreign network, whose features and blocks are 0."""
    look: float | None = None
    """Share of the crisp end in these weights; None for a network without two ends."""
    looks: tuple[LookFiles, ...] = ()
    """All that there is of a network with two ends, the natural one first."""

    @property
    def all_files(self) -> tuple[WeightsFile, ...]:
        """All that there is of it, at every look; the preferred one first."""
        looks = (file for look in self.looks for file in (look.weights, *look.quantised))
        return tuple(dict.fromkeys((*self.files, *self.quantised, *looks)))

    @property
    def shipped(self) -> bool:
        """Whether the weights lie in the package."""
        return self.family == "student"

    @property
    def align(self) -> int:
        """Window origin and size must be multiples of this (input pixels).

        RRDB networks below x4 fold 2x2 (x2) or 4x4 (x1) pixels into channels first, plain ones `fold` x `fold`: a
        window that starts between such cells would be another picture to the network.
        """
        if self.findings:
            return self.findings.align
        return 4 // self.scale if self.architecture == "rrdb" else self.fold

    @property
    def halo(self) -> int:
        """Input pixels of context to add on each side of a window; a multiple of `align`.

        The whole receptive field for SRVGG, plain, and RRDB with up to 6 blocks: the result then does not depend
        on the window. For deeper RRDB networks the approximation `DEEP_HALO`.
        """
        if self.findings:
            return self.findings.halo
        return context(self.architecture, blocks=self.blocks, scale=self.scale, fold=self.fold)

    @property
    def halo_is_exact(self) -> bool:
        """Whether `halo` covers the whole receptive field."""
        if self.findings:
            return not self.findings.beyond
        field = receptive_field(self.architecture, blocks=self.blocks, scale=self.scale, fold=self.fold)
        return self.halo >= field

    @property
    def macs_per_pixel(self) -> int:
        """Multiply-accumulate operations per input pixel, all convolutions counted."""
        if self.findings:
            return self.findings.macs_per_pixel
        return macs_per_pixel(
            self.architecture,
            features=self.features,
            blocks=self.blocks,
            scale=self.scale,
            growth=self.growth,
            fold=self.fold,
        )


def receptive_field(architecture: Architecture, *, blocks: int, scale: int, fold: int = 1) -> int:
    """Input pixels on each side that one output pixel depends on, in whole cells of the network's grid."""
    if architecture != "rrdb":
        return (blocks + 2) * fold
    # First convolution, 3 dense blocks of 5 convolutions a block, the body's last one; then one convolution on
    # the doubled grid and three on the quadrupled one.
    cells = math.ceil(1 + 15 * blocks + 1 + 1 / 2 + 3 / 4)
    return cells * (4 // scale)


def context(architecture: Architecture, *, blocks: int, scale: int, fold: int = 1) -> int:
    """Input pixels of context for a window: the receptive field, or `DEEP_HALO` if that is not practical."""
    field = receptive_field(architecture, blocks=blocks, scale=scale, fold=fold)
    if architecture != "rrdb":
        return field
    cell = 4 // scale
    return field if field <= EXACT_HALO_LIMIT * cell else DEEP_HALO * cell


def macs_per_pixel(
    architecture: Architecture, *, features: int, blocks: int, scale: int, growth: int = 32, fold: int = 1
) -> int:
    """Multiply-accumulate operations per input pixel, from the shapes of the 3x3 convolutions."""
    if architecture != "rrdb":
        return 9 * features * (3 * fold**2 + blocks * features + 3 * (scale * fold) ** 2) // fold**2
    unshuffle = 4 // scale
    dense = sum((features + i * growth) * growth for i in range(4)) + (features + 4 * growth) * features
    low = 3 * unshuffle**2 * features + blocks * 3 * dense + features**2
    # conv_up1 on the 2x grid; conv_up2, conv_hr and conv_last on the 4x grid.
    high = 4 * features**2 + 16 * (2 * features**2 + 3 * features)
    return 9 * (low + high) // unshuffle**2


def _official(filename: str, tag: str, size: int, sha256: str) -> WeightsFile:
    return WeightsFile(filename, sha256, size, f"{RELEASES}/{tag}/{filename}")


def _in_package(file: DataFile) -> WeightsFile:
    return WeightsFile(file.filename, file.sha256, file.size, None)


def _student(student: Student) -> ModelSpec:
    looks = [
        LookFiles(LOOKS[name], _in_package(look.weights), tuple(map(_in_package, look.quantised)))
        for name, look in (("natural", student.natural), ("balanced", student.balanced), ("crisp", student.crisp))
    ]
    return ModelSpec(
        name=student.name,
        family="student",
        architecture="plain",
        scale=student.scale,
        features=student.features,
        blocks=student.blocks,
        fold=student.fold,
        licence=OWN_LICENCE,
        files=(looks[1].weights,),
        quantised=looks[1].quantised,
        look=looks[1].share,
        looks=tuple(looks),
    )


# Sizes and digests of the files attached to the releases, each digest found alike in at least two public
# lists. The `fp16-from-ncnn` files are the same networks at the precision in which the ncnn ports hand them on.
_MODELS = (
    *map(_student, read_manifest().students),
    ModelSpec(
        name="realesr-general-x4v3",
        family="general",
        architecture="srvgg",
        scale=4,
        features=64,
        blocks=32,
        files=(
            _official(
                "realesr-general-x4v3.pth",
                "v0.2.5.0",
                4885111,
                "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
            ),
            WeightsFile(
                "realesr-general-x4v3.fp16-from-ncnn.pth",
                "8aa4062914fa864b768f87b2c59634340eca1d531c6b86ab84209a35015e003f",
                4881527,
                None,
            ),
        ),
    ),
    ModelSpec(
        name="realesr-general-wdn-x4v3",
        family="general",
        architecture="srvgg",
        scale=4,
        features=64,
        blocks=32,
        files=(
            _official(
                "realesr-general-wdn-x4v3.pth",
                "v0.2.5.0",
                4885111,
                "1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
            ),
            WeightsFile(
                "realesr-general-wdn-x4v3.fp16-from-ncnn.pth",
                "97474865348299debe5639e6dd3a598ccbffb2d409d69343872156c3177327da",
                4881527,
                None,
            ),
        ),
    ),
    ModelSpec(
        name="realesr-animevideov3",
        family="animevideo",
        architecture="srvgg",
        scale=4,
        features=64,
        blocks=16,
        files=(
            _official(
                "realesr-animevideov3.pth",
                "v0.2.5.0",
                2504012,
                "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
            ),
        ),
    ),
    ModelSpec(
        name="RealESRGAN_x4plus",
        family="x4plus",
        architecture="rrdb",
        scale=4,
        features=64,
        blocks=23,
        files=(
            _official(
                "RealESRGAN_x4plus.pth",
                "v0.1.0",
                67040989,
                "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
            ),
            WeightsFile(
                "RealESRGAN_x4plus.fp16-from-ncnn.pth",
                "bb73eba5d6ba6362d2a4f758e035ce55e7023d4dbd9163aff15b2b1d8bd88c5d",
                33654439,
                None,
            ),
        ),
    ),
    ModelSpec(
        name="RealESRGAN_x2plus",
        family="x4plus",
        architecture="rrdb",
        scale=2,
        features=64,
        blocks=23,
        files=(
            _official(
                "RealESRGAN_x2plus.pth",
                "v0.2.1",
                67061725,
                "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
            ),
        ),
    ),
    ModelSpec(
        name="RealESRGAN_x4plus_anime_6B",
        family="anime6b",
        architecture="rrdb",
        scale=4,
        features=64,
        blocks=6,
        files=(
            _official(
                "RealESRGAN_x4plus_anime_6B.pth",
                "v0.2.2.4",
                17938799,
                "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
            ),
        ),
    ),
)

_BY_NAME = {spec.name.lower(): spec for spec in _MODELS}

_DEFAULTS: Mapping[Mode, tuple[str, ...]] = {
    Mode.FAST: ("keyscale-compact-x4", "keyscale-compact-x2"),
    Mode.QUALITY: ("RealESRGAN_x4plus", "RealESRGAN_x2plus"),
}


def all_models() -> tuple[ModelSpec, ...]:
    """Every known model, in the order in which they are listed to people."""
    return _MODELS


def find(name: str) -> ModelSpec:
    """The model of that name, upper and lower case alike.

    Raises:
        ModelError: no such model; the remedy names the closest ones.
    """
    spec = _BY_NAME.get(name.lower())
    if spec is not None:
        return spec
    close = difflib.get_close_matches(name.lower(), _BY_NAME, n=3, cutoff=0.5)
    names = ", ".join(_BY_NAME[key].name for key in close or _BY_NAME)
    raise ModelError(
        f"there is no model named {name!r}",
        remedy=f"{'Did you mean' if close else 'Known models'}: {names}"
        f"{'?' if close else '.'} For a checkpoint of your own give its path.",
    )


def defaults_for(mode: Mode) -> dict[int, ModelSpec]:
    """The models of a mode by scale, from which the plan takes the one that suffices for the target size."""
    return {spec.scale: spec for spec in map(find, _DEFAULTS[mode])}


def family(name_or_mode: str | Mode) -> dict[int, ModelSpec]:
    """The models by scale between which the plan may choose.

    A mode gives `defaults_for` it. A model's name gives that model alone: who names a network gets it.

    Raises:
        ModelError: neither a mode nor a known model.
    """
    if name_or_mode in _DEFAULTS:
        return defaults_for(Mode(name_or_mode))
    spec = find(name_or_mode)
    return {spec.scale: spec}
