"""A plan as JSON for programs and as rows for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from keyscale.engine.forms import Look
from keyscale.engine.job import Precision
from keyscale.engine.models.execution import CLOSE

if TYPE_CHECKING:
    from keyscale.engine.models.registry import ModelSpec
    from keyscale.engine.plan.plan import Plan

__all__ = ["RemoteEstimate", "RemoteSplit", "plan_to_json", "settings_in_words", "summarise"]

PLAN_VERSION = 1
SHOWN = 5
"""Other ways to split a remote job that a table has."""


@dataclass(frozen=True, kw_only=True)
class RemoteSplit:
    """One way to spread a job's chunks over containers, and what it is expected to take."""

    gpu: str
    """As Modal names it; `none` on CPUs."""
    cores: int
    containers: int
    encoder: str
    minutes: float
    """Until the last chunk is made, upload and download not counted."""
    dollars: float
    """All that is paid: see `RemoteEstimate.parts`."""
    measured: bool
    """Whether the speed rests on the user's own jobs on this GPU."""


@dataclass(frozen=True, kw_only=True)
class RemoteEstimate:
    """What a job is expected to take: the split that was chosen, and others."""

    chosen: RemoteSplit
    why: str
    """It was chosen, in a sentence's words."""
    alternatives: tuple[RemoteSplit, ...]
    """Cheapest first."""
    chunks: int
    most: int
    """Containers that run at once at most: as many as were chosen, or, where time is not bounded, as there may be; a
    chunk that takes too long is made in parts."""
    parts: dict[str, float]
    """Dollars for `work`, `start`, `idle`, `asking` (the container that tells what is deployed) and `storage`; their
    sum is `chosen.dollars`."""
    call_seconds: float
    """Of a chunk in a container that runs, beside its frames."""
    frame_seconds: float
    start_seconds: float
    """Until a container that was not running begins its first chunk."""

    @property
    def dollars(self) -> float:
        """All that is paid."""
        return self.chosen.dollars


def plan_to_json(plan: Plan, remote: RemoteEstimate | None = None) -> str:
    """One JSON object: job, source, model, chunks, warnings, estimate, and every output frame.

    `frames` holds, for output frame n: `n`, the source `pts` (in `source.time_base`) and `time` (seconds of the
    source's own timeline) it shows, and `rect`: x, y, width, height in displayed source pixels. `remote` is null for a
    job on this machine.
    """
    info, model, estimate = plan.info, plan.model, plan.estimate
    times = info.times()[plan.source_index].round(9).tolist()
    pts = info.pts[plan.source_index].tolist()
    rects = plan.rects.round(6).tolist()
    document: dict[str, Any] = {
        "version": PLAN_VERSION,
        "source": {
            "path": info.path,
            "width": info.width,
            "height": info.height,
            "rate": _fraction(info.rate),
            "variable_rate": info.variable_rate,
            "frames": len(info.pts),
            "duration": float(info.duration),
            "time_base": _fraction(info.time_base),
            "codec": info.codec,
            "pixel_format": info.pixel_format,
            "bit_depth": info.bit_depth,
            "colour": info.colour.describe(),
            "field_order": info.field_order,
            "measured_by": info.measured_by,
            "header": {
                "frames": info.header.frames,
                "duration": info.header.duration,
                "average_rate": _fraction(info.header.average_rate) if info.header.average_rate else None,
            },
        },
        "target": {
            "path": plan.job.output,
            "width": plan.job.target.width,
            "height": plan.job.target.height,
            "fit": plan.job.target.fit.value,
            "rate": _fraction(plan.rate),
            "frames": plan.frames,
            "duration": float(plan.duration),
            "container": plan.container,
            "encoder": plan.encoder.encoder,
            "pixel_format": plan.encoder.pixel_format,
            "bit_depth": plan.encoder.bit_depth,
            "colour": plan.colour.describe(),
            "dynamic_range": "keep" if plan.tone is None else "sdr",
            "crf": plan.encoder.crf,
            "preset": plan.encoder.preset,
        },
        "camera": _camera_json(plan),
        "model": {
            "name": model.name,
            "scale": model.scale,
            "halo": model.halo,
            "macs_per_pixel": model.macs_per_pixel,
            "licence": model.licence,
            "look": model.look,
            "strength": plan.strength,
        }
        if model
        else None,
        "steady": "auto" if plan.job.calm.steady is None else plan.job.calm.steady,
        "scale": plan.scale,
        "ratio": plan.ratio,
        "device": plan.job.compute.device,
        "executions": [
            {"device": each.device, "runtime": each.runtime, "precision": each.precision} for each in plan.executions
        ],
        "segments": [{"start": s.start, "end": s.end, "speed": s.speed} for s in plan.time_map.stretches],
        "tracks": [
            {"index": t.index, "kind": t.kind, "action": t.action, "codec": t.codec, "reason": t.reason}
            for t in plan.tracks
        ],
        "chunks": [{"index": c.index, "start": c.start, "end": c.end} for c in plan.chunks],
        "warnings": [str(warning) for warning in plan.warnings],
        "estimate": {
            "inferred_frames": estimate.inferred_frames,
            "macs": estimate.macs,
            "seconds": estimate.seconds,
            "device": estimate.device,
            "measured": estimate.measured,
            "making_seconds": estimate.making_seconds,
            "checking_seconds": estimate.checking_seconds,
            "job_seconds": estimate.job_seconds,
            "all_measured": estimate.all_measured,
            "output_bytes": estimate.output_bytes,
            "likely_bytes": estimate.likely_bytes,
        },
        "remote": {
            "chunks": remote.chunks,
            **msgspec.to_builtins(remote.chosen),
            "parts": remote.parts,
            "why": remote.why,
            "alternatives": msgspec.to_builtins(remote.alternatives),
        }
        if remote
        else None,
        "frames": [
            {"n": n, "pts": p, "time": t, "rect": r} for n, (p, t, r) in enumerate(zip(pts, times, rects, strict=True))
        ],
    }
    return msgspec.json.encode(document).decode()


