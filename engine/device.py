"""Which device a job runs on. Torch is imported where it has to be asked."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["choose_device", "describe_device", "may_have_gpu"]

_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvmap", "/dev/kfd", "/dev/dxg")
"""What the drivers of NVIDIA's (the third: its embedded ones) and AMD's GPUs, and WSL, put there."""


def may_have_gpu() -> bool:
    """Whether torch might find a GPU here, as far as can be seen without loading it: only on Linux can it."""
    return sys.platform != "linux" or any(Path(file).exists() for file in _GPU_FILES)


def choose_device(asked: str) -> str:
    """`auto` -> the best device that is there; anything else is taken at its word and checked on loading."""
    if asked != "auto":
        return asked
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def describe_device(device: str) -> str:
    """Words for people, such as `cuda (NVIDIA L4)` or `cpu (4 threads)`, of where torch computes."""
    import torch

    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device
