"""The camera on a device against `camera/sampler.py`, on the CPU: one code at most, and a pan that glides."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.pictures import most

from keyscale.engine.camera.geometry import Geometry, Window, place
from keyscale.engine.camera.sampler import sample
from keyscale.engine.device.camera import Camera
from keyscale.engine.job import Fit
from keyscale.engine.models.torch_picture import DevicePicture

Pixels = npt.NDArray[Any]
CPU = torch.device("cpu")
LATTICE = (60, 45)


def texture(kind: str, width: int, height: int, deep: bool) -> Pixels:
    generator = np.random.default_rng(5)
    if kind == "noise":
        values = generator.random((height, width, 3))
    elif kind == "edges":
        blocks = generator.random((height // 6 + 1, width // 6 + 1, 3)) > 0.5
        values = blocks.repeat(6, 0).repeat(6, 1)[:height, :width].astype(float)
    else:
        y, x = np.mgrid[0:height, 0:width]
        values = np.stack([0.5 + 0.4 * np.sin(x / 9 + k) * np.cos(y / 7) for k in range(3)], axis=2)
    top, dtype = (65535, np.uint16) if deep else (255, np.uint8)
    return np.rint(values * top).astype(dtype)


def both(
    pixels: Pixels, window: Window, scale: int, geometry: Geometry, rect: Any, target: tuple[int, int], fit: Fit
) -> tuple[Pixels, Pixels]:
    """What the sampler and what the device's camera make of it."""
    rects = np.array([rect], float)
    placement = place(rects, target, fit)[0]
    wanted = sample(pixels, window, scale, geometry, rects[0], placement, target)
    top = 255 if pixels.dtype == np.uint8 else 65535
    camera = Camera(geometry, scale, target, CPU, torch.from_numpy)
    planes = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1).contiguous()
    shown = camera(DevicePicture(planes.permute(1, 2, 0), top), window, rects[0], placement)
    assert shown.shape == (target[1], 3, target[0])
    return shown.permute(0, 2, 1).numpy().astype(pixels.dtype), wanted


RECTS = {
    "enlarged": (15.4, 10.7, 11.3, 15.1),
    "made lower and wider": (1.4, 0.7, 25.3, 43.1),
    "reduced": (1.3, 0.4, 57.6, 43.2),
    "the whole": (0.0, 0.0, 60.0, 45.0),
    "at the corner": (0.0, 0.0, 20.5, 15.25),
    "at the other corner": (39.5, 29.75, 20.5, 15.25),
    "to scale": (30.0, 20.0, 18.0, 14.0),
    "to scale but for a part of a pixel": (30.25, 20.125, 18.0, 14.0),
}


@pytest.mark.parametrize("deep", [False, True], ids=["8 bit", "16 bit"])
@pytest.mark.parametrize("rect", RECTS)
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_rectangle_is_sampled_as_on_the_host(rect: str, scale: int, deep: bool) -> None:
    target = (18 * scale, 14 * scale)
    geometry = Geometry(display=LATTICE, lattice=LATTICE)
    rects = np.array([RECTS[rect]])
    x0, y0, x1, y1 = geometry.windows(rects, place(rects, target, Fit.STRETCH), scale)[0].tolist()
    window = Window(x0, y0, x1, y1)
    for kind in ("noise", "edges", "waves"):
        pixels = texture(kind, window.width * scale, window.height * scale, deep)
        shown, wanted = both(pixels, window, scale, geometry, RECTS[rect], target, Fit.STRETCH)
        assert most(shown, wanted) <= (2 if deep else 1), kind
        if rect == "to scale":
            assert most(shown, wanted) == 0


@pytest.mark.parametrize("deep", [False, True], ids=["8 bit", "16 bit"])
@pytest.mark.parametrize("angle", [1.5, -37, 90, 180])
def test_a_free_rotation_is_undone_as_on_the_host(angle: float, deep: bool) -> None:
    """At 90 and 180 degrees the corners beyond the picture are black."""
    geometry = Geometry(display=LATTICE, lattice=LATTICE, rotation=angle)
    for rect, target in (((34.5, 22.25, 21.0, 13.5), (30, 20)), ((4.0, 4.0, 50.0, 40.0), (25, 20))):
        rects = np.array([rect])
        x0, y0, x1, y1 = geometry.windows(rects, place(rects, target, Fit.STRETCH), 2)[0].tolist()
        window = Window(x0, y0, x1, y1)
        for kind in ("noise", "edges"):
            pixels = texture(kind, window.width * 2, window.height * 2, deep)
            shown, wanted = both(pixels, window, 2, geometry, rect, target, Fit.STRETCH)
            difference = np.abs(shown.astype(int) - wanted.astype(int))
            # Of quarter turns all places are halves, and many a value as well: the last bit of a double decides.
            ties = not deep and angle % 90 == 0
            assert difference.max() <= (24 if deep else 1 + ties), (kind, rect)
            assert (difference > (2 if deep else 0)).mean() < (0.1 if ties else 0.01)


def test_bars_are_black() -> None:
    geometry = Geometry(display=LATTICE, lattice=LATTICE)
    pixels = texture("noise", 120, 90, False)
    shown, wanted = both(pixels, Window(0, 0, *LATTICE), 2, geometry, (3.3, 2.2, 50.0, 20.0), (64, 64), Fit.CONTAIN)
    assert most(shown, wanted) <= 1
    assert not shown[:18].any()
    assert not shown[-18:].any()
    assert shown[20:-20].any()


def test_pixels_that_are_not_square() -> None:
    geometry = Geometry(display=(80, 45), lattice=LATTICE)
    pixels = texture("waves", 120, 90, False)
    shown, wanted = both(pixels, Window(0, 0, *LATTICE), 2, geometry, (3.3, 2.2, 75.0, 42.2), (64, 36), Fit.COVER)
    assert most(shown, wanted) <= 1


def test_a_slow_pan_glides() -> None:
    """A spot that stands still, seen by a camera that moves a tenth of an output pixel a frame."""
    x, y = np.arange(120) + 0.5 - 60.3, np.arange(90) + 0.5 - 44.7
    glow = np.exp(-np.add.outer(y**2, x**2) / (2 * 5.0**2))
    pixels = np.rint(200 * glow)[..., None].repeat(3, axis=2).astype(np.uint8)
    camera = Camera(Geometry(display=LATTICE, lattice=LATTICE), 2, (96, 72), CPU, torch.from_numpy)
    picture = DevicePicture(torch.from_numpy(pixels.astype(np.float32)), 255)
    places = []
    for step in range(20):
        rect = np.array([8 + 0.05 * step, 6 - 0.025 * step, 48.0, 36.0])
        shown = camera(picture, Window(0, 0, *LATTICE), rect, np.array([0, 0, 96, 72], np.int32)).numpy()
        light = shown[:, 0].astype(float)
        middle = np.array((light.sum(0) @ (np.arange(96) + 0.5), light.sum(1) @ (np.arange(72) + 0.5))) / light.sum()
        assert np.abs(middle - ((60.3 / 2 - rect[0]) * 2, (44.7 / 2 - rect[1]) * 2)).max() < 0.1
        places.append(middle)
    np.testing.assert_allclose(np.diff(places, axis=0), [(-0.1, 0.05)] * 19, atol=0.05)
