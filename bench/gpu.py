"""A GPU's share of a job, stage by stage, and whole jobs: `make bench-gpu`, or

    python -m bench.gpu [--device cuda] [--quick] [--only PART] [--json FILE]

For every shipped and official network whose weights are here, windows of 270x480, 607x1080 and 1080x1080 of a film of
1920x1080 become frames of 1080x1920. Told are milliseconds of each stage by itself (bytes up and RGB; the network;
camera, colour and bytes down), frames a second with two under way, how often a frame waited for the device, and the
network's share of the products that the device does in that precision and of the bytes that it moves; of whole jobs,
by x264 and by NVENC, also how busy the device was. It takes less than ten minutes on one card and refuses without one;
`--device cpu --quick` shows only that it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event as StopFlag
from typing import Any

import av
import numpy as np
import torch

from bench.machine import machine
from keyscale.engine.camera.geometry import Geometry, Window, place
from keyscale.engine.device.frames import DeviceFrame, Sender
from keyscale.engine.device.line import DeviceLine, ShownFrame
from keyscale.engine.errors import KeyscaleError
from keyscale.engine.events import Done
from keyscale.engine.job import Codec, Compute, Encoding, Fit, Job, ModelChoice, Precision, Target
from keyscale.engine.machine import describe_device
from keyscale.engine.models import all_models, load_model
from keyscale.engine.models.torch_device import resolve_device
from keyscale.engine.models.torch_model import Model
from keyscale.engine.pipeline.upscaler import Upscaler
from keyscale.engine.runners.local import LocalRun
from keyscale.engine.runners.prepare import prepare
from keyscale.engine.source.colour import Colour
from keyscale.engine.source.planes import SourcePicture
from keyscale.engine.source.probe import probe
from keyscale.engine.source.reader import SourceFrame, read_frames
from keyscale.engine.system import usable_cores

SOURCE, TARGET, RATE = (1920, 1080), (1080, 1920), 30
WINDOWS = ((270, 480), (607, 1080), (1080, 1080))
PICTURES = 12
"""Different ones, shown again and again."""
JOBS = ("keyscale-compact-x2", "keyscale-compact-x4", "realesr-general-x4v3")
"""Networks of whole jobs, with the second window."""


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    seconds: float
    """Of each number."""
    windows: tuple[tuple[int, int], ...]
    names: tuple[str, ...] | None
    """Networks; None is all."""
    frames: int
    """Of a whole job."""


FULL = Extent(seconds=1.0, windows=WINDOWS, names=None, frames=900)
QUICK = Extent(seconds=0.0, windows=((68, 120),), names=("keyscale-tiny-x2",), frames=4)


def film(path: Path, frames: int) -> Path:
    """Textures that move, so that no frame equals the one before."""
    width, height = SOURCE
    y, x = np.mgrid[0:height, 0:width]
    waves = 110 + 60 * np.sin(x / 23) + 50 * np.cos(y / 17 + x / 41)
    grain = np.random.default_rng(0).normal(0, 6, (height, width))
    picture = np.clip(np.stack([waves + grain, waves[::-1], waves[:, ::-1]], axis=2), 0, 255).astype(np.uint8)
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "18"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            shifted = np.roll(picture, 8 * (number % 64), axis=1)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(shifted, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def pictures(path: Path) -> list[SourcePicture]:
    """Its first frames, decoded to planes."""
    info = probe(path)
    wanted = info.pts[:PICTURES].tolist()
    read = read_frames(info, wanted, deep=False, keep_going=False, should_stop=lambda: False, planes=True)
    return [frame.picture for frame in read if isinstance(frame, SourceFrame)]


def wait(device: torch.device) -> None:
    """Until the device has done all."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def milliseconds(device: torch.device, seconds: float, work: Callable[[int], object]) -> float:
    """Of one turn of `work`, which is given its number, when turn follows turn."""
    work(0)
    wait(device)
    began, turns = time.perf_counter(), 0
    while turns < 2 or time.perf_counter() - began < seconds:
        work(turns)
        turns += 1
        if turns % 8 == 0:
            wait(device)
    wait(device)
    return 1000 * (time.perf_counter() - began) / turns


