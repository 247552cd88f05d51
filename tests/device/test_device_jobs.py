"""Whole jobs on a simulated CUDA device, against the same jobs on the CPU: what the encoder is given, code by code.

In fp32 no code is more than one off, in fp16 two, whatever the source, the camera and the network.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.clips import numbered
from support.numbered import SMALL, Result, interrupt, run, small_job, turn, write_video
from support.pictures import picture
from support.simulated_cuda import SimulatedGpu

import keyscale.engine
from keyscale.engine.choices import DynamicRange
from keyscale.engine.job import Calm, Codec, Compute, Encoding, Fit, ModelChoice, Precision
from keyscale.engine.models.torch_networks import RRDBNet, SRVGGNetCompact
from keyscale.engine.pipeline.encoder import ChunkWriter

Codes = list[npt.NDArray[Any]]
"""Of one frame: its planes."""

SHIPPED = Path(keyscale.engine.__file__).parent / "models" / "data"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Codes]:
    """What encoders are given, frame by frame."""
    frames: list[Codes] = []
    mux = ChunkWriter._mux

    def recorded(writer: ChunkWriter, frame: av.VideoFrame | None) -> None:
        if frame is not None:
            dtype = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
            frames.append(
                [np.frombuffer(memoryview(p), dtype).reshape(p.height, -1)[:, : p.width].copy() for p in frame.planes]
            )
            assert (frame.colorspace, frame.color_range) == (writer._colour.matrix, 1 + writer._colour.full_range)
        mux(writer, frame)

    monkeypatch.setattr(ChunkWriter, "_mux", recorded)
    return frames


@pytest.fixture
def network(tmp_path: Path) -> Callable[[str], str]:
    """Checkpoints, which run in torch on every device."""

    def path_of(name: str) -> str:
        path = tmp_path / f"{name}.safetensors"
        if name.startswith("keyscale"):
            shutil.copy(SHIPPED / f"{name}.safetensors", path)
            return str(path)
        made = SRVGGNetCompact(features=8, blocks=4, scale=4) if name == "srvgg" else RRDBNet(
            features=8, blocks=1, scale=2, growth=4
        )  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        state = {
            key: torch.randn(value.shape, generator=generator) * (1.2 / value[0].numel() ** 0.5)
            if value.ndim == 4
            else torch.full(value.shape, 0.25 if key.endswith("weight") else 0.4 if key == "conv_last.bias" else 0.0)
            for key, value in made.state_dict().items()
        }
        path = path.with_suffix(".pth")
        torch.save({"params": state}, path)
        return str(path)

    return path_of


def films(count: int = 3, size: tuple[int, int] = SMALL) -> list[Any]:
    return [picture(*size, seed=number) for number in range(count)]


def camera(folder: Path, *rects: tuple[float, float, float, float, float], **more: Any) -> str:
    names = ("time", "x", "y", "width", "height")
    path = folder / "keyframes.json"
    content = {"version": 1, "keyframes": [dict(zip(names, rect, strict=True)) for rect in rects], **more}
    path.write_text(json.dumps(content))
    return str(path)


def both(
    given: list[Codes], source: Path, network: str, precision: Precision = Precision.FP32, **more: Any
) -> tuple[list[Codes], list[Codes], Result]:
    """What the encoder is given on the CPU and on the device, and the device's job."""
    tile, strength = more.pop("tile", None), more.pop("strength", 1.0)
    encoding = more.pop("encoding", Encoding(preset="ultrafast", crf=20))
    end = "mov" if encoding.codec is Codec.PRORES else "mp4"
    made = []
    for device in ("cpu", "cuda"):
        given.clear()
        job = small_job(
            source,
            source.parent / f"{device}-{Path(network).stem}.{end}",
            overwrite=True,
            model=ModelChoice(name=network, strength=strength),
            compute=Compute(device=device, precision=precision if device == "cuda" else Precision.FP32, tile=tile),
            encoding=encoding,
            **({"size": (96, 72)} | more),
        )
        result = run(job)
        made.append(list(given))
    return made[0], made[1], result


