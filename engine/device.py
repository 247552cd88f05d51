"""Which device and precision a job runs on. Imports torch."""

from __future__ import annotations

import torch

from keyscale.engine.job import Precision

__all__ = ["choose_device", "choose_precision", "describe_device"]


def choose_device(asked: str) -> str:
    """`auto` -> the best device that is there; anything else is taken at its word and checked on loading."""
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def choose_precision(asked: Precision, device: str) -> str:
    """`auto` -> fp16 on CUDA, fp32 elsewhere: bf16 and fp16 are slower than fp32 on many CPUs."""
    if asked is not Precision.AUTO:
        return asked.value
    return "fp16" if device.startswith("cuda") else "fp32"


def describe_device(device: str) -> str:
    """Words for people, such as `cuda (NVIDIA L4)` or `cpu (4 threads)`."""
    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device
