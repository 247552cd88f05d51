"""Three ways to upscale the same windows of the same clip: the network alone, keyscale, and a per-frame loop.

The per-frame loop is the one that Real-ESRGAN's video script runs, rebuilt from its description: one stage after
another, each frame through host arrays. It is given keyscale's windows, since the script itself knows no camera and
would compute whole frames.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from keyscale.engine.camera.geometry import Window
from keyscale.engine.events import Done
from keyscale.engine.job import Job
from keyscale.engine.models.enlarger import Enlarger
from keyscale.engine.models.torch_model import Model
from keyscale.engine.models.torch_networks import build
from keyscale.engine.plan.plan import Plan
from keyscale.engine.runners.local import run_local
from keyscale.engine.runners.prepare import prepare

__all__ = ["NetworkAlone", "PerFrameLoop", "pipeline"]

PRE_PAD = 10
"""Pixels of context that `RealESRGANer` adds by reflection."""

Pixels = npt.NDArray[np.uint8]


def _windows(plan: Plan) -> list[tuple[int, Window]]:
    """Source frame and window with its context, for each output frame."""
    assert plan.model is not None
    spec, lattice = plan.model, plan.info.lattice
    return [
        (int(plan.source_index[n]), plan.window(n).widened(spec.halo, spec.align, lattice)) for n in range(plan.frames)
    ]


@dataclass
class NetworkAlone:
    """The network that the pipeline runs, on pixels that are ready: what no pipeline can undercut."""

    model: Enlarger
    inputs: Sequence[tuple[Pixels, Window]] = field(repr=False)

    @classmethod
    def of(cls, model: Enlarger, plan: Plan) -> NetworkAlone:
        """With the windows of a plan, decoded beforehand, and what is wanted of each."""
        wanted = dict(_windows(plan))
        cores = {int(plan.source_index[n]): plan.window(n) for n in range(plan.frames)}
        ready = []
        with av.open(plan.info.path) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    seen, core = wanted[number], cores[number]
                    pixels = frame.to_ndarray(format="rgb24")[seen.y0 : seen.y1, seen.x0 : seen.x1]
                    ready.append((np.ascontiguousarray(pixels, np.uint8), core.within(seen)))
                if number >= max(wanted):
                    break
        return cls(model, ready)

    def run(self) -> float:
        """Seconds for all windows."""
        began = time.perf_counter()
        for pixels, inner in self.inputs:
            self.model.enlarge(pixels, inner)
        return time.perf_counter() - began


def pipeline(job: Job) -> tuple[float, Done]:
    """Seconds of a whole job, from the flags to the published file, and its report."""
    began = time.perf_counter()
    done: Done | None = None
    for event in run_local(prepare(job), threading.Event()):
        if isinstance(event, Done):
            done = event
    assert done is not None
    return time.perf_counter() - began, done


@dataclass
class PerFrameLoop:
    """Decode to BGR, enhance, resize, encode; nothing overlaps."""

    model: Model
    plan: Plan
    output: Path

    def __post_init__(self) -> None:
        state = self.model.network.state_dict()
        plain = {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
        self._network, _ = build(plain)

    def run(self) -> float:
        """Seconds for all windows, encoded."""
        wanted = _windows(self.plan)
        target = (self.plan.job.target.width, self.plan.job.target.height)
        began = time.perf_counter()
        with av.open(str(self.output), "w") as out, av.open(self.plan.info.path) as container:
            stream = out.add_stream("libx264", rate=self.plan.rate)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = *target, "yuv420p"
            stream.codec_context.options = {"crf": "18", "preset": "fast"}
            frames = enumerate(container.decode(video=0))
            number = -1
            bgr: Any = None
            for count, (index, _) in enumerate(wanted):
                while number < index:
                    number, frame = next(frames)
                    bgr = frame.to_ndarray(format="bgr24")
                core = self.plan.window(count)
                enlarged = self.enhance(np.ascontiguousarray(bgr[core.y0 : core.y1, core.x0 : core.x1]))
                resized = np.asarray(Image.fromarray(enlarged).resize(target, Image.Resampling.LANCZOS))
                picture = av.VideoFrame.from_ndarray(resized, format="bgr24")
                picture.pts, picture.time_base = count, Fraction(1) / self.plan.rate
                out.mux(stream.encode(picture))
            out.mux(stream.encode())
        return time.perf_counter() - began

    def enhance(self, bgr: Pixels) -> Pixels:
        """`(H, W, 3)` BGR -> `(4 * H, 4 * W, 3)` BGR."""
        picture = bgr.astype(np.float32) / 255
        rgb = np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1))
        with torch.inference_mode():
            x = torch.from_numpy(rgb)[None].to(self.model.device, self.model.dtype)
            x = functional.pad(x, (0, PRE_PAD, 0, PRE_PAD), "reflect")
            y = self._network(x)
            scale = self._network.scale
            y = y[:, :, : y.shape[2] - PRE_PAD * scale, : y.shape[3] - PRE_PAD * scale]
            result = y.squeeze(0).float().cpu().clamp_(0, 1).numpy()
        back = result[[2, 1, 0]].transpose(1, 2, 0)
        return np.asarray((back * 255.0).round().astype(np.uint8))
