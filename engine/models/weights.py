"""Weights on disk: where they are looked for, that they are the right ones, and how they are read.

A shipped network's lie in the package. Others are looked for in `KEYSCALE_WEIGHTS_DIR`, then in the cache directory;
absent there, they are downloaded into the cache (`download.py`). A registry model's file is hashed before every use:
67 MB take some hundredths of a second.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyscale.engine.errors import ModelError
from keyscale.engine.files import cache_folder
from keyscale.engine.models import shipped
from keyscale.engine.models.download import download, sha256_of
from keyscale.engine.models.registry import ModelSpec, WeightsFile
from keyscale.engine.wording import say

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

__all__ = [
    "blend_sha256",
    "blended",
    "cache_dir",
    "check",
    "ensure",
    "known_files",
    "load_state_dict",
    "locate",
    "search_dirs",
    "sha256_of",
]

WEIGHTS_DIR_VARIABLE = "KEYSCALE_WEIGHTS_DIR"
"""Environment: a directory of weights files, looked at first and never written to."""

MOST_UNPACKED = 4
"""How many times a checkpoint's size it may unpack to: torch packs nothing, and weights hardly shrink."""

WRAPPERS = ("params_ema", "params", "state_dict")
"""Keys under which training code stores the tensors; the averaged ones (ema) are those meant for use."""


def cache_dir() -> Path:
    """Where downloaded weights are kept; need not exist yet."""
    return cache_folder() / "weights"


def search_dirs() -> tuple[Path, ...]:
    """The directories in which weights are looked for, in this order.

    Raises:
        ModelError: `KEYSCALE_WEIGHTS_DIR` is set to something that is no directory.
    """
    chosen = os.environ.get(WEIGHTS_DIR_VARIABLE)
    if not chosen:
        return (cache_dir(),)
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise ModelError(
            f"{WEIGHTS_DIR_VARIABLE} is {chosen}, which is not a directory",
            remedy=f"Create it, or unset {WEIGHTS_DIR_VARIABLE}.",
        )
    return (folder, cache_dir())


def _in_package(file: WeightsFile) -> Path:
    return Path(str(shipped.data_file(file.filename)))


def known_files(spec: ModelSpec) -> list[tuple[Path, WeightsFile]]:
    """Every file on this machine that bears the name of one of the model's weights files; not hashed.

    A shipped model's are those of the package, and no others.
    """
    if spec.shipped:
        return [(_in_package(file), file) for file in spec.all_files]
    return [
        (path, file) for folder in search_dirs() for file in spec.files if (path := folder / file.filename).is_file()
    ]


def locate(spec: ModelSpec) -> Path | None:
    """Where the model's weights lie, without hashing them; None where they would have to be downloaded."""
    found = known_files(spec)
    return found[0][0] if found else None


def blended(first: Mapping[str, Any], second: Mapping[str, Any], share: float) -> dict[str, npt.NDArray[np.float32]]:
    """The weights between two networks of one shape (network interpolation, arXiv 1811.10515).

    Args:
        first, second: their float arrays, or tensors on the CPU, by key.
        share: of the second one, 0 to 1.
    """
    import numpy as np

    low, high = np.float32(1 - share), np.float32(share)
    return {
        key: low * np.asarray(value, np.float32) + high * np.asarray(second[key], np.float32)
        for key, value in first.items()
    }


def blend_sha256(first: str, second: str, share: float) -> str:
    """One digest for a mixture of two networks: of both digests and of the first one's share (0 to 1)."""
    return hashlib.sha256(f"{first}*{share!r}+{second}".encode()).hexdigest()


def check(path: Path, file: WeightsFile) -> None:
    """Make sure that a file is the one its name promises.

    Raises:
        ModelError: its SHA-256 is another one.
    """
    if path == _in_package(file):
        shipped.read(file.filename, file.sha256)
        return
    found = sha256_of(path)
    if found != file.sha256:
        raise ModelError(
            f"{path} is not the published {file.filename}: its SHA-256 is {found}, not {file.sha256}",
            remedy="Delete or replace it. To use a network of your own, give its path under another name.",
        )


