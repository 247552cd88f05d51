"""A job planned, and everything checked that can be checked before long work, wherever its chunks are made."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from keyscale.engine.camera.framing import Framing, load_framing
from keyscale.engine.errors import InputError, StorageError, UsageError
from keyscale.engine.files import VIDEO_SUFFIXES, advice_on, storage_error
from keyscale.engine.job import Job, Precision
from keyscale.engine.machine import find_gpus, share_cores
from keyscale.engine.models import ON_ANY_CPU, ModelSpec, at_look, defaults_for, describe, needs_openvino
from keyscale.engine.models.foreign import NOTICEABLE, beside
from keyscale.engine.models.gpus import kinds
from keyscale.engine.models.speeds import known_speeds
from keyscale.engine.pipeline.encoder import check_encoder
from keyscale.engine.plan.plan import LANCZOS, Plan, make_plan
from keyscale.engine.source.probe import VideoInfo, probe
from keyscale.engine.wording import say
from keyscale.engine.workspace.fingerprint import read_stamp
from keyscale.engine.workspace.folder import Identity, work_folder_of
from keyscale.engine.workspace.locks import private_folder

__all__ = ["Look", "Prepared", "check_absent", "check_source", "on_cpu", "prepare", "prepare_plan", "prepare_still"]


class Look(Protocol):
    """What probes a source, as `probe` does."""

    def __call__(self, path: str, /, *, tolerate_damage: bool, sound: bool) -> VideoInfo:
        """What the file is."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job that passed every check that can be made before long work."""

    job: Job
    """The plan's: a size that follows the camera is in pixels."""
    plan: Plan
    source_stat: tuple[int, int]
    """Size and modification time in ns of the source as planned."""
    outdated: Identity | None = None
    """A result that is made again whichever job it came from; one that has taken its place since is not."""


def prepare_plan(job: Job, *, remote: bool = False, framing: Framing | None = None, look: Look = probe) -> Plan:
    """Probe, read the keyframes and plan. No network runs; torch is imported for a checkpoint's path, and for
    `--device auto` where a driver tells of a GPU; OpenVINO where it has to be asked what it can do on this CPU.

    Args:
        job: what is asked for.
        remote: chunks are made elsewhere, so that nothing depends on what this machine can do.
        framing: the camera, instead of the job's keyframes file.
        look: what probes the source, `probe` or `probe_apart`.

    Raises:
        KeyscaleError: the source, the keyframes, the model or the settings are wrong.
    """
    _check_paths(job)
    if framing is None and job.keyframes is not None:
        framing = load_framing(job.keyframes)
    models = _models(job, remote=remote)
    info = look(job.source, tolerate_damage=job.keep_going_on_decode_errors, sound=job.encoding.audio)
    gpus: tuple[str, ...] = ("cuda",) if remote else kinds(job.compute.device) if models else ()
    there = ON_ANY_CPU if remote or not models else on_cpu(job)
    plan = make_plan(job, info, framing, models, known_speeds(), on_cpu=there, gpus=gpus)
    for spec in models.values():
        if spec.findings and spec.findings.beyond > NOTICEABLE:
            plan = replace(
                plan,
                warnings=(
                    *plan.warnings,
                    f"{spec.name} sees farther than the {spec.halo} pixels of context that it is given: up to "
                    f"{spec.findings.beyond:.1f} codes of 255 depend on what lies beyond, and change with the window",
                ),
            )
    if not remote and plan.executions and job.compute.device in {"auto", "gpu"}:
        # What is passed over is no secret.
        plan = replace(plan, warnings=(*plan.warnings, *(f"passed over: {wrong}" for wrong in find_gpus().unfit)))
    return plan


def prepare_still(job: Job, *, look: Look = probe) -> Prepared:
    """Plan a job of which one frame is made: neither its output nor its encoder has to be usable.

    Raises:
        KeyscaleError: as of `prepare_plan`.
    """
    before = _stat(job)
    plan = prepare_plan(job, look=look)
    return Prepared(job=plan.job, plan=plan, source_stat=before)


def prepare(job: Job, *, remote: bool = False, framing: Framing | None = None, look: Look = probe) -> Prepared:
    """Plan, and check all that can fail before long work: output, rights, space, encoder. Arguments as above.

    Raises:
        KeyscaleError: of the kind that fails.
    """
    output = Path(job.output)
    before = _stat(job)
    plan = prepare_plan(job, remote=remote, framing=framing, look=look)
    check_absent(job, may_be_finished=job.publish_to is not None)
    _check_folder(output, plan, remote=remote)
    return Prepared(job=plan.job, plan=plan, source_stat=before)