def summarise(plan: Plan, remote: RemoteEstimate | None = None) -> list[tuple[str, str]]:
    """Label and value rows, for a short table; `remote` where the job's chunks are made remotely."""
    info, model, estimate = plan.info, plan.model, plan.estimate
    shown = len(set(plan.source_index.tolist()))
    kind = "variable rate, about " if info.variable_rate else ""
    rows = [
        (
            "Source",
            f"{info.path}: {info.width}x{info.height}, {kind}{float(info.rate):.6g} fps, "
            f"{float(info.duration):.3f} s, {len(info.pts)} frames, {info.codec}, {info.bit_depth} bit, "
            f"{info.colour.describe()}",
        ),
        ("Keyframes", _keyframes_row(plan)),
        ("Camera", f"{_seen(plan)}; {shown} source frames shown, largest enlargement {plan.ratio:.3f}"),
        (
            "Target",
            f"{plan.job.output}: {plan.job.target.width}x{plan.job.target.height}, {float(plan.rate):.6g} fps, "
            f"{float(plan.duration):.3f} s, {plan.frames} frames, {plan.job.target.fit.value}",
        ),
        ("Model", _model_row(plan, model) if model else "none: sampling only (Lanczos)"),
        *([("Runs in", _runs_in(plan))] if plan.executions and not remote else []),
        *([("Steady", _steady_row(plan.job.calm.steady))] if plan.job.calm.steady != 0 else []),
        ("Encoder", _encoder_row(plan)),
        ("Chunks", f"{len(plan.chunks)} of about {float(plan.chunks[0].frames / plan.rate):.1f} s"),
    ]
    sound = [f"{t.codec} {t.action}" for t in plan.tracks if t.kind == "audio" and t.action != "drop"]
    rows.append(("Sound", ", ".join(sound) or "none"))
    rows += [
        ("Left out", f"{t.kind} stream {t.index}{f' ({t.codec})' if t.codec else ''}: {t.reason}")
        for t in plan.tracks
        if t.action == "drop"
    ]
    if remote is not None:
        rows += _remote_rows(remote)
    elif estimate.job_seconds is not None:
        rows.append(("Estimate", _estimate_row(plan, estimate.job_seconds)))
    rows.append(("Size", f"about {_bytes(estimate.likely_bytes)}, at most {_bytes(estimate.output_bytes)}"))
    return rows


def _model_row(plan: Plan, model: ModelSpec) -> str:
    name, found = f"{model.name}, x{model.scale}{settings_in_words(plan)}", model.findings
    if found is None:
        return name
    context = f"{found.halo} pixels of context" + (f", {found.beyond:.1f} codes from beyond" if found.beyond else "")
    size = f", pictures of {found.size[0]}x{found.size[1]}" if found.size else ""
    return f"{name}; found by trial: {context}{size}; licence {model.licence}"


def _remote_rows(remote: RemoteEstimate) -> list[tuple[str, str]]:
    chosen = remote.chosen
    basis = "speeds of your own jobs" if chosen.measured else "speeds from data sheets, not measured"
    cost = f"${chosen.dollars:.2f} at list prices"
    parts = ", ".join(f"{name} ${dollars:.3f}" for name, dollars in remote.parts.items())
    return [
        ("Remote", f"{_count(remote.chunks, 'chunk')} in up to {_split(chosen)}: {remote.why}"),
        (
            "Estimate",
            f"{chosen.minutes:.1f} minutes until the last chunk, {cost} ({parts}); {basis}",
        ),
        *(
            (
                "Or",
                f"{_split(other)}, {other.encoder}: {other.minutes:.1f} minutes, ${other.dollars:.2f}"
                f"{'' if other.measured else ', not measured'}",
            )
            for other in remote.alternatives[:SHOWN]
        ),
    ]


def _split(split: RemoteSplit) -> str:
    where = "CPUs" if split.gpu == "none" else f"{split.gpu} GPUs"
    return f"{_count(split.containers, 'container')} with {where} and {split.cores} cores each"