def peak(device: torch.device, dtype: torch.dtype, extent: Extent) -> dict[str, float]:
    """What the device does at best: products a second in that type, and bytes of a copy."""
    side = 4096 if extent is FULL else 64
    a = torch.rand((side, side), device=device).to(dtype)
    large = torch.empty(side * side * 16, device=device, dtype=torch.uint8)
    product = milliseconds(device, extent.seconds, lambda _: a @ a)
    copy = milliseconds(device, extent.seconds, lambda _: large.clone())
    return {"tera_macs": side**3 / product / 1e9, "gigabytes": 2 * large.numel() / copy / 1e6}


def measure(model: Model, sources: list[SourcePicture], size: tuple[int, int], extent: Extent) -> dict[str, Any]:
    """One network and one size of window."""
    device, spec = model.device, model.spec
    geometry = Geometry(display=SOURCE, lattice=SOURCE)
    rects = np.array([[100.4 + 0.3 * number, 0.0, size[0] + 0.5, size[1]] for number in range(len(sources))])
    placements = place(rects, TARGET, Fit.STRETCH)
    cores = [Window(*map(int, each)) for each in geometry.windows(rects, placements, spec.scale)]
    upscaler = Upscaler(model, SOURCE, tile=None)
    line = DeviceLine(
        upscaler,
        geometry=geometry,
        scale=spec.scale,
        target=TARGET,
        colour=Colour(matrix=1, full_range=False),
        pixel_format="yuv420p",
        deep=False,
    )
    sender = Sender(device, deep=False)
    n = len(sources)

    def shown(turn: int) -> ShownFrame:
        i = turn % n
        upscaler.forget()
        return line.shown(line.picture(sources[i], cores[i]), sources[i], cores[i], rects[i], placements[i])

    seen = [core.widened(spec.halo, spec.align, SOURCE) for core in cores]
    with torch.inference_mode():
        parts = [DeviceFrame(sources[i], sender)[seen[i].y0 : seen[i].y1, seen[i].x0 : seen[i].x1] for i in range(n)]
        picture = line.picture(sources[0], cores[0])
        spent = upscaler.macs
        took = {
            "up": milliseconds(device, extent.seconds, lambda i: sender.rgb(sources[i % n], seen[i % n])),
            "network": milliseconds(
                device, extent.seconds, lambda i: model.enlarge(parts[i % n], cores[i % n].within(seen[i % n]))
            ),
            "down": milliseconds(
                device,
                extent.seconds,
                lambda i: line.shown(picture, sources[0], cores[0], rects[i % n], placements[0]).result(),
            ),
        }
    under_way = [shown(0)]

    def one_more(turn: int) -> None:
        under_way.append(shown(turn + 1))
        under_way.pop(0).result()

    whole = milliseconds(device, extent.seconds, one_more)
    return {
        "network": spec.name,
        "precision": model.precision,
        "window": f"{size[0]}x{size[1]}",
        **{f"ms_{stage}": value for stage, value in took.items()},
        "fps": 1000 / whole,
        "waits": waits(device, lambda: shown(1)),
        "tera_macs": spent / took["network"] / 1e9,
    }


