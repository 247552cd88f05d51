"""WebGPU itself: ONNX Runtime with its provider (the extra `gpu`), and the adapters that it finds on this machine."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import platform
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

from keyscale.engine.errors import DeviceError, DeviceLost
from keyscale.engine.models.enlarger import OutOfMemory
from keyscale.engine.wording import say

__all__ = [
    "BINDING",
    "SOFTWARE",
    "Adapter",
    "adapters",
    "described",
    "fault",
    "is_installed",
    "load_onnxruntime",
    "open_session",
    "provider_devices",
    "wants_software",
]

PROVIDER = "WebGpuExecutionProvider"
PACKAGES = ("onnx", "onnxruntime", "onnxruntime_ep_webgpu")

SOFTWARE = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
"""The provider's own variable: with 1 it goes with an adapter that is a program on the CPU. It is read once, when the
provider is registered."""

BINDING = 128 * 2**20
"""Bytes of a tensor that every adapter binds to a kernel: WebGPU's least `maxStorageBufferBindingSize`."""

INSTALL = "Run `pip install 'keyscale[gpu]'`."
LOADER = (
    "On Linux WebGPU needs Vulkan's loader and a driver (Debian, Ubuntu: `apt install libvulkan1 mesa-vulkan-drivers`)."
)

VULKAN_SUCCESS, INSTANCE_CREATE_INFO, MOST_DEVICES = 0, 1, 16
DEVICE_TYPE_CPU = 4
MERIT = {2: 0, 1: 1, 3: 2, DEVICE_TYPE_CPU: 3}
"""Of `VkPhysicalDeviceType` (discrete, integrated, virtual, CPU): the order in which Dawn takes adapters where high
performance is asked for, which is the provider's default."""


@dataclass(frozen=True)
class Adapter:
    """What WebGPU runs on."""

    name: str
    """As its driver calls it."""
    is_software: bool
    """Whether it is a program on the CPU, such as lavapipe, SwiftShader or WARP."""


def is_installed() -> bool:
    """Whether the packages of the extra are there; nothing is imported."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


def wants_software() -> bool:
    """Whether the environment asks for an adapter that is software."""
    return os.environ.get(SOFTWARE, "").strip() == "1"


@cache
def load_onnxruntime() -> Any:
    """The `onnxruntime` package, with the provider registered.

    Raises:
        DeviceError: a package is absent, or does not load.
    """
    try:
        onnxruntime, plugin = (importlib.import_module(name) for name in PACKAGES[1:])
    except ImportError as error:
        raise DeviceError(f"ONNX Runtime's WebGPU provider does not load: {error}", remedy=INSTALL) from error
    onnxruntime.set_default_logger_severity(3)  # it warns of the variable below
    before = os.environ.get(SOFTWARE)
    if platform.system() == "Linux":
        # It looks for PCI cards by itself, and misses GPUs of a chip or of WSL; `adapters` knows what Vulkan has.
        os.environ[SOFTWARE] = "1"
    try:
        onnxruntime.register_execution_provider_library("keyscale", plugin.get_library_path())
    except Exception as error:  # its exceptions have no base of their own
        raise DeviceError(
            f"ONNX Runtime {onnxruntime.__version__} does not load its WebGPU provider: {_first_line(error)}",
            remedy=f"{INSTALL} {LOADER}",
        ) from error
    finally:
        if before is None:
            os.environ.pop(SOFTWARE, None)
        else:
            os.environ[SOFTWARE] = before
    return onnxruntime


def provider_devices() -> list[Any]:
    """ONNX Runtime's devices of the provider, the first of which stands for whatever adapter Dawn takes.

    Raises:
        DeviceError: as `load_onnxruntime`; there is no adapter.
    """
    if not is_installed():
        raise DeviceError("there is no device webgpu: the packages for it are not installed", remedy=INSTALL)
    found = [each for each in load_onnxruntime().get_ep_devices() if each.ep_name == PROVIDER]
    if not found or not adapters():
        raise DeviceError("WebGPU finds no adapter on this machine", remedy=f"{LOADER} Or use another device.")
    return found


def open_session(graph: bytes, name: str, precision: str) -> Any:
    """A serialised ONNX model, no node of which runs elsewhere than on the adapter.

    Args:
        graph: the model.
        name, precision: for messages.

    Raises:
        DeviceError: as `provider_devices` and `fault`.
        OutOfMemory: as `fault`.
    """
    onnxruntime, devices = load_onnxruntime(), provider_devices()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    options.intra_op_num_threads = 1
    options.add_provider_for_devices(devices[:1], {})
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        return onnxruntime.InferenceSession(graph, options)
    except Exception as error:  # its exceptions have no base of their own
        raise fault(error, name, precision) from error


def fault(error: Exception, name: str, precision: str) -> Exception:
    """What an error of ONNX Runtime means; arguments as of `open_session`."""
    said = " ".join(str(error).split())
    # Behind the file and line of its own source.
    reason = said.rpartition("was false. ")[2].removeprefix("[ONNXRuntimeError] : ")
    if "lost" in said.lower() and "device" in said.lower():
        return DeviceLost(
            f"webgpu failed: {reason}",
            remedy="Run it again: finished chunks are kept. If it fails again, look into the driver's log.",
        )
    if "out of memory" in said.lower() or "bad_alloc" in said or "larger than the maximum" in said.lower():
        return OutOfMemory(reason)
    if "No supported adapters" in said:
        return DeviceError(
            f"WebGPU does not take {adapters()[0].name}: its driver lacks what WebGPU needs",
            remedy=say("Install a newer driver (Mesa 23 or later), or use another {device}."),
        )
    return DeviceError(
        f"{name} does not run in {precision} on {described()}: {reason}",
        remedy=say("Use {precision=fp32}, another {device}, or a newer driver."),
    )


def described() -> str:
    """`webgpu` and the adapter's name."""
    first = adapters()[0]
    return f"webgpu ({first.name}{', software on the CPU' if first.is_software else ''})"


