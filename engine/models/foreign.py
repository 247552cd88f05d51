"""Networks of which nothing is known but their ONNX file: read, tried, and described by what the trial shows.

OpenVINO reads the file and runs the trial on the CPU in fp32. What it shows is kept in the cache directory by the
content of the file, since the trial of a large network takes as long as a frame.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keyscale.engine.errors import KeyscaleError, ModelError, StorageError
from keyscale.engine.files import cache_folder, write_private
from keyscale.engine.models import golden
from keyscale.engine.models.foreign_findings import Findings
from keyscale.engine.models.openvino import compiled, is_out_of_memory, last_line, load_openvino
from keyscale.engine.models.openvino_model import infer
from keyscale.engine.models.registry import DEEP_HALO, ModelSpec
from keyscale.engine.serialization import dumps, loads

__all__ = ["NOTICEABLE", "SUFFIX", "Foreign", "beside", "describe", "read", "sha256_of"]

SUFFIX = ".onnx"

FORM = 1
"""Of what is kept of a trial; raised when the trial changes."""

LARGEST_SCALE = 8

TRIALS = ((64, 12), (192, DEEP_HALO))
"""Sides of the pictures that a network of any size is tried with, and the widest context that each can tell."""

ALIGNS = (1, 2, 4, 8, 16, 32)
"""Sides of the cells that a network may fold pixels into, or whose windows it attends to."""

SMALLEST = 32
"""Pixels a side of a network that takes one size alone."""

FAINT = 0.25 / 255
"""What lies beyond the context of a network of wide reach may change a result by that."""

NOTICEABLE = 1.0
"""Codes of 255 from which a change shows."""

SHIFTED = 1e-4
"""By how much the result for a pixel may change with the place of its picture: a fortieth of a code, of rounding."""

UNLIKE = 0.25
"""Root mean square of the difference from the picture that was enlarged, once reduced again, of what is none of it."""

MOST_BYTES = 512 * 2**20
"""Of activations of a network that takes one size alone; those of others are cut to `CPU_BUDGET`."""

_LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x1f])")
"""A tensor's entry for the file beside the model that it lies in (`StringStringEntryProto`), up to the name."""

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]


@dataclass(frozen=True)
class Foreign:
    """An ONNX file that was read."""

    path: Path
    sha256: str
    """Of the file; with files beside it, of all their digests."""
    graph: Any
    """An `openvino.Model` from float32 `(1, H, W, 3)` to the same."""
    size: Size | None
    """Width and height of the only picture that it takes; None takes any."""


def beside(path: Path, data: bytes) -> list[Path]:
    """The files beside a model that hold tensors of it.

    Raises:
        ModelError: it names one that lies elsewhere, or is not there.
    """
    names = set()
    for match in _LOCATION.finditer(data):
        length = match[1][0] & 127 | (match[1][1] << 7 if len(match[1]) > 1 else 0)
        names.add(data[match.end() : match.end() + length].decode(errors="replace"))
    found = [path.parent / name for name in sorted(names)]
    for name, file in zip(sorted(names), found, strict=True):
        if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
            raise ModelError(f"{path} has tensors in {name!r}, which does not lie beside it", remedy="Save it anew.")
        if not file.is_file():
            raise ModelError(f"{path} has tensors in {file}, which is not there", remedy="Put both into one folder.")
    return found


def sha256_of(path: Path) -> str:
    """Digest of the file and of those beside it that belong to it.

    Raises:
        ModelError: as `beside`.
        OSError: one cannot be read.
    """
    data = path.read_bytes()
    return _digest(data, beside(path, data))


def _digest(data: bytes, others: list[Path]) -> str:
    digests = [hashlib.sha256(data).hexdigest()]
    for each in others:
        with each.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("+".join(digests).encode()).hexdigest()


