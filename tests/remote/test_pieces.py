"""Which parts of a job wait, run, are tried again, split or taken over: without a clock and without a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keyscale.engine.errors import DecodeError, InputError, KeyscaleError, RemoteError
from keyscale.engine.plan.plan import Chunk
from keyscale.engine.remote.modal_errors import CallEnd, Outcome
from keyscale.engine.remote.pieces import ATTEMPTS, SLOW_CALLS, Piece, Pieces, refused
from keyscale.engine.worker.contract import Made

A, B = Chunk(0, 0, 60), Chunk(1, 60, 100)
HERE = Path("chunk")


def crashed(text: str = "a container failed") -> Outcome:
    return Outcome(kind=CallEnd.CRASHED, error=RemoteError(text, remedy="Look at the logs."))


TIMEOUT = Outcome(kind=CallEnd.TIMEOUT, error=RemoteError("a chunk took longer than the function may"))
"""As Modal ends a call, which says nothing of frames then."""
GONE = Outcome(kind=CallEnd.GONE, error=RemoteError("the result of a call is not kept any more"))


def answered(**content: Any) -> Outcome:
    return Outcome(kind=CallEnd.ANSWERED, answer={"status": "error", "exit_code": 3} | content)


def too_slow(frames: int) -> Outcome:
    """As a call ends by itself that made so many frames in its time."""
    return answered(error="TooSlow", message=f"{frames} frames were made", remedy=None, frames=frames)


def made(part: Chunk) -> Made:
    return Made(
        plan_sha256="p", index=part.index, start=part.start, end=part.end, frames=part.frames, lost=0, inferred=0,
        size=1, sha256="s", seconds=1.0, gpu="cpu", container="c", network="n", bytes_read=1,
    )  # fmt: skip


def start(pieces: Pieces, call_id: str, now: float = 0.0) -> Chunk:
    piece = pieces.take(now)
    assert piece is not None
    pieces.running[call_id] = piece
    return piece.chunk


def waiting(pieces: Pieces) -> list[tuple[int, int]]:
    return [(piece.chunk.start, piece.chunk.end) for piece in pieces.waiting]


def test_pieces_are_started_in_order_and_each_once() -> None:
    pieces = Pieces([A, B], 15)
    assert [start(pieces, "a"), start(pieces, "b")] == [A, B]
    assert pieces.take(1e9) is None
    assert pieces.left


def test_a_job_is_done_when_all_its_chunks_are_there() -> None:
    pieces = Pieces([A, B], 15)
    start(pieces, "a"), start(pieces, "b")
    assert pieces.finished("b", made(B), HERE) == [(made(B), HERE)]
    assert (pieces.left, pieces.frames) == (True, 40)
    assert pieces.finished("a", made(A), HERE) == [(made(A), HERE)]
    assert (pieces.left, pieces.frames) == (False, 100)


def test_reported_frames_count_while_a_call_runs_and_never_beyond_its_piece() -> None:
    pieces = Pieces([A, B], 15)
    start(pieces, "a"), start(pieces, "b")
    pieces.reported(0.0, A.index, A.start, 10)
    pieces.reported(0.0, A.index, A.start, 7)
    pieces.reported(0.0, B.index, B.start, 9999)
    pieces.reported(0.0, 7, 0, 5)
    assert pieces.frames == 10 + 40


def test_a_call_waits_until_it_is_heard_of_and_after_a_silence_longer_than_any_call_works() -> None:
    pieces = Pieces([A, B], 15)
    start(pieces, "a"), start(pieces, "b")
    assert pieces.queued({"a", "b"}, oldest=0.0) == 2
    assert pieces.reported(5.0, A.index, A.start, 0) == "a"
    assert pieces.reported(6.0, A.index, A.start, 10) is None
    assert pieces.queued({"a", "b"}, oldest=0.0) == 1
    assert pieces.queued({"a"}, oldest=6.0) == 0
    assert pieces.queued({"a"}, oldest=6.1) == 1


def test_what_a_failed_call_had_reported_does_not_count_any_more() -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    pieces.reported(0.0, A.index, A.start, 30)
    pieces.failed("a", crashed(), 0.0)
    assert pieces.frames == 0
    start(pieces, "again", 1e9)
    assert pieces.frames == 0


def test_a_crash_is_tried_again_after_pauses_that_double_and_then_given_up() -> None:
    pieces, now, pauses = Pieces([A], 15), 0.0, []
    for _ in range(ATTEMPTS - 1):
        start(pieces, "a", now)
        text = pieces.failed("a", crashed(), now)
        assert text == "frames 0 to 60 (chunk 0) are started again: a container failed"
        (piece,) = pieces.waiting
        assert pieces.take(piece.due - 0.01) is None
        pauses.append(piece.due - now)
        now = piece.due
    assert pauses == [1.0, 2.0, 4.0]
    start(pieces, "a", now)
    with pytest.raises(RemoteError, match=rf"failed {ATTEMPTS} times, the last time so: a container failed") as caught:
        pieces.failed("a", crashed(), now)
    assert caught.value.remedy == "Look at the logs."


def test_a_piece_that_pauses_does_not_hold_up_the_next_one() -> None:
    pieces = Pieces([A, B], 15)
    start(pieces, "a")
    pieces.failed("a", crashed(), 10.0)
    assert start(pieces, "b", 10.0) == B
    assert pieces.take(10.5) is None
    assert start(pieces, "a2", 11.0) == A


def test_a_call_that_is_gone_is_started_again() -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    assert "started again: the result of a call is not kept any more" in str(pieces.failed("a", GONE, 0.0))
    assert waiting(pieces) == [(0, 60)]


def test_a_piece_that_took_too_long_is_made_in_parts_which_make_the_chunk_in_order() -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    text = pieces.failed("a", too_slow(50), 0.0)
    assert text == "frames 0 to 60 (chunk 0) took too long and are made in 2 parts (50 frames were made)"
    first, second = start(pieces, "first"), start(pieces, "second")
    assert (first, second) == (Chunk(0, 0, 30), Chunk(0, 30, 60))
    late, early = Path("late"), Path("early")
    assert pieces.finished("second", made(second), late) is None
    assert pieces.finished("first", made(first), early) == [(made(first), early), (made(second), late)]
    assert not pieces.left


@pytest.mark.parametrize(
    ("frames", "parts"),
    [
        (59, [(0, 30), (30, 60)]),
        (30, [(0, 20), (20, 40), (40, 60)]),
        (1, [(0, 15), (15, 30), (30, 45), (45, 60)]),
    ],
)
def test_parts_are_as_small_as_what_was_made_asks_for_but_not_below_the_shortest(
    frames: int, parts: list[tuple[int, int]]
) -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    pieces.failed("a", too_slow(frames), 0.0)
    assert waiting(pieces) == parts


def test_a_part_that_took_too_long_is_made_in_parts_again() -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    pieces.failed("a", too_slow(50), 0.0)
    start(pieces, "half")
    pieces.failed("half", too_slow(20), 0.0)
    assert sorted(waiting(pieces)) == [(0, 15), (15, 30), (30, 60)]
    while (part := start(pieces, "quarter")).frames > 15:
        pieces.finished("quarter", made(part), HERE)
    assert "are started again" in str(pieces.failed("quarter", too_slow(10), 0.0))


def test_a_piece_too_short_to_split_is_given_up_after_as_many_tries() -> None:
    pieces = Pieces([Chunk(0, 0, 20)], 15)
    for _ in range(ATTEMPTS - 1):
        start(pieces, "a", 1e9)
        pieces.failed("a", too_slow(10), 0.0)
    start(pieces, "a", 1e9)
    with pytest.raises(RemoteError, match="failed 4 times, the last time so: 10 frames were made") as caught:
        pieces.failed("a", too_slow(10), 0.0)
    assert "KEYSCALE_TIMEOUT" in str(caught.value.remedy)


def test_a_chunk_that_never_ends_in_time_has_a_bound_on_its_calls() -> None:
    pieces = Pieces([Chunk(0, 0, 6000)], 15)
    for _ in range(SLOW_CALLS - 1):
        start(pieces, "a", 1e9)
        pieces.failed("a", too_slow(5), 0.0)
    start(pieces, "a", 1e9)
    with pytest.raises(RemoteError, match=rf"{SLOW_CALLS} calls of this chunk took too long") as caught:
        pieces.failed("a", too_slow(5), 0.0)
    assert "KEYSCALE_TIMEOUT" in str(caught.value.remedy)


@pytest.mark.parametrize("stuck", [TIMEOUT, too_slow(0)])
def test_a_piece_of_which_no_frame_is_made_in_all_its_time_is_tried_only_once_more(stuck: Outcome) -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    assert "are started again" in str(pieces.failed("a", stuck, 0.0))
    assert waiting(pieces) == [(0, 60)]
    start(pieces, "a", 1e9)
    with pytest.raises(RemoteError, match=r"\(chunk 0\): no frame was made in all the time of 2 calls") as caught:
        pieces.failed("a", stuck, 0.0)
    assert "KEYSCALE_TIMEOUT" in str(caught.value.remedy)


def test_a_call_that_modal_ended_and_that_had_reported_frames_is_made_in_parts() -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    pieces.reported(0.0, A.index, A.start, 30)
    assert "in 3 parts" in str(pieces.failed("a", TIMEOUT, 0.0))


def test_what_would_fail_again_fails_at_once() -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    refusal = answered(error="DecodeError", message="a frame at 1.0 s is damaged", remedy="Give --keep-going.")
    with pytest.raises(DecodeError, match=r"frames 0 to 60 \(chunk 0\): a frame at 1\.0 s is damaged") as caught:
        pieces.failed("a", refusal, 0.0)
    assert caught.value.remedy == "Give --keep-going."
    assert caught.value.exit_code == 3


def test_a_call_that_modal_refuses_fails_at_once() -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    refused_call = Outcome(kind=CallEnd.FAILED, error=RemoteError("Modal does not accept the token"))
    with pytest.raises(RemoteError, match="does not accept the token"):
        pieces.failed("a", refused_call, 0.0)


def test_an_expired_link_is_tried_again_with_a_new_one() -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    assert "started again" in str(
        pieces.failed("a", answered(error="LinkExpired", message="expired", remedy=None), 0.0)
    )
    assert waiting(pieces) == [(0, 60)]


def test_the_last_failure_is_told_with_the_frames_once() -> None:
    pieces, expired = Pieces([A], 15), answered(error="LinkExpired", message="expired", remedy=None)
    for _ in range(ATTEMPTS - 1):
        start(pieces, "a", 1e9)
        pieces.failed("a", expired, 0.0)
    start(pieces, "a", 1e9)
    with pytest.raises(RemoteError) as caught:
        pieces.failed("a", expired, 0.0)
    assert caught.value.message == "frames 0 to 60 (chunk 0) failed 4 times, the last time so: expired"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("InputError", InputError),
        ("RemoteError", RemoteError),
        ("LinkMissing", RemoteError),
        ("LinkRefused", RemoteError),
        ("LinkChanged", RemoteError),
        ("annotations", RemoteError),
        ("None", RemoteError),
    ],
)
def test_a_refusal_becomes_an_error_of_its_class_and_never_of_anything_else(
    name: str, kind: type[KeyscaleError]
) -> None:
    error = refused({"error": name, "message": "no", "remedy": None}, "chunk 3")
    assert type(error) is kind
    assert error.message == "chunk 3: no"
    assert error.remedy is None


# Calls of an earlier client


def test_a_running_call_of_an_earlier_client_is_taken_over() -> None:
    pieces = Pieces([A, B], 15)
    assert pieces.adopt("old", B)
    assert waiting(pieces) == [(0, 60)]
    assert pieces.finished("old", made(B), HERE) == [(made(B), HERE)]


def test_a_call_for_half_a_chunk_is_taken_over_and_the_other_half_waits() -> None:
    pieces = Pieces([A], 15)
    assert pieces.adopt("old", Chunk(0, 30, 60))
    assert waiting(pieces) == [(0, 30)]
    first = start(pieces, "new")
    assert pieces.finished("new", made(first), HERE) is None
    assert pieces.finished("old", made(Chunk(0, 30, 60)), HERE) is not None


def test_of_two_calls_for_the_same_frames_one_is_taken_over() -> None:
    pieces = Pieces([A], 15)
    assert pieces.adopt("old", A)
    assert not pieces.adopt("older", A)
    assert set(pieces.running) == {"old"}


@pytest.mark.parametrize("part", [Chunk(5, 0, 60), Chunk(0, 30, 90), Chunk(1, 0, 60), Chunk(0, 20, 20)])
def test_a_call_for_frames_that_are_not_wanted_is_left(part: Chunk) -> None:
    pieces = Pieces([A], 15)
    assert not pieces.adopt("old", part)
    assert waiting(pieces) == [(0, 60)]


def test_a_call_that_was_taken_over_is_tried_again_like_any_other() -> None:
    pieces = Pieces([A], 15)
    pieces.adopt("old", A)
    pieces.failed("old", crashed(), 0.0)
    (piece,) = pieces.waiting
    assert isinstance(piece, Piece)
    assert (piece.starts, piece.due) == (1, 1.0)


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        ({"error": ["InputError"], "message": "m"}, RemoteError, "chunk 1: m"),
        ({"error": "Interrupted", "message": "m"}, RemoteError, "chunk 1: m"),
        ({"error": "os", "message": "m"}, RemoteError, "chunk 1: m"),
        ({}, RemoteError, "chunk 1: a container failed and did not say why"),
        ({"error": "InputError", "message": {"a": 1}}, InputError, "chunk 1: a container failed and did not say why"),
        ({"message": "see https://x.example/a?X-Amz-Signature=1 there"}, RemoteError, "chunk 1: see (a link) there"),
        ({"message": "a\nb" * 2_000_000}, RemoteError, None),
        ({"error": "InputError", "message": "m", "said": "odd", "remedy": 5}, InputError, "chunk 1: m"),
    ],
)
def test_whatever_a_container_answers_becomes_an_error_of_its_kind(
    answer: dict[str, object], kind: type[KeyscaleError], told: str | None
) -> None:
    error = refused(answer, "chunk 1")
    assert type(error) is kind
    assert error.exit_code != 130
    assert told is None or error.message == told
    assert len(error.message) < 400


@pytest.mark.parametrize(
    "said",
    [
        [["see https://x.example/a?X-Amz-Signature=1 there"], None],
        [["see ", ["x-amz-signature=1", None], " there"], None],
        [["Leave ", ["device", "x" * 5_000_000], " out"], None],
        [["a" * 5_000_000], None],
    ],
)
def test_sentences_that_name_options_are_shown_without_links_and_in_one_line(said: list[object]) -> None:
    error = refused({"error": "InputError", "message": "m", "said": said}, "chunk 1")
    assert error.message == "chunk 1: m"


@pytest.mark.parametrize("kind", ["TooSlow", "LinkExpired"])
@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({}, "a container failed and did not say why"),
        ({"message": None}, "a container failed and did not say why"),
        ({"message": "see https://x.example/a?X-Amz-Signature=1 there"}, "see (a link) there"),
    ],
)
def test_what_is_tried_again_is_told_without_links_and_never_as_none(
    kind: str, told: dict[str, object], shown: str
) -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    assert pieces.failed("a", answered(error=kind, frames=0, **told), 0.0) == (
        f"frames 0 to 60 (chunk 0) are started again: {shown}"
    )


@pytest.mark.parametrize("kind", [["TooSlow"], {"a": 1}, None, 7])
def test_a_kind_of_error_that_is_no_name_is_a_remote_error(kind: object) -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    with pytest.raises(RemoteError, match=r"frames 0 to 60 \(chunk 0\): m"):
        pieces.failed("a", answered(error=kind, message="m"), 0.0)


@pytest.mark.parametrize("frames", [10**400, -5, "many", [1], True])
def test_a_count_of_frames_that_cannot_be_is_none_or_all(frames: object) -> None:
    pieces = Pieces([A], 15)
    start(pieces, "a")
    pieces.failed("a", answered(error="TooSlow", message="m", frames=frames), 0.0)
    assert sum(end - begin for begin, end in waiting(pieces)) == 60