def _models(job: Job, *, remote: bool) -> dict[int, ModelSpec]:
    name = job.model.name
    if name is None:
        models = defaults_for(job.model.mode)
    elif name.lower() == LANCZOS:
        if job.compute.precision is not Precision.AUTO:
            raise UsageError(
                say("{precision=} does not go with {model=}, which runs no network", job.compute.precision, LANCZOS),
                remedy=say("Leave {precision} out, or name a network with {model}."),
            )
        models = {}
    else:
        share_cores()
        spec = describe(name)
        models = {spec.scale: spec}
        if remote and spec.findings and beside(path := Path(name).expanduser(), path.read_bytes()):
            raise UsageError(
                f"{name} has weights in files beside it, and one file alone is sent to where chunks are made",
                remedy=say("Save it as one file (onnx.save without external data), or leave {remote} out."),
            )
    if job.model.denoise is not None and not any(spec.family == "general" for spec in models.values()):
        raise UsageError(
            "only works with realesr-general-x4v3",
            option="denoise",
            remedy=say("Add {model=realesr-general-x4v3}, or leave {denoise} out."),
        )
    if job.model.look is not None and not models:
        raise UsageError(
            say("is a setting of networks, and {model=} runs none", LANCZOS),
            option="look",
            remedy=say("Leave {look} out, or leave {model} out."),
        )
    return {scale: at_look(spec, job.model.look) for scale, spec in models.items()}


def on_cpu(job: Job) -> frozenset[str]:
    """In what OpenVINO computes here beside fp32; it is loaded and asked only where that matters."""
    if not needs_openvino(job.compute.device, job.compute.precision):
        return frozenset()
    from keyscale.engine.models.openvino import cpu_precisions

    return cpu_precisions()


def _check_paths(job: Job) -> None:
    source, output = Path(job.source), Path(job.output)
    try:
        same = source.exists() and output.exists() and source.samefile(output)
    except OSError:
        same = False
    if same or source.absolute() == output.absolute():
        raise UsageError(
            f"input and output are the same file, {source}", remedy=say("Choose another name with {output}.")
        )
    try:
        folder = output.is_dir()
    except OSError as error:
        raise UsageError(
            f"the output {output} is not a usable name: {error.strerror}",
            remedy=say("Choose a shorter name with {output}."),
        ) from error
    if folder:
        raise UsageError(f"the output {output} is a directory", remedy=say("Give a file name with {output}."))


def check_absent(job: Job, *, may_be_finished: bool = False) -> bool:
    """Whether the output is there, and may be replaced by this job.

    With `update` what keyscale made may be: by its stamp, not by its name; and an empty file, which holds nothing.
    With `may_be_finished` what keyscale made may be there too: it is looked at later whether this job did.

    Raises:
        StorageError: it is there and may not be replaced.
    """
    output = Path(job.output)
    if not os.path.lexists(output):
        return False
    if job.overwrite or ((job.update or may_be_finished) and not output.is_symlink() and _may_be_renewed(output)):
        return True
    why = ", and keyscale did not make it" if job.update else ""
    raise StorageError(
        f"{job.output} already exists{why}", remedy=say("Give {overwrite=True}, or another name with {output}.")
    )


def _may_be_renewed(output: Path) -> bool:
    is_empty = output.is_file() and not output.stat().st_size
    return is_empty or read_stamp(output) is not None


def check_source(prepared: Prepared) -> None:
    """Raise an `InputError` where the source is no longer the file that was planned."""
    if _stat(prepared.job) != prepared.source_stat:
        raise InputError(
            f"{prepared.job.source} was changed during the job; nothing was published",
            remedy="Run the command again once the file is complete.",
        )


def _stat(job: Job) -> tuple[int, int]:
    try:
        info = Path(job.source).stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {job.source}: {reason}", remedy=advice_on(job.source, VIDEO_SUFFIXES)) from error
    return info.st_size, info.st_mtime_ns


def _check_folder(output: Path, plan: Plan, *, remote: bool) -> None:
    """Rights and space of the output's folder, and the encoder, by opening it there once."""
    folder = output.parent
    if not folder.is_dir():
        raise StorageError(f"the folder {folder} does not exist", remedy=say("Create it, or choose another {output}."))
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise storage_error(error, folder) from error
    # The chunks and the joined file stand beside each other for a moment.
    needed = 2 * plan.estimate.output_bytes
    if free < needed:
        raise StorageError(
            f"{folder} has {free / 2**20:.0f} MiB free, the job needs about {needed / 2**20:.0f} MiB",
            remedy=say("Free some space, or choose another {output}."),
        )
    if work_folder_of(output).is_symlink():
        raise StorageError(f"{work_folder_of(output)} is a symbolic link", remedy="Remove it; keyscale works there.")
    if remote and plan.encoder.encoder.endswith("_nvenc"):
        return  # it need not be here
    try:
        # A folder of its own, since another process may hold the work folder's lock.
        with private_folder(folder) as private:
            check_encoder(
                plan.encoder,
                plan.colour,
                (plan.job.target.width, plan.job.target.height),
                plan.rate,
                private,
                plan.job.compute.device,
            )
    except OSError as error:
        raise storage_error(error, folder) from error
