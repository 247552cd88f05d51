"""The whole job in one place, between two keys of a bucket: what existing editors call `process_framing_ai`."""

from __future__ import annotations

import json
import logging
import math
import reprlib
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path, PurePosixPath
from threading import Event as StopFlag
from typing import Any

from keyscale.engine.camera.framing import load_framing
from keyscale.engine.choices import Fallback
from keyscale.engine.errors import KeyscaleError, UsageError
from keyscale.engine.events import Done, Event, Phase, Progress
from keyscale.engine.job import Compute, Encoding, Job, Target, Trim, check_job
from keyscale.engine.options import options_of
from keyscale.engine.plan.tracks import container_of, content_type_of
from keyscale.engine.run_options import RemoteOptions
from keyscale.engine.runners.local import run_local
from keyscale.engine.runners.prepare import Prepared, prepare
from keyscale.engine.runners.progress import in_background
from keyscale.engine.storage.bucket import Storage, StorageRefused, StorageSettings, key_fault
from keyscale.engine.wording import as_argument

__all__ = ["FramingRequest", "process"]

SHARES = {
    Phase.FETCH: (0, 10),
    Phase.PREPARE: (10, 12),
    Phase.UPSCALE: (12, 85),
    Phase.JOIN: (85, 88),
    Phase.VERIFY: (88, 92),
    Phase.PUBLISH: (92, 99),
}
"""Part of the whole, in percent, that each phase counts for: by its usual share of the time."""

_ARGUMENTS = {"start": "source_start_time", "end": "source_end_time", "audio": "include_audio"}
"""Options of a job that are called otherwise here."""

FIRST_PATIENCE_S = 10.0
"""How long storage may be out of reach before anything was done: a caller waits for the answer."""

FAN_OUT_S = 60.0
"""Seconds of the result from which a job is spread over other containers: what these take to start is worth it then."""

QUEUE_S = 120.0
"""How long a job that is spread waits for other containers, since its own GPU waits with it: where all of a workspace's
GPUs are taken by such jobs, none would ever come."""

ALIKE = {Phase.CONNECT: Phase.PREPARE, Phase.STAGE: Phase.PREPARE}
"""Phases of a job that is spread -> those of one that is not."""

WORDS = {
    Phase.FETCH: "Downloading the source",
    Phase.PREPARE: "Preparing",
    Phase.UPSCALE: "Upscaling frame {current} of {total}",
    Phase.JOIN: "Putting the video together",
    Phase.VERIFY: "Checking the video",
    Phase.PUBLISH: "Uploading the video",
}


@dataclass(frozen=True, kw_only=True)
class FramingRequest:
    """The arguments of `process_framing_ai`."""

    job_id: str
    user_id: str
    input_key: str
    output_key: str
    keyframes: Sequence[Mapping[str, Any]]
    output_width: int = 810
    output_height: int = 1440
    fps: float = 30
    segment_data: Mapping[str, Any] | None = None
    include_audio: bool = True
    source_start_time: float | None = None
    source_end_time: float | None = None
    rotation: float | None = 0
    fan_out: bool = True
    """Whether a result of `FAN_OUT_S` and more is made by other containers of the deployment, a chunk each."""

    def check(self) -> None:
        """Raise a `UsageError` that names the first argument which is of another kind than it should be.

        Modal hands on what the caller gave, whatever the signature says.
        """
        for name, kind in _KINDS.items():
            value, (kinds, words) = getattr(self, name), kind
            # True and False are numbers to Python, and to nobody else.
            fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
            if not fits or (isinstance(value, Real) and not math.isfinite(value)) or (kind is _WHOLE and value % 1):
                raise UsageError(f"{name} is {reprlib.repr(value)}, it has to be {words}")


_Kind = tuple[tuple[type, ...], str]
_TEXT: _Kind = (str,), "a text"
_WHOLE: _Kind = (Real,), "a whole number"
"""JSON has one kind of number: 810.0 is whole."""
_NUMBER: _Kind = (Real,), "a number"
_SECONDS = (Real, type(None)), "a number of seconds, or None"
_KINDS: dict[str, _Kind] = {
    "job_id": _TEXT,
    "user_id": _TEXT,
    "input_key": _TEXT,
    "output_key": _TEXT,
    "keyframes": ((list, tuple), "a list of keyframes"),
    "output_width": _WHOLE,
    "output_height": _WHOLE,
    "fps": _NUMBER,
    "segment_data": ((Mapping, type(None)), "a dict, or None"),
    "include_audio": ((bool,), "True or False"),
    "source_start_time": _SECONDS,
    "source_end_time": _SECONDS,
    "rotation": ((Real, type(None)), "a number, or None"),
    "fan_out": ((bool,), "True or False"),
}
"""What each argument may be, and what it is called."""


def process(
    request: FramingRequest, environment: Mapping[str, str], *, device: str
) -> Generator[dict[str, Any], None, None]:
    """Read `{user_id}/{input_key}`, do the job, write `{user_id}/{output_key}`.

    Args:
        request: what is asked for.
        environment: holds the `R2_*` variables of `StorageSettings.from_environment`. A job that fans out reads them
            from `os.environ`, where a function's secret puts them.
        device: where the network runs: `cuda` or `cpu`.

    Yields:
        `{"progress": 0..100, "phase", "message", "current", "total"}`, progress never falling; last
        `{"status": "success", "output_key", "frames_processed"}` or `{"status": "error", "error"}`.
    """
    try:
        done = yield from _work(request, environment, device)
    except KeyscaleError as error:
        text = error.message if error.remedy is None else f"{error.message}. {error.remedy}"
        yield {"status": "error", "error": text}
        return
    except Exception as error:
        # Whoever reads this waits for a last item of one of two forms, whatever happened; the log has the rest.
        logging.getLogger(__name__).exception("process_framing_ai failed")
        yield {"status": "error", "error": f"keyscale failed ({type(error).__name__}): see the log of the function"}
        return
    yield {"status": "success", "output_key": request.output_key, "frames_processed": done.frames}


