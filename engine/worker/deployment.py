"""What a container knows of itself."""

from __future__ import annotations

import os
import platform
from typing import Any

import av

from keyscale import __version__
from keyscale.engine.errors import DeviceError
from keyscale.engine.worker.chunk import Workshop
from keyscale.engine.worker.contract import SCHEMA, Deployment, as_answer

__all__ = ["here", "workshop"]


def here(*, device: str, gpus: tuple[str, ...], containers: int, timeout_s: int) -> dict[str, Any]:
    """A `Deployment` as plain data."""
    return as_answer(
        Deployment(
            schema=SCHEMA,
            version=__version__,
            libraries=repr(sorted(av.library_versions.items())),
            device=device,
            gpus=gpus,
            containers=containers,
            timeout_s=timeout_s,
        )
    )


def workshop(device: str) -> Workshop:
    """The workshop of this container.

    Raises:
        DeviceError: it was asked for a GPU, and torch finds none. Another container may have one.
    """
    container = os.environ.get("MODAL_TASK_ID") or platform.node()
    if device != "cuda":
        return Workshop(device=device, gpu="cpu", container=container)
    import torch

    if not torch.cuda.is_available():
        raise DeviceError("the container has no GPU that torch can use", remedy="Deploy with another KEYSCALE_GPU.")
    return Workshop(device=device, gpu=torch.cuda.get_device_name(0), container=container)
