"""Clips of a watched folder that failed by the machine's fault are tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event as StopFlag

import pytest
from support.clips import make_clip
from support.numbered import small_job

from keyscale.engine.batch.clip import BatchClip
from keyscale.engine.batch.events import BatchDone, BatchEvent, ClipEvent
from keyscale.engine.batch.retries import Again
from keyscale.engine.batch.supervisor import BatchOptions, run_batch
from keyscale.engine.errors import InputError, KeyscaleError, RemoteError, StorageError
from keyscale.engine.events import Done, Failed, Note, failure

FULL = failure(StorageError("no space"))


def clip(name: str = "a.mp4") -> BatchClip:
    return BatchClip(name=name, video=name, keyframes=None, output=f"out/{name}", job=small_job(Path(name), Path("x")))


def test_it_takes_twice_as_long_each_time_and_an_hour_at_most() -> None:
    again, now, waits = Again(), 0.0, []
    for _ in range(9):
        wait = again.failed(clip(), FULL, now)
        assert wait is not None
        waits.append(wait)
        assert again.due(now + wait - 0.1, []) == []
        now += wait
        assert again.due(now, []) == [clip()]
        assert again.due(now + 9999, []) == []  # it is being tried
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


@pytest.mark.parametrize(
    ("error", "tried"),
    [
        (StorageError("no space"), True),
        (MemoryError(), True),
        (RemoteError("gone"), True),
        (InputError("damaged"), False),
        (KeyscaleError("broken"), False),
    ],
)
def test_what_is_wrong_with_the_clip_itself_is_not_tried_again(error: BaseException, tried: bool) -> None:
    assert (Again().failed(clip(), failure(error), 0) is not None) is tried


def test_a_clip_that_changed_or_succeeded_meanwhile_is_not_tried_twice() -> None:
    again = Again()
    for name in "abc":
        again.failed(clip(name), FULL, 0)
    again.succeeded(clip("b"))
    assert again.due(60, besides=[clip("a")]) == [clip("c")]
    assert again.due(9999, []) == []
    # It begins anew.
    assert again.failed(clip("a"), FULL, 0) == 60


@pytest.mark.processes
def test_a_watched_clip_is_made_once_what_was_in_its_way_is_gone(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", frames=6, rate=24)
    output = tmp_path / "out" / "a.mp4"
    output.parent.mkdir()
    output.write_text("somebody's own file")
    job = replace(small_job(source, output), update=True)
    clips = [BatchClip(name="a.mp4", video=str(source), keyframes=None, output=str(output), job=job)]
    stop = StopFlag()

    def more() -> Sequence[BatchClip]:
        taken, clips[:] = list(clips), []
        return taken

    told: list[BatchEvent] = []
    for event in run_batch([], BatchOptions(jobs=1, device="cpu", again_s=0.2), stop, more=more):
        told.append(event)
        match event:
            case ClipEvent(of=Failed()):
                output.unlink(missing_ok=True)
            case ClipEvent(of=Done()):
                stop.set()
    ends = [event.of for event in told if isinstance(event, ClipEvent) and isinstance(event.of, Done | Failed)]
    assert [type(end) for end in ends] == [Failed, Done]
    notes = [event.of.message for event in told if isinstance(event, ClipEvent) and isinstance(event.of, Note)]
    assert any("tried again" in note for note in notes)
    [last] = [event for event in told if isinstance(event, BatchDone)]
    assert (last.report.done, last.report.failed) == (1, 0)
