"""What is told while all calls of a job wait for a GPU, and when that was too long: without a clock."""

from __future__ import annotations

import pytest

from keyscale.engine.errors import RemoteError
from keyscale.engine.remote.waiting import Waiting
from keyscale.engine.wording import as_argument, worded


def told(waiting: Waiting, queued: int, busy: int, until: int) -> list[tuple[int, str]]:
    """What is said in so many seconds, with the second."""
    found = [(now, waiting.look(queued, busy, float(now))) for now in range(until)]
    return [(now, text) for now, text in found if text is not None]


def test_it_is_told_after_ten_seconds_a_minute_and_every_five_for_which_gpu_calls_wait() -> None:
    found = told(Waiting(["L4", "A10", "T4"], 1800.0), 2, 2, 1000)
    assert [now for now, _ in found] == [10, 60, 300, 600, 900]
    assert (
        found[0][1] == "2 calls wait for a GPU (L4, A10 or T4), for 10 s so far; --max-queue ends the job after 30 min"
    )
    assert "for 15 min so far" in found[-1][1]
    assert worded(found[0][1], as_argument).endswith("; max_queue ends the job after 30 min")


@pytest.mark.parametrize(
    ("gpus", "what"), [((), "a container"), (["H100"], "a GPU (H100)"), (["L4", "T4"], "a GPU (L4 or T4)")]
)
def test_what_is_waited_for_is_named(gpus: list[str], what: str) -> None:
    assert told(Waiting(gpus, 60.0), 1, 1, 11) == [
        (10, f"1 call waits for {what}, for 10 s so far; --max-queue ends the job after 60 s")
    ]


def test_calls_that_wait_beside_others_that_run_are_not_waited_for() -> None:
    waiting = Waiting(["L4"], 30.0)
    assert told(waiting, 3, 4, 1000) == []
    assert told(waiting, 0, 0, 1000) == []


def test_that_a_call_has_begun_is_told_only_where_the_wait_was() -> None:
    waiting = Waiting(["L4"], 1800.0)
    waiting.look(2, 2, 0.0)
    assert waiting.look(1, 2, 9.0) is None
    waiting.look(2, 2, 20.0)
    assert waiting.look(2, 2, 31.0) is not None
    assert waiting.look(1, 2, 45.0) == "calls run, after 25 s"
    assert waiting.look(1, 2, 46.0) is None


def test_a_wait_that_is_too_long_ends_the_job() -> None:
    waiting = Waiting(["L4", "T4"], 240.0)
    told(waiting, 2, 2, 240)
    with pytest.raises(RemoteError, match=r"^2 calls waited 4 min for a GPU \(L4 or T4\), and none came") as caught:
        waiting.look(2, 2, 240.0)
    assert caught.value.exit_code == 5
    assert "--max-queue" in str(caught.value.remedy)
    assert "KEYSCALE_GPU" in str(caught.value.remedy)


def test_a_wait_counts_anew_after_calls_that_ran() -> None:
    waiting = Waiting(["L4"], 100.0)
    waiting.look(1, 1, 0.0)
    waiting.look(0, 1, 90.0)
    assert waiting.look(1, 1, 120.0) is None
    assert waiting.look(1, 1, 219.0) is not None
