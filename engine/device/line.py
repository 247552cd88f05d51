"""One job's frames on its device: planes or RGB up, network, camera, colour, and the encoder's planes down.

Everything is issued without waiting. The host waits once a frame, for the event behind the copy of its planes, and
learns then as well whether the network's picture was a sound one; by then later frames are under way. The bound on
these is the queue between the stages.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import av
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from keyscale.engine.camera.geometry import Geometry, Window
from keyscale.engine.device.camera import Camera
from keyscale.engine.device.colour import ToPlanes
from keyscale.engine.device.frames import DeviceFrame, Sender, staging
from keyscale.engine.errors import DeviceError, KeyscaleError
from keyscale.engine.models.enlarger import OutOfMemory
from keyscale.engine.models.torch_device import FREE_MEMORY, on_device
from keyscale.engine.models.torch_picture import DevicePicture, is_sound
from keyscale.engine.source.colour import FULL, LIMITED, Colour
from keyscale.engine.source.planes import SourcePicture

if TYPE_CHECKING:
    from keyscale.engine.models.enlarger import Enlarger

__all__ = ["DeviceLine", "ShownFrame"]

Result = TypeVar("Result")


class Upscales(Protocol):
    """What the line asks of the upscaler."""

    model: Enlarger

    def __call__(self, frame: DeviceFrame, core: Window) -> DevicePicture:
        """Super-resolve `core`."""

    def again(self, frame: DeviceFrame, core: Window) -> DevicePicture:
        """The same in fp32, after a picture that was broken."""

    def broken(self) -> KeyscaleError:
        """What is raised where that one is broken too."""

    macs: int

    def took(self, macs: int, seconds: float) -> None:
        """Count the time of a window."""

    def sound(self) -> None:
        """Note that a picture was not broken."""


class DeviceLine:
    """Makes the frames of one job. `picture` and `shown` are called by one thread, results are taken by another.

    Args:
        upscaler: runs the network; one thread at a time.
        geometry, scale: of the plan.
        target: width and height of the result.
        colour: of the result.
        pixel_format: of the encoder.
        deep: whether pictures are kept with 16 bits.
        strength: share of the network's picture in the result, above 0 to 1; the rest is the sampled source.
    """

    def __init__(
        self,
        upscaler: Upscales,
        *,
        geometry: Geometry,
        scale: int,
        target: tuple[int, int],
        colour: Colour,
        pixel_format: str,
        deep: bool,
        strength: float = 1.0,
    ) -> None:
        self.device = torch.device(upscaler.model.place)
        self.pixel_format, self.colour = pixel_format, colour
        self._upscaler = upscaler
        self._strength = strength
        self._lock = threading.Lock()
        self._sender = Sender(self.device, deep=deep)
        self._begun: tuple[int, _Moment] | None = None
        self._sent: tuple[SourcePicture, Window, DevicePicture] | None = None
        device, send = self.device, self._sender.send
        with torch.inference_mode():
            self._camera = _with_room(device, lambda: Camera(geometry, scale, target, device, send))
            if strength < 1:
                self._plain_camera = _with_room(device, lambda: Camera(geometry, 1, target, device, send))
            self.planes = _with_room(device, lambda: ToPlanes(colour, pixel_format, target, device, deep=deep))

    def picture(self, source: SourcePicture, window: Window) -> DevicePicture:
        """The super-resolved window of a source picture. Errors as of `Upscaler`."""
        with self._lock, torch.inference_mode():
            before, begun = self._upscaler.macs, _Moment(self.device)
            picture = self._upscaler(DeviceFrame(source, self._sender), window)
            spent = self._upscaler.macs - before
            self._begun = (spent, begun) if spent else None
            return picture

    def shown(
        self,
        picture: DevicePicture,
        source: SourcePicture,
        window: Window,
        rect: npt.NDArray[np.float64],
        placement: npt.NDArray[np.int32],
    ) -> ShownFrame:
        """One output frame of a picture, begun; arguments as of `sampler.sample`.

        Raises:
            DeviceError: the device has no room for it.
        """
        with self._lock, torch.inference_mode():
            sent = self._issued(picture, source, window, rect, placement)
            begun, self._begun = self._begun, None
        again = partial(self._again, source, window, rect, placement)
        return ShownFrame(partial(self.finished, sent, begun, again))

    def frame_of(self, data: npt.NDArray[np.uint8]) -> av.VideoFrame:
        """The bytes of all planes as a frame that shares their memory, tagged with the result's colour."""
        samples = data.view(np.uint8 if self.planes.dtype is torch.uint8 else np.uint16)
        planes, begin = [], 0
        for shape in self.planes.shapes:
            end = begin + math.prod(shape)
            planes.append(samples[begin:end].reshape(shape))
            begin = end
        width, height = self.planes.size
        frame = av.VideoFrame.from_dlpack(planes, self.pixel_format, width, height)
        frame.colorspace = self.colour.matrix
        frame.color_range = FULL if self.colour.full_range else LIMITED
        frame.color_primaries = self.colour.primaries
        frame.color_trc = self.colour.transfer
        return frame

    def finished(
        self, sent: _Fetched, begun: tuple[int, _Moment] | None, again: Callable[[], _Fetched]
    ) -> av.VideoFrame:
        """The frame that was `sent`, waited for; made `again` where its picture is broken.

        Raises:
            KeyscaleError: it is broken then too.
        """
        data = self._sound_bytes(sent)
        if begun is not None:
            macs, moment = begun
            self._upscaler.took(macs, sent.moment.since(moment))
        if data is not None:
            self._upscaler.sound()
        else:
            data = self._sound_bytes(again())
        if data is None:
            raise self._upscaler.broken()
        return self.frame_of(data)

    def _sound_bytes(self, sent: _Fetched) -> npt.NDArray[np.uint8] | None:
        """The bytes of a frame; None where its picture is broken."""
        data = on_device(self.device, sent.wait)
        count = self.planes.bytes
        return data[:count] if is_sound(data[count:].view(np.float32).tolist()) else None

    def _issued(
        self,
        picture: DevicePicture,
        source: SourcePicture,
        window: Window,
        rect: npt.NDArray[np.float64],
        placement: npt.NDArray[np.int32],
    ) -> _Fetched:
        def issue() -> _Fetched:
            rgb = self._camera(picture, window, rect, placement)
            if self._strength < 1:
                plain = self._plain_camera(self._seen(source, window), window, rect, placement)
                rgb = (rgb - plain).mul_(self._strength).add_(plain).add_(0.5).floor_()
            checks = picture.checks
            count = self.planes.bytes
            out = torch.empty(count + 12 * len(checks), dtype=torch.uint8, device=self.device)
            self.planes(rgb, out[:count].view(self.planes.dtype))
            if checks:
                out[count:].view(torch.float32).copy_(torch.cat(checks) if len(checks) > 1 else checks[0])
            return _Fetched(out)

        return _with_room(self.device, issue)

    def _seen(self, source: SourcePicture, window: Window) -> DevicePicture:
        """A window of a source picture, sent once for all output frames that show it."""
        if self._sent is None or self._sent[0] is not source or self._sent[1] != window:
            self._sent = None
            seen = DeviceFrame(source, self._sender)[window.y0 : window.y1, window.x0 : window.x1]
            self._sent = source, window, seen
        return self._sent[2]

    def _again(
        self, source: SourcePicture, window: Window, rect: npt.NDArray[np.float64], placement: npt.NDArray[np.int32]
    ) -> _Fetched:
        with self._lock, torch.inference_mode():
            picture = self._upscaler.again(DeviceFrame(source, self._sender), window)
            return self._issued(picture, source, window, rect, placement)


