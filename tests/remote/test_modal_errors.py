"""What Modal's exceptions mean, and which proxy stands before Modal: in words, with what to do."""

from __future__ import annotations

import socket
import time

import modal
import modal.exception
import pytest

from keyscale.engine.errors import InputError, Interrupted, RemoteError, StorageError
from keyscale.engine.remote.modal_client import Calls
from keyscale.engine.remote.modal_errors import CallEnd, Unanswered, judged, told_by
from keyscale.engine.storage.proxies import proxy_for

SPENT = "Function call failed: workspace billing cycle spend limit reached"
"""Modal's own sentence, of modal-labs/modal-client issue 3397."""


def refusal(error: Exception, **more: bool) -> RemoteError:
    with pytest.raises(RemoteError) as caught, told_by(modal, "start a chunk", **more):
        raise error
    return caught.value


@pytest.mark.parametrize(
    "kind", ["ResourceExhaustedError", "ConflictError", "PermissionDeniedError", "InvalidError", "ServiceError"]
)
@pytest.mark.parametrize("text", [SPENT, "the budget of the environment main is used up", "add a payment method"])
def test_a_refusal_for_the_bill_is_told_as_such(kind: str, text: str) -> None:
    found = refusal(getattr(modal.exception, kind)(text))
    assert text in found.message
    assert found.remedy == "Look at the workspace's billing and its budget, on modal.com under Settings."
    assert not isinstance(found, Unanswered)


@pytest.mark.parametrize(
    ("kinds", "end"),
    [
        (("ConflictError", "PermissionDeniedError", "InvalidError", "UnimplementedError", "AuthError"), CallEnd.FAILED),
        (("NotFoundError", "DataLossError"), CallEnd.GONE),
    ],
)
def test_a_refusal_to_tell_of_a_call_is_no_end_of_it_whatever_its_status(kinds: tuple[str, ...], end: CallEnd) -> None:
    outcomes = [judged(modal, getattr(modal.exception, kind)("m")) for kind in kinds]
    assert [(found.kind, found.ended) for found in outcomes if found is not None] == [(end, False)] * len(kinds)


@pytest.mark.parametrize("text", ["no such function", "the accredited name was not found", "funds.py is missing"])
def test_other_refusals_are_not_blamed_on_the_bill(text: str) -> None:
    assert refusal(modal.exception.InvalidError(text)).remedy == "Run `keyscale remote deploy`."


@pytest.mark.parametrize("kind", ["ResourceExhaustedError", "ConflictError", "RemoteError"])
def test_a_call_that_ends_for_the_bill_is_told_as_such_and_not_started_again(kind: str) -> None:
    outcome = judged(modal, getattr(modal.exception, kind)(SPENT))
    assert outcome is not None
    assert outcome.kind is CallEnd.FAILED
    assert outcome.error is not None
    assert SPENT in outcome.error.message
    assert "billing" in str(outcome.error.remedy)


def test_nothing_advises_to_resume_a_job_that_has_not_begun() -> None:
    gone = modal.exception.ConnectionError("no route")
    assert "resume" in str(refusal(gone).remedy)
    assert refusal(gone, has_begun=False).remedy == "Check the network, then run the command again."


@pytest.mark.parametrize(
    "raised",
    [
        InputError("see https://x.example/a?X-Amz-Signature=1 there"),
        Interrupted("x" * 5_000_000),
        InputError(""),
        ValueError("https://x.example/a?X-Amz-Signature=1\nmore"),
    ],
)
def test_what_a_function_raised_is_told_in_one_short_line_without_links(raised: Exception) -> None:
    outcome = judged(modal, raised)
    assert outcome is not None
    assert outcome.kind is CallEnd.CRASHED
    assert type(outcome.error) is RemoteError
    assert 0 < len(outcome.error.message) < 400
    assert "X-Amz" not in outcome.error.message


def test_a_disk_without_room_for_temporary_files_is_told_as_such_and_ends_no_call() -> None:
    lacking = FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
    with pytest.raises(StorageError, match="No usable temporary directory") as caught, told_by(modal, "start a chunk"):
        raise lacking
    assert "TMPDIR" in str(caught.value.remedy)
    outcome = judged(modal, lacking)
    assert outcome is not None
    assert not outcome.ended
    assert outcome.kind is CallEnd.GONE