def settings_in_words(plan: Plan) -> str:
    """What was asked for of the network's look and strength, to stand behind its name."""
    words, model = "", plan.model
    if model is not None and model.look is not None and plan.job.model.look is not None:
        look = Look().written(model.look)
        words += f", look {look if isinstance(look, str) else format(look, 'g')}"
    return f"{words}, strength {plan.strength:g}" if plan.strength < 1 else words


def _steady_row(strength: float | None) -> str:
    how = "as much as there is noise" if strength is None else f"strength {strength:g}"
    return f"{how}, over neighbouring frames"


def _runs_in(plan: Plan) -> str:
    ways = " or ".join(map(str, plan.executions))
    loses = {"bf16", "fp16"} & {way.precision for way in plan.executions if way.kind == "cpu"}
    if plan.job.compute.precision is Precision.AUTO and loses:
        ways += f" (fp32 should {loses.pop()} be less than {CLOSE:.0f} dB from it on the golden tile)"
    return ways


def _keyframes_row(plan: Plan) -> str:
    """What was recognised, how many keyframes, and when they stand beside what of the source is used."""
    if plan.framing.is_whole:
        return "none: the camera is the whole picture"
    count, (first, last) = len(plan.framing.keyframes), plan.framing.span
    when = f"at {first:.3f} s" if first == last else f"from {first:.3f} to {last:.3f} s"
    used = f"{plan.time_map.start:.3f} to {plan.time_map.end:.3f} s of the video are used"
    return f"{plan.framing.form or 'a Framing'}: {_count(count, 'keyframe')} {when}; {used}"


def _seen(plan: Plan) -> str:
    """Size and place of what the camera sees, and which part of the frame that is."""
    (x0, y0, w0, h0), (x1, y1, w1, h1) = plan.rects.min(axis=0), plan.rects.max(axis=0)
    size = f"{w0:.0f}x{h0:.0f}" if max(w1 - w0, h1 - h0) < 1 else f"{w0:.0f}x{h0:.0f} to {w1:.0f}x{h1:.0f}"
    across = f"x {x0:.0f}" if x1 - x0 < 1 else f"x {x0:.0f} to {x1:.0f}"
    down = f"y {y0:.0f}" if y1 - y0 < 1 else f"y {y0:.0f} to {y1:.0f}"
    areas = plan.rects[:, 2] * plan.rects[:, 3] / (plan.info.width * plan.info.height)
    low, high = f"{areas.min():.0%}", f"{areas.max():.0%}"
    part = low if low == high else f"{low} to {high}"
    return f"sees {size} pixels at {across}, {down}: {part} of the frame"


def _camera_json(plan: Plan) -> dict[str, Any]:
    first, last = plan.framing.span
    areas = plan.rects[:, 2] * plan.rects[:, 3] / (plan.info.width * plan.info.height)
    return {
        "form": None if plan.framing.is_whole else plan.framing.form,
        "keyframes": 0 if plan.framing.is_whole else len(plan.framing.keyframes),
        "first": None if plan.framing.is_whole else first,
        "last": None if plan.framing.is_whole else last,
        "used": {"start": plan.time_map.start, "end": plan.time_map.end},
        "part_of_frame": {"least": float(areas.min()), "most": float(areas.max())},
    }


def _estimate_row(plan: Plan, seconds: float) -> str:
    estimate = plan.estimate
    basis = "not measured here yet"
    if estimate.all_measured:
        basis = "measured here"
    elif estimate.measured:
        basis = "of these the network was measured here"
    making, checking = _clock(estimate.making_seconds), _clock(estimate.checking_seconds)
    parts = [f"sampling and encoding {making}", f"checking {checking}"]
    if plan.model is not None and estimate.seconds is not None:
        parts[0] += " more"
        parts.insert(0, f"network {_clock(estimate.seconds)}")
    row = f"{_clock(seconds)} on {estimate.device}: {', '.join(parts)} ({basis})"
    if plan.model is None:
        return row
    return f"{row}; {_count(estimate.inferred_frames, 'frame')} through the network, {_macs(estimate.macs)}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(0.1, count / 1e6):.{0 if count >= 1e7 else 1}f} MB"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _macs(count: int) -> str:
    return f"{count / 1e12:.1f} T MAC" if count >= 1e11 else f"{count / 1e9:.2g} G MAC"


def _encoder_row(plan: Plan) -> str:
    encoder = plan.encoder
    words = [encoder.encoder, f"{encoder.bit_depth} bit"]
    if plan.tone is not None:
        words.append(f"{str(plan.info.colour.hdr).upper()} mapped to SDR (BT.709), peak {plan.tone.peak:g} cd/m2")
    if encoder.crf is not None:
        words.append(f"CRF {encoder.crf}")
    if encoder.preset is not None:
        words.append(f"preset {encoder.preset}")
    return ", ".join(words)


def _fraction(value: Any) -> str:
    return f"{value.numerator}/{value.denominator}"


def _clock(seconds: float) -> str:
    whole = max(1, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
