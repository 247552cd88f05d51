"""The networks that lie in the package: their manifest, and their files, verified as they are read.

`data/students.json` says what each is and names its files with size and SHA-256; it is written by the recipe that
trains them. Imports neither torch nor OpenVINO: the planner reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from keyscale.engine.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "MANIFEST",
    "DataFile",
    "Look",
    "Manifest",
    "Student",
    "data_file",
    "measured",
    "read",
    "read_manifest",
    "read_state",
    "write",
]

MANIFEST = "students.json"
MANIFEST_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file beside the manifest."""

    filename: str
    size: int
    """Bytes."""
    sha256: str
    """Lower-case hexadecimal digest of the whole file."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A network's weights at one place between its natural and its crisp end."""

    weights: DataFile
    """Safetensors: fp16 tensors under `convs.{i}.weight` and `convs.{i}.bias`."""
    quantised: tuple[DataFile, DataFile]
    """OpenVINO's intermediate representation in int8: the `.xml` and the `.bin`."""


@dataclass(frozen=True, kw_only=True)
class Student:
    """A network: a stack of `blocks + 2` 3x3 convolutions, `features` channels between them.

    `fold` x `fold` pixels become channels before the first one.
    """

    name: str
    features: int
    blocks: int
    scale: int
    fold: int
    natural: Look
    balanced: Look
    crisp: Look


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `students.json` holds."""

    version: int
    students: tuple[Student, ...]


def data_file(filename: str) -> Traversable:
    """A file of the package's data, wherever the package is imported from."""
    return resources.files("keyscale.engine.models") / "data" / filename


def read_manifest() -> Manifest:
    """The shipped networks, in the order in which they are listed to people.

    Raises:
        ModelError: the manifest is absent, damaged or of another version.
    """
    remedy = "Install keyscale again."
    try:
        manifest = msgspec.json.decode(data_file(MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise ModelError(f"{MANIFEST} of the package cannot be read: {error}", remedy=remedy) from error
    if manifest.version != MANIFEST_VERSION:
        raise ModelError(
            f"{MANIFEST} of the package has version {manifest.version}, not {MANIFEST_VERSION}", remedy=remedy
        )
    return manifest


def read(filename: str, sha256: str) -> bytes:
    """A shipped file's content.

    Raises:
        ModelError: it is absent, or its SHA-256 is another one.
    """
    remedy = "Install keyscale again."
    try:
        content = data_file(filename).read_bytes()
    except OSError as error:
        raise ModelError(f"{filename} of the package cannot be read: {error.strerror}", remedy=remedy) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(
            f"{data_file(filename)} is not the shipped file: its SHA-256 is {found}, not {sha256}", remedy=remedy
        )
    return content


def read_state(filename: str, sha256: str) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """The tensors of a shipped safetensors file by key.

    Raises:
        ModelError: it is absent, or its SHA-256 is another one.
    """
    import safetensors.numpy

    return safetensors.numpy.load(read(filename, sha256))


def measured(path: Path) -> DataFile:
    """The manifest's entry of a file that was just written."""
    content = path.read_bytes()
    return DataFile(filename=path.name, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def write(students: Iterable[Student], folder: Path) -> Path:
    """Write the manifest into a folder; its path."""
    manifest = Manifest(version=MANIFEST_VERSION, students=tuple(students))
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    path = folder / MANIFEST
    path.write_bytes(text + b"\n")
    return path
