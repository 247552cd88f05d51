"""Samples of a job: stretches of its result, each a file of its own, with the very frames of the whole."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event as StopFlag

from keyscale.engine.camera.keyframes import STANDARD_INPUT
from keyscale.engine.errors import UsageError
from keyscale.engine.events import Done, Event, Note
from keyscale.engine.job import CHECKPOINT_SUFFIXES, Job
from keyscale.engine.plan.sample import sample_of, telling_stretches
from keyscale.engine.quantities import Samples
from keyscale.engine.runners.local import LocalRun
from keyscale.engine.runners.prepare import Look, Prepared, prepare, prepare_still
from keyscale.engine.runners.shared import Shared
from keyscale.engine.source.probe import probe
from keyscale.engine.wording import say
from keyscale.engine.workspace.folder import WorkFolder

__all__ = ["prepare_for_models", "prepare_samples", "run_samples"]


def prepare_samples(job: Job, asked: Samples, *, look: Look = probe) -> list[Prepared]:
    """Each sample planned, with all checks that can be made before long work.

    Raises:
        KeyscaleError: of the kind that fails.
    """
    if job.keyframes == STANDARD_INPUT:
        raise UsageError(
            say("is standard input, and {sample=} reads the camera for each sample", "3x2"),
            option="keyframes",
            remedy="Give the path of a keyframes file.",
        )
    whole = prepare_still(job, look=look).plan
    parts = telling_stretches(whole, asked.count, asked.seconds)
    output = Path(job.output)
    found = []
    for number, (begin, end) in enumerate(parts, 1):
        name = "sample" if asked.count == 1 else f"sample-{number}"
        own = replace(job, output=str(output.with_name(f"{output.stem}.{name}{output.suffix}")))
        checked = prepare(own, look=lambda *_, **__: whole.info)
        found.append(replace(checked, plan=sample_of(checked.plan, begin, end, own.output)))
    return found


def prepare_for_models(
    job: Job, names: Sequence[str], asked: Samples, *, look: Look = probe
) -> tuple[list[str], list[list[Prepared]]]:
    """The same samples by several networks, all of the size that the first one's would have.

    Returns:
        How each network is called in the names of its samples, and its samples planned.

    Raises:
        KeyscaleError: as of `prepare_samples`; or a network is named twice.
    """
    labels = [Path(name).stem if Path(name).suffix.lower() in CHECKPOINT_SUFFIXES else name for name in names]
    if len({label.lower() for label in labels}) < len(labels):
        raise UsageError(f"names one network twice: {', '.join(names)}", option="model", remedy="Name each once.")
    output = Path(job.output)
    found: list[list[Prepared]] = []
    for name, label in zip(names, labels, strict=True):
        own = replace(
            job,
            output=str(output.with_name(f"{output.stem}.{label}{output.suffix}")),
            model=replace(job.model, name=name),
        )
        if found:
            own, info = replace(own, target=found[0][0].job.target), found[0][0].plan.info
            found.append(prepare_samples(own, asked, look=lambda *_, info=info, **__: info))
        else:
            found.append(prepare_samples(own, asked, look=look))
    return labels, found


def run_samples(samples: Sequence[Prepared], stop: StopFlag) -> Generator[Event, None, None]:
    """Make them one after another, as of `Run.events`; the last event is `Done` of the last one."""
    shared, told = Shared(), set[str]()
    for number, prepared in enumerate(samples, 1):
        for event in _SampleRun(prepared, stop, shared).events():
            if isinstance(event, Done) and number < len(samples):
                yield Note(level="info", message=f"sample {number} of {len(samples)}: {event.output}")
            elif not (isinstance(event, Note) and event.message in told):
                yield event
        told.update(prepared.plan.warnings)


class _SampleRun(LocalRun):
    """A short job tells nothing of how long others take."""

    def _remember_making(self) -> None:
        pass

    def note_finished(self, folder: WorkFolder) -> None:
        pass
