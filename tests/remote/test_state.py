"""What a client keeps of a remote job, while another command ends that job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from keyscale.engine.remote.state import Call, RemoteState, drop_state

FIRST, SECOND = (Call(id=f"fc-{number}", index=number, start=0, end=1) for number in range(2))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteState:
    monkeypatch.setenv("KEYSCALE_STATE_DIR", str(tmp_path / "state"))
    return RemoteState(
        job_id="job-1", endpoint="e", bucket="b", key="k", task_json="{}", source_key="s", calls=(FIRST,)
    )


def test_a_state_that_was_dropped_is_not_written_again(state: RemoteState, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state.save(path)
    assert state.save_again(path)
    assert drop_state(path, "job-1", ended=["fc-0"])
    assert not state.save_again(path)
    assert not list(tmp_path.rglob("*.state")) + list(tmp_path.glob("*.json"))


def test_a_state_that_knows_of_a_call_which_was_not_cancelled_stays(state: RemoteState, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state.save(path)
    later = replace(state, calls=(SECOND,))
    assert later.save_again(path)
    assert not drop_state(path, "job-1", ended=["fc-0"])
    assert RemoteState.read(path) == later
    assert drop_state(path, "job-1", ended=["fc-0", "fc-1"])


def test_the_state_of_another_job_in_the_same_folder_stays(state: RemoteState, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state.save(path)
    assert drop_state(path, "job-2")
    assert RemoteState.read(path) == state
