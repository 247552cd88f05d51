"""Checkpoints that carry code, that unpack to more than there is, or that declare networks beyond all bounds."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAYLOAD", "HostileModel", "hostile_models"]

PAYLOAD = "payload"
"""The file that a payload makes if it is run."""

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class HostileModel:
    """A checkpoint; all are to be refused."""

    name: str
    suffix: str
    write: Callable[[Path], None]
    says: str = "model"


class _Runs:
    """What a pickle restores by calling something."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self._what = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._what


def _touch() -> Iterator[tuple[str, object]]:
    yield "os.system", _Runs(os.system, f"touch {PAYLOAD}")
    yield "exec", _Runs(exec, f"open({PAYLOAD!r}, 'w')")
    yield "eval", _Runs(eval, f"open({PAYLOAD!r}, 'w')")
    yield "open", _Runs(open, PAYLOAD, "w")
    yield "a call within a tensor's name", {_Runs(os.system, f"touch {PAYLOAD}"): 0}


def _plain(content: bytes) -> Callable[[Path], None]:
    """A file of these bytes."""

    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def _zipped(pickled: bytes, records: dict[str, bytes] | None = None) -> Callable[[Path], None]:
    """A checkpoint as torch writes it, around a pickle of one's own."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/byteorder", "little")
            archive.writestr("archive/version", "3\n")
            for name, content in (records or {}).items():
                archive.writestr(f"archive/data/{name}", content)

    return write


def _bomb(path: Path) -> None:
    """2 GiB of zeros, deflated to 2 MiB or so, under a tensor that is as large."""
    _zip_of_zeros(path, 2 * GIB, GIB // 2)


def _pickle_bomb(path: Path) -> None:
    """The pickle itself unpacks to 1 GiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as record:
            for _ in range(GIB >> 24):
                record.write(b"N0" * (1 << 23))
        archive.writestr("archive/version", "3\n")


def _zip_of_zeros(path: Path, size: int, numbers: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", _tensor_pickle((numbers // 27, 3, 3, 3), (27, 9, 3, 1), numbers))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        with archive.open("archive/data/0", "w", force_zip64=True) as record:
            for _ in range(size >> 24):
                record.write(bytes(1 << 24))


def _legacy(path: Path) -> None:
    """The format from before the zip: the pickle, and then storages, here one that is declared and not there."""
    numbers = 2**33
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    parts += [_tensor_pickle((numbers // 27, 3, 3, 3), (27, 9, 3, 1), numbers, view=(None,)), pickle.dumps(["0"], 2)]
    path.write_bytes(b"".join(parts) + struct.pack("<q", numbers) + bytes(1000))


def _tensor_pickle(
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    numbers: int,
    keys: tuple[str, ...] = ("body.0.weight",),
    view: tuple[None, ...] = (),
) -> bytes:
    """A state dict of one tensor by several names, as torch pickles it: storage `0` of so many float32."""
    import torch  # noqa: PLC0415 - it takes seconds, and no other section needs it

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", numbers, *view) if isinstance(thing, Storage) else None

    made = io.BytesIO()
    rebuild = torch._utils._rebuild_tensor_v2
    tensor = _Runs(rebuild, Storage(), 0, shape, stride, False, {})
    Pickler(made, 2).dump(dict.fromkeys(keys, tensor))
    return made.getvalue()


def _safetensors(head: bytes, length: int | None = None, body: bytes = b"") -> Callable[[Path], None]:
    content = struct.pack("<Q", len(head) if length is None else length) + head + body
    return _plain(content)


def _declared(shape: list[int], end: int) -> bytes:
    return json.dumps({"body.0.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()


def hostile_models() -> Iterator[HostileModel]:
    """All of them; torch is needed to make some."""
    for name, thing in _touch():
        yield HostileModel(
            name=f"{name} under params_ema", suffix=".pt", write=_zipped(pickle.dumps({"params_ema": thing}, 2))
        )
    for protocol in (0, 2, 4, 5):
        pickled = pickle.dumps(_Runs(os.system, f"touch {PAYLOAD}"), protocol)
        yield HostileModel(
            name=f"os.system in a bare pickle (protocol {protocol})",
            suffix=".pth",
            write=_plain(pickled),
        )
    yield HostileModel(
        name="os.system in a pickle called safetensors",
        suffix=".safetensors",
        write=_plain(pickle.dumps(_Runs(os.system, f"touch {PAYLOAD}"), 2)),
    )
    yield HostileModel(name="a tensor that unpacks to 2 GiB", suffix=".pth", write=_bomb)
    yield HostileModel(name="a pickle that unpacks to 1 GiB", suffix=".pth", write=_pickle_bomb)
    one = {"0": bytes(4)}
    for name, features in (("2^40 numbers", 2**38), ("a network of 2^20 features", 2**20)):
        three = ("body.0.weight", "body.1.weight", "body.2.weight")
        yield HostileModel(
            name=f"{name} that are one number", suffix=".pth",
            write=_zipped(_tensor_pickle((features, 3, 3, 3), (0, 0, 0, 0), 1, three), one),
        )  # fmt: skip
    numbered: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("layers", ("body.0.weight", "body.1.weight", "body.200000000.weight")),
        ("dense blocks", ("conv_first.weight", "body.0.rdb1.conv1.weight", "body.200000000.weight")),
        ("plain layers", ("convs.0.weight", "convs.200000000.weight")),
        ("plain layers, and more", ("convs.0.weight", f"convs.{'9' * 5000}.weight")),
    )  # fmt: skip
    for name, keys in numbered:
        yield HostileModel(
            name=f"a network of 200 million {name}", suffix=".pth",
            write=_zipped(_tensor_pickle((12, 3, 3, 3), (27, 9, 3, 1), 324, keys), {"0": bytes(4 * 324)}),
        )  # fmt: skip
    yield HostileModel(name="a storage of 32 GiB in the old format", suffix=".pth", write=_legacy)
    yield HostileModel(
        name="a tensor beyond its storage", suffix=".pth",
        write=_zipped(_tensor_pickle((64, 3, 3, 3), (27, 9, 3, 1), 1), one),
    )  # fmt: skip
    yield HostileModel(
        name="a storage beyond the file", suffix=".pth",
        write=_zipped(_tensor_pickle((64, 3, 3, 3), (27, 9, 3, 1), 2**40), one),
    )  # fmt: skip
    for length in (0, 7, 100_000_001, 2**31, 2**63, 2**64 - 1):
        yield HostileModel(
            name=f"safetensors with a head of {length} bytes",
            suffix=".safetensors",
            write=_safetensors(b"{}", length, bytes(100)),
        )
    for name, head in (
        ("a tensor beyond the file", _declared([2**30, 3, 3, 3], 108 * 2**30)),
        ("a shape that overflows", _declared([2**62, 2**62], 16)),
        ("offsets that run backwards", b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}'),
        ("a head that is no JSON", b"{" * 1000),
        ("a head 10 000 deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    ):
        yield HostileModel(
            name=f"safetensors with {name}", suffix=".safetensors", write=_safetensors(head, None, bytes(16))
        )
