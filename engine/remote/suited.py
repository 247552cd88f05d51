"""Whether deployed functions can do a job, by what is known of the GPUs that they may get."""

from __future__ import annotations

from collections.abc import Sequence

from keyscale.engine.errors import EncoderError, UsageError
from keyscale.engine.plan.plan import Plan
from keyscale.engine.remote.prices import GPUS, gpu_of

__all__ = ["check_suited"]


def check_suited(plan: Plan, gpus: Sequence[str]) -> None:
    """See that every GPU which a container may get does what the plan asks for.

    Args:
        plan: of the job.
        gpus: that are asked for, as Modal names them; empty where the functions run on CPUs.

    Raises:
        UsageError: the job asks for another kind of device.
        EncoderError: one of them does not encode the plan's codec, and the plan asks for a GPU's encoder.
    """
    device, asked = "cuda" if gpus else "cpu", plan.job.compute.device
    if asked.partition(":")[0] not in {"auto", device}:
        raise UsageError(
            f"--device {asked} with --remote: the deployed functions run on {device}",
            remedy="Leave --device out, or deploy with another KEYSCALE_GPU.",
        )
    if not plan.encoder.encoder.endswith("_nvenc"):
        return
    lacking = [name for name in gpus or ("CPUs",) if not gpus or plan.encoder.codec not in gpu_of(name).nvenc]
    if lacking:
        able = ", ".join(gpu.name for gpu in GPUS if plan.encoder.codec in gpu.nvenc)
        raise EncoderError(
            f"{plan.encoder.encoder} with --remote: {' and '.join(lacking)}, where the deployed functions may run, "
            "cannot encode with it",
            remedy=f"Choose another --codec, or deploy with a KEYSCALE_GPU of those that can: {able}.",
        )