def ensure(
    spec: ModelSpec,
    *,
    offline: bool,
    on_progress: Callable[[int, int | None], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Path:
    """The model's weights on disk, verified; downloaded first where they are absent.

    Args:
        spec: a model of the registry.
        offline: never open a connection.
        on_progress: called with bytes so far and bytes in all (None if unknown) during a download.
        on_note: called with a sentence for people: what is downloaded from where, a retry, a wait.

    Raises:
        ModelError: a file of that name has another checksum, or the weights are absent and not to be had.
    """
    found = known_files(spec)
    if found:
        check(*found[0])
        return found[0][0]
    names = " or ".join(file.filename for file in spec.files)
    published = next((file for file in spec.files if file.url), None)
    if offline or published is None:
        places = " and ".join(str(folder) for folder in search_dirs())
        raise ModelError(
            f"the weights of {spec.name} are not on this machine ({names} in {places}), and "
            + ("downloading is switched off" if offline else "they are not published for download"),
            remedy=say(
                "Run `keyscale models fetch {}` while online, or put the file into a folder and name that in {}, or "
                "use {mode=fast}, which needs no download.",
                spec.name,
                WEIGHTS_DIR_VARIABLE,
            ),
        )
    return download(published, cache_dir(), on_progress=on_progress, on_note=on_note)


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by key, on the CPU, unwrapped from `params_ema`, `params` or `state_dict`.

    Nothing in the file is executed: pickles are read by torch's restricted reader, which knows tensors and
    plain containers alone.

    Raises:
        ModelError: absent, unreadable, not a checkpoint, or one that would have to run code to be read.
    """
    if not path.is_file():
        raise ModelError(f"there is no checkpoint at {path}", remedy="Check the path.")
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_pickle(path)
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    import torch

    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path} holds no named tensors but {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ModelError(f"{path} holds {type(value).__name__} under {repr(key)[:80]} where a tensor was expected")
        if value.layout is not torch.strided or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            # One number shown as many: what would be made of it is larger than all memory.
            raise ModelError(f"{path} declares a tensor under {key[:80]!r} that is larger than what the file holds")
    return dict(content)


def _read_pickle(path: Path) -> object:
    import pickle
    import warnings

    import torch

    _refuse_bomb(path)

    try:
        # What torch warns of is either refused below or of no concern to the user who gave the file.
        with warnings.catch_warnings(action="ignore"):
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is not a plain checkpoint: it is damaged, or holds objects that only code could restore",
            remedy="Save the state dict alone, torch.save(model.state_dict(), path); keyscale runs no code "
            "out of a checkpoint.",
        ) from error
    except Exception as error:  # damaged bytes reach any part of the reader, and each part has its own exceptions
        raise ModelError(
            f"{path} cannot be read as a checkpoint: {type(error).__name__}: {str(error)[:200]}",
            remedy="The file may be cut short or of another kind; fetch it again.",
        ) from error
    return content


def _refuse_bomb(path: Path) -> None:
    """Raise a `ModelError` for an archive that unpacks to far more than there is; torch would fill memory with it."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # a bare pickle, or damage that torch finds
    if unpacked > MOST_UNPACKED * path.stat().st_size:
        raise ModelError(
            f"{path} is not a plain checkpoint: it unpacks to {unpacked / 2**20:.0f} MiB",
            remedy="Save the state dict alone, torch.save(model.state_dict(), path), and do not compress it.",
        )


def _read_safetensors(path: Path) -> object:
    import safetensors.torch

    try:
        content: object = safetensors.torch.load_file(path, device="cpu")
    except Exception as error:  # as above: the reader has no common exception of its own
        raise ModelError(
            f"{path} cannot be read as safetensors: {str(error)[:200]}", remedy="Fetch it again."
        ) from error
    return content
