"""Small files fetched and sent by links, against a real HTTP server that fails as it is told to."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.range_server import SECRET, Fault, RangeServer

from keyscale.engine.errors import RemoteError
from keyscale.engine.worker.links import LinkExpired, LinkMissing, LinkRefused, LinkUnreachable, fetch, is_gone, send
from keyscale.engine.worker.ranged_file import RangedFile

pytestmark = pytest.mark.loopback

CUT = Fault(silent_s=0.01)
"""The connection is closed without a word."""
SHORT = Fault(cut_after=2000)


def told(status: int) -> Fault:
    return Fault(status=status)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with RangeServer() as server:
        yield server


def test_a_file_is_fetched_whole(server: RangeServer) -> None:
    server.content = bytes(range(256)) * 100
    assert fetch(server.url(), name="the plan", most=25_600) == server.content


def test_a_server_that_ends_the_connection_with_its_answer_leaves_nothing_open(server: RangeServer) -> None:
    server.content = b"plan"
    server.always = Fault(headers={"Connection": "close"})
    assert fetch(server.url(), name="the plan", most=10) == b"plan"
    send(server.url(), b"{}", name="the record")
    assert server.content == b"{}"


@pytest.mark.parametrize(("status", "gone"), [(None, False), (404, True), (403, False)])
def test_something_is_gone_only_where_the_server_says_so(server: RangeServer, status: int | None, gone: bool) -> None:
    server.content = bytes(1 << 17)
    if status is not None:
        server.always = told(status)
    assert is_gone(server.url(), name="the plan") is gone
    assert server.requests[0][1]["Range"] == "bytes=0-0"


def test_the_links_path_and_query_arrive_as_they_were_signed(server: RangeServer) -> None:
    server.objects["temp/a%20b"] = b"x"
    fetch(server.url("temp/a%20b"), name="the plan", most=10)
    assert server.requests[0][0] == f"GET /temp/a%20b?X-Amz-Expires=60&{SECRET}"


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_file_is_sent_with_its_length(server: RangeServer, tmp_path: Path, size: int) -> None:
    path = tmp_path / "chunk.mp4"
    path.write_bytes(bytes(size))
    send(server.url("temp/chunk"), path, name="chunk 3")
    assert hashlib.sha256(server.objects["temp/chunk"]).digest() == hashlib.sha256(bytes(size)).digest()
    headers = server.requests[0][1]
    assert headers["Content-Length"] == str(size)
    assert "Transfer-Encoding" not in headers
    assert "Content-Type" not in headers, "a link is signed without one"


def test_bytes_are_sent(server: RangeServer) -> None:
    send(server.url("temp/record"), b"{}", name="the record")
    assert server.objects["temp/record"] == b"{}"


@pytest.mark.parametrize("fault", [*map(told, [500, 502, 503, 408, 425, 429]), CUT, SHORT])
def test_what_may_pass_is_tried_again(server: RangeServer, fault: Fault) -> None:
    server.content = b"plan" * 1000
    server.faults += [fault, fault]
    assert fetch(server.url(), name="the plan", most=4000) == b"plan" * 1000
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", [told(500), told(503), CUT])
def test_sending_is_tried_again_from_the_beginning(server: RangeServer, tmp_path: Path, fault: Fault) -> None:
    path = tmp_path / "chunk.mp4"
    path.write_bytes(b"chunk" * 10_000)
    server.faults += [fault]
    send(server.url("temp/chunk"), path, name="chunk 3")
    assert server.objects["temp/chunk"] == b"chunk" * 10_000


@pytest.mark.parametrize("fault", [told(503), CUT])
def test_what_does_not_pass_is_given_up_in_time(server: RangeServer, fault: Fault) -> None:
    server.always = fault
    began = time.monotonic()
    wanted = r"the plan cannot be read from 127\.0\.0\.1: no try succeeded for 0\.5 s"
    with pytest.raises(LinkUnreachable, match=wanted):
        fetch(server.url(), name="the plan", most=10, patience_s=0.5)
    assert 0.4 < time.monotonic() - began < 5
    assert len(server.requests) > 1


def test_where_nobody_listens_it_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/temp/plan?{SECRET}"
    with pytest.raises(LinkUnreachable) as caught:
        send(url, b"{}", name="the record", patience_s=0.3)
    assert caught.value.transient


def test_nothing_is_there(server: RangeServer) -> None:
    with pytest.raises(LinkMissing, match=r"the plan cannot be read from 127\.0\.0\.1: it is not there"):
        fetch(server.url(), name="the plan", most=10)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "the link expired or is not valid"),
        (401, "the link expired or is not valid"),
        (400, "status 400"),
        (301, "status 301"),
        (507, "status 507"),
    ],
)
@pytest.mark.parametrize("method", ["fetch", "send"])
def test_a_refusal_is_not_tried_again(server: RangeServer, status: int, text: str, method: str) -> None:
    server.always = told(status)
    ways: dict[str, Callable[[], object]] = {
        "fetch": lambda: fetch(server.url(), name="the plan", most=10),
        "send": lambda: send(server.url(), b"{}", name="the record"),
    }
    with pytest.raises(LinkRefused, match=text) as caught:
        ways[method]()
    assert len(server.requests) == 1
    assert not getattr(caught.value, "transient", False)


def test_more_than_the_most_is_refused(server: RangeServer) -> None:
    server.content = b"x" * 11
    with pytest.raises(LinkRefused, match="more than 10 bytes"):
        fetch(server.url(), name="the plan", most=10)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/plan", "plan", "http://", ""])
def test_another_kind_of_link_is_refused(url: str) -> None:
    with pytest.raises(LinkRefused, match="that is no http or https link"):
        fetch(url, name="the plan", most=10)


@pytest.mark.parametrize(
    ("code", "message", "kind", "text"),
    [
        ("AccessDenied", "Access Denied", LinkRefused, "R2_ACCESS_KEY_ID has no rights for that"),
        ("AccessDenied", "Request has expired", LinkExpired, "the link expired"),
        ("ExpiredRequest", "Too late", LinkExpired, "the link expired"),
        ("InvalidAccessKeyId", "no such key", LinkRefused, "R2_ACCESS_KEY_ID is not accepted"),
        ("SignatureDoesNotMatch", "wrong", LinkRefused, "R2_ACCESS_KEY_ID is not accepted"),
    ],
)
@pytest.mark.parametrize("method", ["fetch", "send", "read"])
def test_a_refusal_means_what_s3_calls_it(
    server: RangeServer, code: str, message: str, kind: type[LinkRefused], text: str, method: str
) -> None:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    server.always = Fault(status=403, body=body)
    ways: dict[str, Callable[[], object]] = {
        "fetch": lambda: fetch(server.url(), name="the plan", most=1000),
        "send": lambda: send(server.url(), b"{}", name="the record"),
        "read": lambda: RangedFile(server.url(), name="the source").read(10),
    }
    with pytest.raises(LinkRefused, match=text) as caught:
        ways[method]()
    assert type(caught.value) is kind


@pytest.mark.parametrize("fault", [told(301), told(403), told(503), CUT])
def test_no_error_quotes_the_link(server: RangeServer, fault: Fault) -> None:
    server.always = fault
    with pytest.raises(RemoteError) as caught:
        fetch(server.url(), name="the plan", most=10, patience_s=0.1)
    error: BaseException | None = caught.value
    while error is not None:
        assert "Signature" not in f"{error!r} {error} {getattr(error, 'remedy', '')}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_file_that_is_not_there_is_an_error_of_this_machine(server: RangeServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        send(server.url(), tmp_path / "absent", name="chunk 3")
    assert server.requests == []
