"""Generated clips, cameras and networks to measure with; nothing is downloaded."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["RATE", "long_clip", "network", "still_camera", "textured_clip"]

RATE = 30


def _texture(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Noise of all sizes, about as busy as footage `(height, width, 3)`."""
    rng = np.random.default_rng(1)
    layers = np.zeros((height, width, 3))
    for cell, weight in ((4, 10.0), (16, 22.0), (64, 40.0)):
        small = rng.normal(0, weight, (height // cell + 2, width // cell + 2, 3))
        planes = [
            np.asarray(
                Image.fromarray(small[..., c].astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
            )
            for c in range(3)
        ]
        layers += np.stack(planes, axis=2)
    return np.clip(128 + layers, 0, 255).astype(np.uint8)


def textured_clip(path: Path, size: tuple[int, int], frames: int) -> Path:
    """An H.264 clip of `frames` frames at `RATE`, in which a texture pans: no two frames are equal."""
    width, height = size
    texture = _texture(width + 256, height + 256)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        context.options = {"preset": "ultrafast", "crf": "23"}
        for number in range(frames):
            x, y = (round(128 + 127 * np.sin(number / 41 + phase)) for phase in (0.0, 1.6))
            pixels = np.ascontiguousarray(texture[y : y + height, x : x + width])
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=1, dst_color_range=1
            )
            picture.colorspace, picture.color_range = 1, 1
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def long_clip(short: Path, path: Path, repeats: int) -> Path:
    """The packets of `short`, `repeats` times end to end."""
    with av.open(str(path), "w") as output:
        with av.open(str(short)) as first:
            stream = output.add_stream_from_template(first.streams.video[0])
        offset = 0
        for _ in range(repeats):
            with av.open(str(short)) as source:
                video = source.streams.video[0]
                assert video.time_base is not None
                for packet in source.demux(video):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = stream
                    output.mux(packet)
                offset += round(Fraction(video.frames, RATE) / video.time_base)
    return path


def still_camera(path: Path, rect: tuple[float, float, float, float]) -> Path:
    """A keyframes file that shows one rectangle: x, y, width, height."""
    keyframe = dict(zip(("x", "y", "width", "height"), rect, strict=True))
    path.write_text(json.dumps([{"time": 0, **keyframe}]), encoding="utf-8")
    return path


def network(path: Path, *, features: int, blocks: int, scale: int = 4) -> Path:
    """A checkpoint of small random weights, SRVGG: as fast as a trained one of its shape."""
    import torch

    from keyscale.engine.models.torch_networks import SRVGGNetCompact

    torch.manual_seed(0)
    net = SRVGGNetCompact(features=features, blocks=blocks, scale=scale)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)
    torch.save({"params": net.state_dict()}, path)
    return path