class Asked:
    """A call of `describe` that fails so."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def get(self, timeout: float) -> None:  # noqa: ARG002 - as Modal's
        raise self.error

    def cancel(self) -> None:
        pass


@pytest.mark.parametrize("error", [Interrupted("m"), ValueError("m"), modal.exception.InputCancellation("m")], ids=type)
def test_a_deployed_function_that_fails_to_tell_what_it_is_is_a_fault_of_its_own(error: BaseException) -> None:
    with pytest.raises(RemoteError, match="'describe'") as caught:
        Calls()._first_answer(Asked(error))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("raised", [TimeoutError(), OSError("no space"), TimeoutError("the read timed out")])
def test_a_timeout_of_the_functions_own_is_not_taken_for_an_answer_that_is_still_to_come(
    monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    asked: list[str] = []

    class Call:
        def get(self, timeout: float) -> None:  # noqa: ARG002 - as Modal's
            asked.append("get")
            raise raised

        def cancel(self) -> None:
            asked.append("cancel")

    monkeypatch.setattr("modal.FunctionCall.from_id", lambda _: Call())
    monkeypatch.setattr("keyscale.engine.remote.modal_client.ASK_PAUSE_S", 0.0)
    outcome = Calls().wait("fc-1")
    assert (outcome.kind, outcome.ended) == (CallEnd.GONE, True)
    assert asked == ["get"] * 3 + ["cancel"]


# Proxies


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "url", "named"),
    [
        ({"HTTPS_PROXY": "http://u:pw@proxy:3128"}, "https://api.modal.com", "proxy:3128 that HTTPS_PROXY names"),
        ({"https_proxy": "proxy:3128"}, "https://api.modal.com", "proxy:3128 that https_proxy names"),
        ({"ALL_PROXY": "socks5://proxy"}, "https://api.modal.com", "proxy:1080 that ALL_PROXY names"),
        ({"ALL_PROXY": "a:1", "HTTP_PROXY": "b:2"}, "http://x", "b:2 that HTTP_PROXY names"),
        ({"ALL_PROXY": "http://[::1"}, "http://x", "a proxy"),
        ({"HTTP_PROXY": "proxy:3128"}, "https://api.modal.com", None),
        ({"ALL_PROXY": "proxy:3128", "NO_PROXY": "modal.com"}, "https://api.modal.com", None),
        ({"ALL_PROXY": ""}, "https://api.modal.com", None),
    ],
)
def test_the_proxy_of_an_address_is_told_by_what_names_it(
    no_proxy: pytest.MonkeyPatch, variables: dict[str, str], url: str, named: str | None
) -> None:
    for name, value in variables.items():
        no_proxy.setenv(name, value)
    found = proxy_for(url, or_all=True)
    assert (None if found is None else str(found)) == (named if named in {None, "a proxy"} else f"the proxy {named}")


def test_all_proxy_does_not_count_for_storage(no_proxy: pytest.MonkeyPatch) -> None:
    no_proxy.setenv("ALL_PROXY", "http://proxy:1")
    assert proxy_for("https://x", or_all=False) is None


@pytest.mark.loopback
@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTP_PROXY", "https_proxy"])
def test_a_dead_proxy_is_named_at_once(no_proxy: pytest.MonkeyPatch, variable: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    server = "https://api.example" if variable == "https_proxy" else "http://api.example"
    no_proxy.setenv(variable, f"http://me:secret@127.0.0.1:{port}")
    no_proxy.setattr("keyscale.engine.remote.modal_client.importlib.util.find_spec", lambda _: object())
    no_proxy.setattr("modal.config.config", {"server_url": server})
    began = time.monotonic()
    with pytest.raises(RemoteError) as caught:
        Calls().check_reachable()
    assert time.monotonic() - began < 6
    assert f"the proxy 127.0.0.1:{port} that {variable} names" in caught.value.message
    assert caught.value.remedy == f"Correct or unset {variable}, or name api.example in NO_PROXY."


def test_a_package_that_a_proxy_needs_is_named(no_proxy: pytest.MonkeyPatch) -> None:
    no_proxy.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    no_proxy.setattr("keyscale.engine.remote.modal_client.importlib.util.find_spec", lambda _: None)
    no_proxy.setattr("modal.config.config", {"server_url": "https://api.example"})
    with pytest.raises(RemoteError, match="python-socks, which is not installed") as caught:
        Calls().check_reachable()
    assert "modal[api-proxy-support]" in str(caught.value.remedy)
    assert "ALL_PROXY" in str(caught.value.remedy)