def _with_room(device: torch.device, work: Callable[[], Result]) -> Result:
    """What `work` gives, tried again where memory runs out once all that was begun is done.

    Raises:
        DeviceError: it runs out then too.
    """
    try:
        return on_device(device, work)
    except OutOfMemory:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
    try:
        return on_device(device, work)
    except OutOfMemory as error:
        said = str(error)
    raise DeviceError(f"{device} is out of memory for a frame beside the network ({said})", remedy=FREE_MEMORY)


class _Fetched:
    """Bytes on their way to the host."""

    def __init__(self, out: Tensor) -> None:
        self._out = out
        if out.device.type == "cuda":
            # From other devices a copy would wait here, and is made only when the frame is asked for.
            self._out = staging(out.numel(), out.device)
            self._out.copy_(out, non_blocking=True)
        self.moment = _Moment(out.device)

    def wait(self) -> npt.NDArray[np.uint8]:
        """The bytes, once they are there."""
        self.moment.wait()
        return np.asarray(self._out.cpu().numpy())


class _Moment:
    """A point in the device's work."""

    def __init__(self, device: torch.device) -> None:
        self._event: Any = None
        self._host = time.perf_counter()
        if device.type == "cuda":
            # torch.cuda.Event has no annotations.
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        """Until the device has come so far; elsewhere than on CUDA reading a result does that."""
        if self._event is not None:
            self._event.synchronize()

    def since(self, earlier: _Moment) -> float:
        """Seconds from an earlier one; both were waited for."""
        if self._event is not None:
            return float(earlier._event.elapsed_time(self._event)) / 1000
        return self._host - earlier._host


class ShownFrame:
    """An output frame that may still be under way."""

    def __init__(self, finish: Callable[[], av.VideoFrame]) -> None:
        self._finish = finish
        self._frame: av.VideoFrame | None = None

    def result(self) -> av.VideoFrame:
        """The frame in the encoder's format, tagged with its colour, as soon as it is there; the same one again.

        Raises:
            KeyscaleError: the network gave no finite picture, in fp32 either.
        """
        if self._frame is None:
            self._frame = self._finish()
        return self._frame