def waits(device: torch.device, work: Callable[[], ShownFrame]) -> int | None:
    """How often the host waits for one frame; None where the device does not tell."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            frame = work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    frame.result()
    return 1 + len([each for each in found if "synchroniz" in str(each.message)])


def whole_job(source: Path, name: str, codec: Codec, device: str, folder: Path, extent: Extent) -> dict[str, Any]:
    """A job from file to file; a device or an encoder that is not there is told in its place."""
    width, height = extent.windows[min(1, len(extent.windows) - 1)]
    keyframes = folder / "camera.json"
    rects = [(0, 100.4), (extent.frames / RATE, 160.4)]
    keyframes.write_text(
        json.dumps([{"time": t, "x": x, "y": 0, "width": width, "height": height} for t, x in rects]), encoding="utf-8"
    )
    job = Job(
        source=str(source),
        keyframes=str(keyframes),
        output=str(folder / f"{name}-{codec.value}.mp4"),
        target=Target(width=TARGET[0], height=TARGET[1], fit=Fit.STRETCH),
        model=ModelChoice(name=name),
        compute=Compute(device=device, precision=Precision.AUTO if device != "cpu" else Precision.BF16),
        encoding=Encoding(codec=codec),
    )
    result: dict[str, Any] = {"network": name, "codec": codec.value}
    try:
        run = LocalRun(prepare(job), StopFlag())
        made = list(run.events())
    except KeyscaleError as error:
        return result | {"left_out": str(error)}
    done = made[-1]
    assert isinstance(done, Done)
    busy = run.upscaler.seconds / done.seconds if run.upscaler is not None else 0.0
    return result | {"frames": done.frames, "fps": done.frames / done.seconds, "busy": busy}


def networks(device: str, extent: Extent) -> list[Model]:
    """Those whose weights are here, in the precision that `auto` takes on that device."""
    found = []
    for spec in all_models():
        if extent.names is None or spec.name in extent.names:
            try:
                found.append(
                    load_model(spec.name, device, "fp16" if device.startswith("cuda") else "fp32", offline=True)
                )
            except KeyscaleError as error:
                print(f"left out: {error}", file=sys.stderr)
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, mps, or cpu to see that it runs")
    parser.add_argument("--quick", action="store_true", help="a small network and window; the numbers mean nothing")
    parser.add_argument("--only", choices=("stages", "jobs"), help="measure this alone")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    given = parser.parse_args()
    try:
        device = resolve_device(given.device)
    except KeyscaleError as error:
        print(f"bench.gpu: {error}\n{error.remedy}", file=sys.stderr)
        return 4
    if device.type == "cpu" and not given.quick:
        print("bench.gpu: a CPU takes hours for this; add --quick to see that it runs", file=sys.stderr)
        return 2
    extent = QUICK if given.quick else FULL
    found: dict[str, Any] = {"machine": machine(usable_cores()), "device": describe_device(given.device)}
    print(found["device"])
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(KeyboardInterrupt):
        folder = Path(name)
        source = film(folder / "film.mp4", max(extent.frames, PICTURES))
        if given.only != "jobs":
            models = networks(given.device, extent)
            found["peak"] = peak(device, models[0].dtype, extent)
            print("at best: {tera_macs:.1f} T products a second, {gigabytes:.0f} GB/s".format(**found["peak"]))
            found["stages"] = []
            sources = pictures(source)
            print(f"{'network':<26} {'window':>9} {'up':>7} {'ms':>8} {'down':>7} {'fps':>7} {'waits':>5} {'peak':>5}")
            for model in models:
                for size in extent.windows:
                    row = measure(model, sources, size, extent)
                    row["share_of_peak"] = row["tera_macs"] / found["peak"]["tera_macs"]
                    found["stages"].append(row)
                    print(
                        f"{row['network']:<26} {row['window']:>9} {row['ms_up']:>7.2f} {row['ms_network']:>8.2f} "
                        f"{row['ms_down']:>7.2f} {row['fps']:>7.1f} {row['waits'] or '-':>5} "
                        f"{row['share_of_peak']:>5.0%}",
                        flush=True,
                    )
        if given.only != "stages":
            found["jobs"] = []
            names = JOBS if extent.names is None else extent.names
            codecs = (Codec.H264, Codec.H264_NVENC)
            for model_name, codec in ((n, c) for n in names for c in codecs):
                row = whole_job(source, model_name, codec, given.device, folder, extent)
                found["jobs"].append(row)
                told = row.get("left_out") or f"{row['fps']:.1f} frames a second, device busy {row['busy']:.0%}"
                print(f"{model_name} {codec.value}: {told}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