def _work(
    request: FramingRequest, environment: Mapping[str, str], device: str
) -> Generator[dict[str, Any], None, Done]:
    request.check()
    settings = StorageSettings.from_environment(environment)
    source_key, output_key = (_key(request.user_id, key) for key in (request.input_key, request.output_key))
    if why := key_fault(output_key):
        raise UsageError(f"the output_key {output_key!r} {why}", remedy="Give the key of an object, such as out/a.mp4.")
    if source_key == output_key:
        raise UsageError(f"input and output are the same object, {source_key}", remedy="Give another output_key.")
    progress = _Percent()
    with tempfile.TemporaryDirectory(prefix="keyscale-") as folder, Storage(settings) as storage, ExitStack() as stack:
        source = Path(folder) / f"source{PurePosixPath(source_key).suffix}"
        camera, result = Path(folder) / "keyframes.json", f"result{PurePosixPath(output_key).suffix or '.mp4'}"
        words = {str(source): request.input_key, str(camera): "keyframes", f"{folder}/{result}": request.output_key}
        stack.enter_context(_in_the_words_of_the_caller(words))
        # All that can be wrong with the request itself is told before anything is downloaded.
        job = check_job(_job(request, source, camera, Path(folder) / result, device))
        kind = content_type_of(container_of(job.output))
        load_framing(camera)
        with Storage(settings, patience_s=FIRST_PATIENCE_S, timeout_s=FIRST_PATIENCE_S) as first:
            first.head(source_key)
        # Of an earlier call that was killed while it stored its result.
        with suppress(StorageRefused):  # who may write may not be allowed to list
            storage.abort_uploads(output_key)

        def download(report: Callable[[int, int], None]) -> None:
            storage.download(source_key, source, on_progress=report)

        yield from map(progress.told, in_background(Phase.FETCH, download, lambda: False, unit="bytes"))
        prepared = prepare(job)
        done: Done | None = None
        spread = request.fan_out and prepared.plan.duration >= FAN_OUT_S
        with closing(_run_spread(prepared) if spread else run_local(prepared, StopFlag())) as events:
            for event in events:
                if isinstance(event, Progress):
                    yield progress.told(event)
                elif isinstance(event, Done):
                    done = event
        assert done is not None

        def upload(report: Callable[[int, int], None]) -> None:
            storage.publish(Path(job.output), output_key, kind, on_progress=report)

        yield from map(progress.told, in_background(Phase.PUBLISH, upload, lambda: False, unit="bytes"))
        return done


def _run_spread(prepared: Prepared) -> Generator[Event, None, None]:
    """The job with its chunks made by other containers; what cannot be had from them is made here."""
    # Only here: most jobs are short, and a client's machinery is not loaded for them.
    from keyscale.engine.remote.run import run_remote

    options = RemoteOptions(remote=True, fallback=Fallback.LOCAL, max_queue=QUEUE_S)
    return run_remote(prepared, options, StopFlag())


@contextmanager
def _in_the_words_of_the_caller(words: Mapping[str, str]) -> Iterator[None]:
    """Name files of this machine in errors as the caller knows them."""
    try:
        yield
    except KeyscaleError as error:
        error.word(lambda named: as_argument(replace(named, name=_ARGUMENTS.get(named.name, named.name))))
        for here, there in words.items():
            error.message = error.message.replace(here, there)
            error.remedy = error.remedy and error.remedy.replace(here, there)
        raise


def _job(request: FramingRequest, source: Path, keyframes: Path, output: Path, device: str) -> Job:
    camera: dict[str, Any] = {"keyframes": request.keyframes, "rotation": float(request.rotation or 0)}
    if request.segment_data is not None:
        camera["segment_data"] = request.segment_data
    try:
        keyframes.write_text(json.dumps(camera), encoding="utf-8")
    except (TypeError, ValueError) as error:
        raise UsageError(f"keyframes are not plain data ({error})", remedy="Send numbers and texts only.") from error
    return Job(
        source=str(source),
        output=str(output),
        keyframes=str(keyframes),
        # Numbers of other libraries are numbers too, and no plain data.
        target=Target(
            width=int(request.output_width),
            height=int(request.output_height),
            rate=options_of(Job)["fps"].read(str(request.fps)),
        ),
        trim=Trim(start=_plain(request.source_start_time), end=_plain(request.source_end_time)),
        encoding=Encoding(audio=request.include_audio),
        compute=Compute(device=device),
    )


def _plain(seconds: float | None) -> float | None:
    return None if seconds is None else float(seconds)


def _key(user: str, key: str) -> str:
    if not user or "/" in user or ".." in user.split("/") or ".." in key.split("/") or not key.strip("/"):
        raise UsageError(f"{user}/{key} is not a key of a user's folder", remedy="Give a user id and a key below it.")
    return f"{user}/{key.lstrip('/')}"


class _Percent:
    """Progress over all phases, never falling."""

    def __init__(self) -> None:
        self._reached = 0

    def told(self, event: Event) -> dict[str, Any]:
        assert isinstance(event, Progress)
        phase = ALIKE.get(event.phase, event.phase)
        low, high = SHARES.get(phase, (self._reached, self._reached))
        share = event.frame / event.total if event.total else 0.0
        self._reached = max(self._reached, int(low + share * (high - low)))
        words = WORDS.get(phase, str(phase))
        return {
            "progress": self._reached,
            "phase": phase.value,
            "message": words.format(current=event.frame, total=event.total),
            "current": event.frame,
            "total": event.total,
        }