@cache
def adapters() -> tuple[Adapter, ...]:
    """The adapters of this machine; WebGPU takes the first. None where the packages are not installed.

    On Linux Vulkan is asked, elsewhere ONNX Runtime, which knows the GPUs of Direct3D and Metal.
    """
    if not is_installed():
        return ()
    if platform.system() == "Linux":
        return _vulkan_devices()
    try:
        found = [each for each in load_onnxruntime().get_ep_devices() if each.ep_name == PROVIDER]
    except DeviceError:
        return ()
    return tuple(
        Adapter(
            dict(each.device.metadata).get("Description") or f"{each.device.vendor} GPU",
            is_software=each.device.type.name == "CPU",
        )
        for each in found
    )


def _vulkan_devices() -> tuple[Adapter, ...]:
    """`VkPhysicalDeviceProperties` of all devices, as vulkan_core.h declares them, in Dawn's order."""
    try:
        vulkan = ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return ()
    instance = ctypes.c_void_p()
    # sType, pNext, flags, pApplicationInfo, and no layers or extensions: count and list of each.
    wanted = ctypes.create_string_buffer(struct.pack("@iPIPIPIP", INSTANCE_CREATE_INFO, 0, 0, 0, 0, 0, 0, 0))
    if vulkan.vkCreateInstance(wanted, None, ctypes.byref(instance)) != VULKAN_SUCCESS:
        return ()
    try:
        count, devices = ctypes.c_uint32(MOST_DEVICES), (ctypes.c_void_p * MOST_DEVICES)()
        if vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices) < VULKAN_SUCCESS:
            return ()
        found = []
        for device in devices[: count.value]:
            about = ctypes.create_string_buffer(4096)
            vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(device), about)
            # Four numbers before it: version of the API, of the driver, vendor, device; the name is 256 bytes.
            (kind,) = struct.unpack_from("@i", about.raw, 16)
            name = about.raw[20:276].partition(b"\0")[0].decode(errors="replace")
            found.append((MERIT.get(kind, len(MERIT)), Adapter(name, is_software=kind == DEVICE_TYPE_CPU)))
    finally:
        vulkan.vkDestroyInstance(instance, None)
    return tuple(adapter for _, adapter in sorted(found, key=lambda each: each[0]))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
