"""Source pictures on their way to a device: bytes up, without waiting, and RGB made of them there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from keyscale.engine.camera.geometry import Window
from keyscale.engine.device.colour import FromPlanes
from keyscale.engine.models.torch_device import on_device
from keyscale.engine.models.torch_picture import DevicePicture
from keyscale.engine.source.planes import Planes, SourcePicture, same_picture

__all__ = ["DeviceFrame", "Sender", "staging"]

KINDS = 4
"""Kinds of source whose tables stay on the device: a film changes its format seldom, a table takes megabytes."""


def staging(size: int, device: torch.device, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Host memory `(size,)` to copy from or to; pinned for CUDA, which copies it beside all else.

    torch keeps pinned memory for whoever asks next, and gives it away only once copies that were begun are done.
    """
    return torch.empty(size, dtype=dtype, pin_memory=device.type == "cuda")


class Sender:
    """Sends pictures of one job to its device, and keeps there what their colours need."""

    def __init__(self, device: torch.device, *, deep: bool) -> None:
        self.device, self.deep = device, deep
        self.top = 65535 if deep else 255
        self._colours: OrderedDict[Hashable, FromPlanes] = OrderedDict()

    def send(self, data: npt.NDArray[np.uint8]) -> Tensor:
        """Bytes `(N,)`."""
        tensor = torch.from_numpy(data)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")

    def rgb(self, source: SourcePicture, window: Window) -> Tensor:
        """A window of a picture's lattice as RGB `(3, H, W)`: whole numbers from 0 to `top` as float32."""
        if isinstance(source, Planes):
            return self._of_planes(source, window)
        part = source[window.y0 : window.y1, window.x0 : window.x1]
        sent = self._sent([part]).view(window.height, window.width, 3).permute(2, 0, 1).to(torch.float32)
        return sent.remainder_(65536) if self.deep else sent

    def _of_planes(self, planes: Planes, window: Window) -> Tensor:
        key = (planes.layout, planes.size, planes.colour, planes.chroma_location)
        colours = self._colours.pop(key, None) or FromPlanes(planes, self.device, deep=self.deep)
        self._colours[key] = colours
        if len(self._colours) > KINDS:
            self._colours.popitem(last=False)
        part = planes.stored(window)
        sent = self._sent([plane[each] for plane, each in zip(planes.samples, planes.regions(part), strict=True)])
        rgb = colours(sent, part, planes.chroma_part(part))
        turned = planes.info.orientation
        if turned.transpose:
            rgb = rgb.transpose(1, 2)
        flipped = [dim for dim, flip in ((2, turned.flip_x), (1, turned.flip_y)) if flip]
        return rgb.flip(flipped) if flipped else rgb

    def _sent(self, parts: list[npt.NDArray[Any]]) -> Tensor:
        """Samples one after another `(N,)`, uint8 or int16, copied once on the host and once to the device."""
        dtype = torch.uint8 if parts[0].dtype == np.uint8 else torch.int16
        buffer = staging(sum(part.size for part in parts), self.device, dtype)
        begin = 0
        for part in parts:
            samples = torch.from_numpy(part if dtype is torch.uint8 else part.view(np.int16))
            buffer[begin : begin + part.size].view(part.shape).copy_(samples)
            begin += part.size
        return buffer.to(self.device, non_blocking=self.device.type == "cuda")


class DeviceFrame:
    """A source picture whose windows the upscaler asks for, each sent and made RGB as it is asked for."""

    def __init__(self, source: SourcePicture, sender: Sender) -> None:
        self.source, self._sender = source, sender

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width of the lattice, and 3."""
        return self.source.shape

    def __getitem__(self, region: tuple[slice, slice]) -> DevicePicture:
        """The window of these rows and columns.

        Raises:
            OutOfMemory: the device has no room for it.
        """
        rows, columns = region
        window = Window(columns.start, rows.start, columns.stop, rows.stop)
        sender = self._sender
        rgb = on_device(sender.device, lambda: sender.rgb(self.source, window))
        return DevicePicture(rgb.permute(1, 2, 0), sender.top)

    def blank(self, height: int, width: int) -> DevicePicture:
        """A picture to be filled.

        Raises:
            OutOfMemory: as above.
        """
        device, top = self._sender.device, self._sender.top
        dtype = torch.float32 if self._sender.deep else torch.uint8
        pixels = on_device(device, lambda: torch.empty((3, height, width), dtype=dtype, device=device))
        return DevicePicture(pixels.permute(1, 2, 0), top)

    def equals(self, other: DeviceFrame, window: Window) -> bool:
        """Whether another one shows the same there."""
        return same_picture(self.source, other.source, window)