def read(path: Path) -> Foreign:
    """An ONNX file as a graph between pictures.

    Raises:
        ModelError: it cannot be read, has operators that OpenVINO lacks, or is no network from one picture to one.
    """
    openvino = load_openvino()
    try:
        data = path.read_bytes()
        others = beside(path, data)
        digest = _digest(data, others)
        # From memory it has no folder in which to look for files that were not found here.
        model = openvino.Core().read_model(**({"model": str(path)} if others else {"model": data}))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except RuntimeError as error:
        lacks = re.search(r"No conversion rule found for operations: (.*)", str(error))
        if lacks:
            raise ModelError(
                f"{path} has operators that OpenVINO {openvino.__version__} lacks: {lacks[1]}",
                remedy="Export it with standard operators, or install a newer openvino.",
            ) from error
        raise ModelError(
            f"{path} cannot be read as an ONNX model: {last_line(error)}",
            remedy="The file may be cut short or of another kind; fetch it again.",
        ) from error
    takes, gives = model.inputs, model.outputs
    if len(takes) != 1 or len(gives) != 1:
        raise _unfit(path, f"{len(takes)} inputs and {len(gives)} outputs")
    for end, word in ((takes[0], "takes"), (gives[0], "gives")):
        if end.get_element_type().to_string() not in {"f32", "f16"}:
            raise _unfit(path, f"it {word} {end.get_element_type().to_string()}")
        shape = end.get_partial_shape()
        if shape.rank.is_dynamic or len(shape) != 4:
            raise _unfit(path, f"it {word} tensors of the shape {shape}")
        if any(side.is_static and side.get_length() != n for side, n in zip(list(shape)[:2], (1, 3), strict=True)):
            raise _unfit(path, f"it {word} tensors of the shape {shape}")
    height, width = (None if side.is_dynamic else side.get_length() for side in list(takes[0].get_partial_shape())[2:])
    size = (width or height or 0, height or width or 0) if width or height else None
    if size and min(size) < SMALLEST:
        shape = takes[0].get_partial_shape()
        raise _unfit(path, f"it takes tensors of the shape {shape} alone; {SMALLEST} pixels a side are the least")
    try:
        model.reshape([1, 3, *(reversed(size) if size else (-1, -1))])
        around = openvino.preprocess.PrePostProcessor(model)
        for end in (around.input(), around.output()):
            end.tensor().set_element_type(openvino.Type.f32).set_layout(openvino.Layout("NHWC"))
            end.model().set_layout(openvino.Layout("NCHW"))
        return Foreign(path, digest, around.build(), size)
    except RuntimeError as error:
        raise _unfit(path, f"it does not take one picture of any batch: {last_line(error)}") from error


def _unfit(path: Path, found: str) -> ModelError:
    return ModelError(
        f"{path} does not enlarge pictures as keyscale needs it: {found}",
        remedy="Export it with one input and one output, float32 or float16, of the shape (1, 3, height, width), RGB "
        "from 0 to 1, height and width free.",
    )


def describe(file: Foreign) -> ModelSpec:
    """What a trial shows of a network: kept from an earlier one, or made now.

    Raises:
        ModelError: it does not run, or what it gives is no enlarged picture, not finite, or not the same twice.
    """
    kept = cache_folder() / "networks" / f"{file.sha256}-{FORM}.json"
    try:
        return replace(loads(kept.read_bytes(), ModelSpec), name=file.path.stem)
    except (OSError, KeyscaleError):
        found = _tried(file)
    with contextlib.suppress(StorageError):  # the next job tries again
        write_private(kept, dumps(found))
    return found