def near(cpu: list[Codes], cuda: list[Codes], most: int = 1, share: float = 0.1) -> None:
    """No code is off by more than `most`, and few by any."""
    assert len(cpu) == len(cuda) > 0
    pairs = [pair for frames in zip(cpu, cuda, strict=True) for pair in zip(*frames, strict=True)]
    off = [np.abs(a.astype(int) - b.astype(int)) for a, b in pairs]
    assert max(int(each.max()) for each in off) <= most, [int(each.max()) for each in off]
    assert sum(int((each > 0).sum()) for each in off) <= share * sum(each.size for each in off)
    assert min(float(frame[0].std()) for frame in cuda) > 8  # pictures


@pytest.mark.parametrize(
    ("pixel_format", "codec", "tags"),
    [
        ("yuv420p", "ffv1", (1, 1, 1, 1)),
        ("yuv422p", "ffv1", (6, 1, 6, 6)),
        ("yuv444p", "ffv1", (5, 2, 5, 6)),
        ("yuvj420p", "mjpeg", (5, 2, 2, 2)),
        ("gray", "ffv1", (1, 1, 1, 1)),
        ("yuv420p10le", "ffv1", (9, 1, 9, 14)),
        ("bgr0", "ffv1", (2, 0, 2, 2)),
        ("yuva420p", "ffv1", (1, 1, 1, 1)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_source(
    tmp_path: Path,
    gpu: SimulatedGpu,
    given: list[Codes],
    network: Callable[[str], str],
    pixel_format: str,
    codec: str,
    tags: tuple[int, int, int, int],
) -> None:
    source = write_video(tmp_path / "in.mkv", films(), codec=codec, pixel_format=pixel_format, tags=tags)
    cpu, cuda, _ = both(given, source, network("keyscale-tiny-x2"))
    near(cpu, cuda)
    assert len(gpu.waits) > 0


@pytest.mark.parametrize("kind", ["hevc 10", "prores", "hlg", "hdr to sdr"])
def test_deep_results(
    tmp_path: Path, gpu: SimulatedGpu, given: list[Codes], network: Callable[[str], str], kind: str
) -> None:
    hdr = kind.startswith("h") and kind != "hevc 10"
    tags = (9, 1, 9, 18) if hdr else (1, 1, 1, 1)
    source = write_video(tmp_path / "in.mkv", films(2), codec="ffv1", pixel_format="yuv422p10le", tags=tags)
    encoding = {
        "hevc 10": Encoding(codec=Codec.HEVC, bit_depth=10, preset="ultrafast"),
        "prores": Encoding(codec=Codec.PRORES),
        "hlg": Encoding(preset="ultrafast"),
        "hdr to sdr": Encoding(preset="ultrafast", dynamic_range=DynamicRange.SDR),
    }[kind]
    cpu, cuda, result = both(given, source, network("keyscale-tiny-x2"), encoding=encoding)
    assert result.plan.encoder.bit_depth == (8 if kind == "hdr to sdr" else 10)
    near(cpu, cuda, share=0.15)


@pytest.mark.parametrize("name", ["keyscale-tiny-x2", "keyscale-tiny-x4", "keyscale-compact-x4", "srvgg", "rrdb"])
@pytest.mark.parametrize("size", ["exact", "other"])
def test_every_network(
    tmp_path: Path, gpu: SimulatedGpu, given: list[Codes], network: Callable[[str], str], name: str, size: str
) -> None:
    """At the network's own scale nothing is resampled."""
    scale = 2 if name.endswith(("x2", "rrdb")) else 4
    target = (SMALL[0] * scale, SMALL[1] * scale) if size == "exact" else (90, 66)
    source = write_video(tmp_path / "in.mkv", films(2), codec="ffv1")
    cpu, cuda, result = both(given, source, network(name), size=target)
    assert result.plan.scale == scale
    near(cpu, cuda)


@pytest.mark.parametrize(
    "end", ["pan", "zoom", "rotation", "contain", "turned", "odd", "interlaced", "tiles", "tiles x4", "repeats"]
)
def test_every_camera(
    tmp_path: Path, gpu: SimulatedGpu, given: list[Codes], network: Callable[[str], str], end: str
) -> None:
    source = tmp_path / "in.mkv"
    more: dict[str, Any] = {}
    pictures = films(3, (63, 47) if end == "odd" else SMALL)
    if end == "repeats":
        pictures = [picture(*SMALL, seed=number // 3) for number in range(6)]
    if end == "turned":
        source = turn(write_video(tmp_path / "in.mp4", pictures), (0, 1, -1, 0))
    elif end == "interlaced":
        source = write_video(tmp_path / "in.mp4", pictures, options={"x264-params": "tff=1"})
    else:
        write_video(source, pictures, codec="ffv1")
    moves = camera(tmp_path, (0, 4.3, 3.1, 40, 30), (0.2, 6.1, 5.9, 40, 30))
    match end:
        case "pan" | "repeats":
            more["keyframes"] = moves
        case "zoom":
            more["keyframes"] = camera(tmp_path, (0, 4.3, 3.1, 40, 30), (0.1, 10.1, 8.9, 20, 15))
        case "rotation":
            more["keyframes"] = camera(tmp_path, (0, 12.3, 10.1, 30, 22), rotation=7.5)
        case "contain":
            more |= {"fit": Fit.CONTAIN, "size": (96, 96)}
        case "tiles" | "tiles x4":
            more["tile"] = 32
    name = "keyscale-tiny-x4" if end == "tiles x4" else "keyscale-tiny-x2"
    cpu, cuda, result = both(given, source, network(name), **more)
    near(cpu, cuda)
    if end == "repeats":
        assert result.done.inferred_frames == 2
        assert gpu.waits.count("event") == 6  # each by a rectangle of its own
    if end == "contain":
        assert {int(value) for value in np.unique(cuda[0][0][:8])} == {16}


@pytest.mark.parametrize("deep", [False, True], ids=["8", "10"])
def test_a_part_of_the_network_s_picture(
    tmp_path: Path, gpu: SimulatedGpu, given: list[Codes], network: Callable[[str], str], deep: bool
) -> None:
    source = write_video(tmp_path / "in.mkv", films(), codec="ffv1")
    more: dict[str, Any] = {"keyframes": camera(tmp_path, (0, 4.3, 3.1, 40, 30), (0.2, 6.1, 5.9, 40, 30))}
    if deep:
        more["encoding"] = Encoding(codec=Codec.HEVC, bit_depth=10, preset="ultrafast")
    cpu, cuda, _ = both(given, source, network("keyscale-tiny-x2"), strength=0.4, **more)
    near(cpu, cuda)
    whole, _, _ = both(given, source, network("keyscale-tiny-x2"), **more)
    assert np.abs(whole[0][0].astype(int) - cpu[0][0]).max() > 4


def test_half_precision(tmp_path: Path, gpu: SimulatedGpu, given: list[Codes], network: Callable[[str], str]) -> None:
    source = write_video(tmp_path / "in.mkv", films(), codec="ffv1")
    for name in ("keyscale-tiny-x2", "keyscale-tiny-x4"):
        cpu, cuda, result = both(given, source, network(name), Precision.FP16)
        assert "torch fp16" in result.notes[0]
        near(cpu, cuda, most=2, share=0.6)


@pytest.mark.parametrize("bits", [8, 10])
def test_noise_averaged_over_neighbours(
    tmp_path: Path, gpu: SimulatedGpu, given: list[Codes], network: Callable[[str], str], bits: Literal[8, 10]
) -> None:
    """The CPU and the device are given the same pictures, and those are calmer than without."""
    chance = np.random.default_rng(3)
    still = picture(*SMALL).astype(float) / 2 + 60
    noisy = [np.clip(still + chance.normal(0, 4, still.shape), 0, 255).astype(np.uint8) for _ in range(8)]
    source = write_video(
        tmp_path / "in.mkv", noisy, codec="ffv1", pixel_format="yuv420p" if bits == 8 else "yuv420p10le"
    )

    def change(frames: list[Codes]) -> float:
        return float(np.mean([np.abs(a[0].astype(int) - b[0]).mean() for a, b in pairwise(frames)]))

    encoding = Encoding(preset="ultrafast", crf=20, codec=Codec.HEVC if bits == 10 else Codec.H264, bit_depth=bits)
    tiny = network("keyscale-tiny-x2")
    cpu, cuda, _ = both(given, source, tiny, encoding=encoding, calm=Calm(steady=1.0))
    near(cpu, cuda)
    without, _, _ = both(given, source, tiny, encoding=encoding)
    assert change(cuda) < 0.4 * change(without)


def test_a_frame_that_stands_is_computed_and_fetched_once(
    tmp_path: Path, gpu: SimulatedGpu, given: list[Codes], network: Callable[[str], str]
) -> None:
    source = write_video(tmp_path / "in.mkv", [numbered(7)] * 10, codec="ffv1")
    cpu, cuda, result = both(given, source, network("keyscale-tiny-x2"), rate=Fraction(50))
    assert (result.done.frames, result.done.inferred_frames) == (20, 1)
    assert gpu.waits.count("event") == 1
    near(cpu, cuda)


def test_a_chunk_does_not_depend_on_what_was_made_before_it(
    tmp_path: Path, gpu: SimulatedGpu, given: list[Codes], network: Callable[[str], str]
) -> None:
    """Stopped after a chunk and gone on with, against made in one go."""
    source = write_video(tmp_path / "in.mkv", films(24), rate=1, codec="ffv1")
    keyframes = camera(tmp_path, (0, 4.3, 3.1, 40, 30), (23, 12.1, 9.9, 30, 22.5))

    def job(name: str) -> Any:
        return small_job(
            source,
            tmp_path / name,
            size=(96, 72),
            keyframes=keyframes,
            model=ModelChoice(name=network("keyscale-tiny-x2")),
            compute=Compute(device="cuda", precision=Precision.FP32),
        )

    whole = run(job("whole.mp4"))
    assert len(whole.plan.chunks) == 3
    at_once = list(given)
    interrupt(job("parts.mp4"), chunks=1)
    given.clear()
    result = run(job("parts.mp4"))
    assert result.done.resumed_frames >= 8
    for one, two in zip(at_once[result.done.resumed_frames :], given, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_pictures_that_are_broken_in_half_precision_are_made_anew(
    tmp_path: Path, gpu: SimulatedGpu, given: list[Codes], network: Callable[[str], str]
) -> None:
    """The flag comes with the frame: the two before and after it are not touched."""
    source = write_video(tmp_path / "in.mkv", films(3), codec="ffv1")
    shuffled = 0

    def spoil(name: str, result: torch.Tensor) -> None:
        nonlocal shuffled
        # Loading tries the network on another size.
        if name == "pixel_shuffle" and result.shape[-1] == 192:
            shuffled += 1
            if shuffled == 2:
                result[0, 0, 40, 40] = float("nan")

    both(given, source, network("keyscale-tiny-x2"), Precision.FP16)  # the golden tile is looked at once a process
    gpu.on_result = spoil
    cpu, cuda, result = both(given, source, network("keyscale-tiny-x2"), Precision.FP16)
    assert shuffled == 4
    assert sum("recomputed in fp32" in note for note in result.notes) == 1
    near(cpu, cuda, most=2, share=0.6)
