"""Names under which the functions are deployed on Modal, on both sides."""

from __future__ import annotations

__all__ = ["APP", "CHUNK", "DEPLOYED", "ENGINE", "QUEUE", "WIDE_ENGINE"]

APP = "keyscale"
ENGINE = "Engine"
"""The class that holds the network."""
WIDE_ENGINE = "EngineWide"
"""The same with twice the cores."""
CHUNK = "upscale_chunk"
"""Its method."""
DEPLOYED = "describe"
"""The function that tells what is deployed."""
QUEUE = "keyscale-progress"
"""The queue through which containers report, a partition a job."""