def _tried(file: Foreign) -> ModelSpec:
    """Scale, context, alignment and cost."""
    request = compiled(load_openvino().Core(), file.graph, "f32", "cpu").create_infer_request()

    def run(picture: Floats) -> Floats:
        try:
            infer(request, np.ascontiguousarray(picture[None]), lambda: False)  # between whose questions Ctrl-C comes
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            height, width = picture.shape[:2]
            raise _unfit(file.path, f"it does not run on {width}x{height} pixels: {last_line(error)}") from error
        result: Floats = request.get_output_tensor(0).data[0].copy()
        return result

    macs, live = _cost(file)
    width, height = file.size or (TRIALS[0][0],) * 2
    if file.size and live * width * height > MOST_BYTES:
        raise _unfit(
            file.path,
            f"pictures of {width}x{height}, the only ones it takes, need {live * width * height >> 20} MiB of memory, "
            f"and {MOST_BYTES >> 20} are the most",
        )
    trials = TRIALS if file.size is None else ((0, (min(file.size) - SMALLEST // 2) // 2),)
    for side, widest in trials:
        width, height = file.size or (side, side)
        across, down = -(-(width + 64) // golden.WIDTH), -(-(height + 64) // golden.HEIGHT)
        larger: Floats = np.tile(golden.tile().astype(np.float32) / np.float32(65535), (down, across, 1))
        picture = larger[:height, :width]
        made = run(picture)
        scale = _scale(file.path, made, picture)
        if side == trials[0][0] and not np.array_equal(made, run(picture)):
            raise _unfit(file.path, "it does not give the same result for the same picture")
        worst = _reach(run, made, picture, scale)
        halo = next((far for far, off in enumerate(worst) if not off), len(worst))
        if halo <= widest:
            break
    else:
        halo = next((far for far, off in enumerate(worst) if off <= FAINT), len(worst))
    halo = min(halo, widest, len(worst) - 1)
    beyond = float(worst[halo]) * 255
    if file.size and beyond > NOTICEABLE:
        raise _unfit(
            file.path,
            f"it takes pictures of {width}x{height} alone, and what lies {halo} pixels away changes them by "
            f"{beyond:.1f} codes of 255: tiles would show",
        )
    align = _align(file, run, made, larger, scale, halo, max(SHIFTED, beyond / 255))
    halo = -(-halo // align) * align
    if file.size:
        inner = [side - 2 * halo for side in file.size]
        if min(inner) < align or any(side % align for side in file.size):
            raise _unfit(file.path, f"of {width}x{height} pixels {halo} on each side are context")
        macs, live = (value * width * height // math.prod(inner) for value in (macs, live))
    return ModelSpec(
        name=file.path.stem,
        family="custom",
        architecture="foreign",
        scale=scale,
        features=0,
        blocks=0,
        licence="unknown",
        findings=Findings(
            halo=halo,
            beyond=max(0.1, round(beyond, 1)) if beyond else 0.0,
            align=align,
            macs_per_pixel=max(1, macs),
            bytes_per_pixel=max(1, live),
            size=file.size,
        ),
    )


def _scale(path: Path, made: Floats, picture: Floats) -> int:
    """How many pixels a network makes of one along each side, of a result that shows the picture."""
    (height, width), (down, across) = picture.shape[:2], made.shape[:2]
    scale = int(down // height)
    if made.shape != (scale * height, scale * width, 3) or not 1 <= scale <= LARGEST_SCALE:
        found = f"of {width}x{height} pixels it makes {across}x{down} of {made.shape[2]} channels"
        raise _unfit(path, f"{found}; the same whole factor from 1 to {LARGEST_SCALE} is needed for both sides")
    if not np.isfinite(made).all():
        raise _unfit(path, "its result is not finite")
    off = made.reshape(height, scale, width, scale, 3).mean((1, 3)) - picture
    if float(np.sqrt((off**2).mean())) > UNLIKE:
        raise _unfit(path, "its result does not show the picture that it was given, RGB from 0 to 1")
    return scale


def _reach(run: Callable[[Floats], Floats], made: Floats, picture: Floats, scale: int) -> Floats:
    """By how much a result changes with pixels beyond each distance.

    All pixels above or left of the middle are replaced, then all below or right of it.

    Returns:
        By distance in pixels, from 0: the largest change that pixels beyond it make; values are in 0 to 1.
    """
    height, width = picture.shape[:2]
    # Where cells of pixels begin, too.
    y, x = (side // 2 // 32 * 32 or side // 2 // 16 * 16 for side in (height, width))
    other = 1 - picture[::-1, ::-1]
    worst = np.zeros(min(y, x, height - y, width - x), np.float32)
    for kept in (np.s_[y:, x:], np.s_[:y, :x]):
        changed = other.copy()
        changed[kept] = picture[kept]
        ends = tuple(slice(s.start and s.start * scale, s.stop and s.stop * scale) for s in kept)
        off = np.abs(run(changed)[ends] - made[ends]).max(-1)
        if kept[0].start is None:
            off = off[::-1, ::-1]
        for far in range(len(worst)):
            worst[far] = max(worst[far], off[far * scale :, far * scale :].max(initial=0))
    return worst


def _align(
    file: Foreign, run: Callable[[Floats], Floats], made: Floats, larger: Floats, scale: int, halo: int, least: float
) -> int:
    """Of which number of pixels a picture's place and size have to be multiples, for the same result."""
    height, width = (side // scale for side in made.shape[:2])
    for align in ALIGNS:
        less = 0 if file.size else align
        try:
            shifted = run(larger[align : height + align - less, align : width + align - less])
        except ModelError:
            continue  # it takes multiples of more
        there = np.s_[(align + halo) * scale : (height - halo) * scale, (align + halo) * scale : (width - halo) * scale]
        here = tuple(slice(s.start - align * scale, s.stop - align * scale) for s in there)
        if not made[there].size:
            break
        if np.abs(made[there] - shifted[here]).max() <= least:
            return align
    raise _unfit(file.path, "the result for a pixel depends on where its picture begins, or on how large that is")


def _cost(file: Foreign) -> tuple[int, int]:
    """Multiply-accumulates, and bytes of the tensors in fp32 that are needed at a time, per input pixel."""
    graph, (width, height) = file.graph.clone(), file.size or (TRIALS[0][0],) * 2
    macs = live = peak = 0
    ends: dict[int, int] = {}
    try:
        graph.reshape([1, height, width, 3])
        ops = [op for op in graph.get_ordered_ops() if op.get_type_name() not in {"Constant", "Result"}]
        inputs = [[end.get_source_output() for end in op.inputs()] for op in ops]
        last = {source.get_node().get_friendly_name(): n for n, each in enumerate(inputs) for source in each}
        for number, (op, sources) in enumerate(zip(ops, inputs, strict=True)):
            kind, elements = op.get_type_name(), sum(math.prod(end.get_shape()) for end in op.outputs())
            if "Convolution" in kind:
                # Weights: of groups first, then as many channels as the other end has.
                each = math.prod(list(sources[1].get_shape())[2 if kind.startswith("Group") else 1 :])
                macs += each * (math.prod(sources[0].get_shape()) if kind.endswith("BackpropData") else elements)
            elif kind == "MatMul":
                macs += elements * list(sources[0].get_shape())[-2 if op.get_attributes()["transpose_a"] else -1]
            live += 4 * elements
            peak = max(peak, live)
            until = last.get(op.get_friendly_name(), number)
            ends[until] = ends.get(until, 0) + 4 * elements
            live -= ends.pop(number, 0)
    except RuntimeError as error:
        raise _unfit(file.path, f"it does not run on {width}x{height} pixels: {last_line(error)}") from error
    return macs // (width * height), peak // (width * height)
