"""Files behind links: what is fetched, what is tried again, what is an error, and what nothing may show."""

from __future__ import annotations

import io
import logging
import random
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import tls
from support.range_server import SECRET, Fault, RangeServer

from keyscale.engine.errors import RemoteError
from keyscale.engine.worker.links import (
    LinkChanged,
    LinkError,
    LinkMissing,
    LinkRefused,
    LinkUnreachable,
    LinkUnsuitable,
)
from keyscale.engine.worker.ranged_file import BLOCK, RangedFile

pytestmark = pytest.mark.loopback

CONTENT = random.Random(1).randbytes(40 * BLOCK + 123)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with RangeServer(CONTENT) as server:
        yield server


@pytest.fixture
def file(server: RangeServer) -> Iterator[RangedFile]:
    with RangedFile(server.url(), name="clip.mp4") as file:
        yield file


def impatient(server: RangeServer, **more: float) -> RangedFile:
    return RangedFile(server.url(), name="clip.mp4", patience_s=more.get("patience_s", 1.0))


def whole(file: RangedFile, step: int = 32768) -> bytes:
    """All of a file from where it stands, in reads as FFmpeg makes them."""
    content = bytearray()
    while piece := file.read(step):
        content += piece
    return bytes(content)


def test_a_file_reads_as_it_is_stored(file: RangedFile) -> None:
    assert whole(file) == CONTENT
    assert file.read(10) == b""


def test_reads_from_anywhere_give_the_bytes_there(file: RangedFile) -> None:
    dice = random.Random(7)
    for _ in range(200):
        start, length = dice.randrange(len(CONTENT)), dice.choice([1, 100, 32768, BLOCK, 3 * BLOCK])
        assert file.seek(start) == start == file.tell()
        got = file.read(length)
        assert got
        assert got == CONTENT[start : start + len(got)]
        assert file.tell() == start + len(got)


def test_seeks_count_from_start_from_here_and_from_the_end(file: RangedFile) -> None:
    assert file.seek(-5, io.SEEK_END) == len(CONTENT) - 5
    assert file.read(10) == CONTENT[-5:]
    file.seek(100)
    assert file.seek(-10, io.SEEK_CUR) == 90
    assert file.read(4) == CONTENT[90:94]
    file.seek(len(CONTENT) + 1000)
    assert file.read(4) == b""
    with pytest.raises(ValueError, match="before the file's start"):
        file.seek(-1)


def test_nothing_is_fetched_before_it_is_read(server: RangeServer, file: RangedFile) -> None:
    file.seek(5 * BLOCK)
    assert not server.ranges
    assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)


def test_an_empty_file_has_no_bytes() -> None:
    with RangeServer(b"") as server, RangedFile(server.url(), name="clip.mp4") as file:
        assert file.read(10) == b""
        assert file.size == 0


def test_a_file_of_a_few_bytes_is_read_whole() -> None:
    with RangeServer(b"abc") as server, RangedFile(server.url(), name="clip.mp4") as file:
        assert file.read(10) == b"abc"
        assert file.seek(0, io.SEEK_END) == 3


def test_what_was_read_is_not_fetched_again(server: RangeServer, file: RangedFile) -> None:
    first = whole(file)
    file.seek(0)
    assert whole(file) == first
    assert server.sent == len(CONTENT)


def test_reading_on_needs_ever_fewer_requests_over_one_connection(server: RangeServer, file: RangedFile) -> None:
    whole(file)
    lengths = [last - first + 1 for first, last in server.ranges]
    assert lengths[0] == BLOCK
    assert lengths[-2] > 4 * BLOCK
    assert len(lengths) < 25
    assert server.connections == 1
    assert len(server.requests) == len(lengths)


def test_single_reads_far_apart_fetch_one_block_each(server: RangeServer, file: RangedFile) -> None:
    for place in range(20, 0, -4):
        file.seek(place * BLOCK + 7)
        file.read(10)
    assert server.sent == 6 * BLOCK  # and the first block, for the size


def test_what_is_fetched_ahead_and_never_used_stays_a_fraction_of_what_is(
    server: RangeServer, file: RangedFile
) -> None:
    file.seek(8 * BLOCK)
    for _ in range(16 * BLOCK // 4096):
        file.read(4096)
    assert 16 * BLOCK <= server.sent <= 16 * BLOCK * 1.25 + 2 * BLOCK


def test_two_places_read_in_turn_are_both_read_on(server: RangeServer, file: RangedFile) -> None:
    """As FFmpeg does where the sound is stored behind the picture."""
    for step in range(15 * BLOCK // 4096):
        for base in (0, 20 * BLOCK):
            file.seek(base + step * 4096)
            assert file.read(4096) == CONTENT[base + step * 4096 :][:4096]
    assert server.sent <= 2 * 15 * BLOCK * 1.3 + 2 * BLOCK
    assert len(server.ranges) < 30


def test_memory_is_bounded_and_forgotten_bytes_are_fetched_again(server: RangeServer) -> None:
    with RangedFile(server.url(), name="clip.mp4", memory=4 * BLOCK) as file:
        assert whole(file) == CONTENT
        file.seek(0)
        assert file.read(100) == CONTENT[:100]
        assert server.sent > len(CONTENT)
        assert len(file._blocks) <= 4


def test_bytes_are_reported_as_they_come(server: RangeServer) -> None:
    heard: list[int] = []
    with RangedFile(server.url(), name="clip.mp4", on_bytes=heard.append) as file:
        whole(file)
    assert sum(heard) == len(CONTENT)
    assert max(heard) <= BLOCK


def test_a_connection_that_breaks_in_mid_answer_is_taken_up_at_the_byte_reached(
    server: RangeServer, file: RangedFile
) -> None:
    server.faults += [Fault(cut_after=1000), Fault(cut_after=5000), Fault()]
    assert whole(file) == CONTENT
    assert [first for first, _ in server.ranges[:3]] == [0, 1000, 6000]
    assert server.sent == len(CONTENT)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(server: RangeServer, file: RangedFile, status: int) -> None:
    server.faults += [Fault(status=status)] * 2
    assert whole(file) == CONTENT


def test_a_connection_that_the_server_closed_meanwhile_costs_no_pause(server: RangeServer, file: RangedFile) -> None:
    file.read(1)
    server.faults.append(Fault(cut_after=BLOCK))  # all that was asked for, then the end without a word
    file.seek(10 * BLOCK)
    file.read(1)
    began = time.monotonic()
    file.seek(20 * BLOCK)
    assert file.read(5) == CONTENT[20 * BLOCK : 20 * BLOCK + 5]
    assert time.monotonic() - began < 0.12
    assert server.connections == 2


def test_a_server_that_stays_away_is_an_error_once_patience_ends(server: RangeServer) -> None:
    server.always = Fault(status=503)
    with impatient(server) as file:
        began = time.monotonic()
        with pytest.raises(
            LinkUnreachable, match=r"clip\.mp4.*127\.0\.0\.1: no try succeeded for 1 s \(status 503\)"
        ) as caught:
            file.read(1)
        assert 0.9 < time.monotonic() - began < 3
        assert caught.value.transient
        assert isinstance(caught.value, RemoteError)


def test_a_server_that_is_gone_and_comes_back_within_patience_is_survived(server: RangeServer) -> None:
    server.faults += [Fault(silent_s=0.01)] * 3
    with impatient(server, patience_s=10) as file:
        assert whole(file) == CONTENT


def test_a_server_that_says_nothing_is_not_waited_for_forever(server: RangeServer) -> None:
    server.always = Fault(silent_s=2)
    with impatient(server, patience_s=0.5) as file:
        began = time.monotonic()
        with pytest.raises(LinkUnreachable):
            file.read(1)
        assert time.monotonic() - began < 2


def test_a_port_where_nobody_listens_is_an_error_once_patience_ends(server: RangeServer) -> None:
    with RangeServer(b"") as gone:
        url = gone.url()
    with RangedFile(url, name="clip.mp4", patience_s=0.5) as file, pytest.raises(LinkUnreachable, match="refused"):
        file.read(1)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault(status=403), LinkRefused, "the link expired or is not valid"),
        (Fault(status=401), LinkRefused, "the link expired or is not valid"),
        (Fault(status=400), LinkRefused, "status 400"),
        (Fault(status=404), LinkMissing, "not there"),
        (Fault(status=307, headers={"Location": "http://127.0.0.1/?" + SECRET}), LinkRefused, "leads elsewhere"),
        (Fault(whole=True), LinkUnsuitable, "whole files only"),
        (Fault(headers={"Content-Range": "bytes 5-9/100"}), LinkUnsuitable, "other parts"),
        (Fault(headers={"Content-Range": "pages 1-2/3"}), LinkUnsuitable, "other parts"),
        (Fault(headers={"Content-Encoding": "gzip"}), LinkUnsuitable, "other parts"),
    ],
)
def test_what_no_other_try_will_change_is_an_error_at_once(
    server: RangeServer, file: RangedFile, fault: Fault, kind: type[LinkError], words: str
) -> None:
    server.always = fault
    began = time.monotonic()
    with pytest.raises(kind, match=words) as caught:
        file.read(1)
    assert time.monotonic() - began < 1
    assert not caught.value.transient
    assert caught.value.remedy
    assert len(server.ranges) == 1


def test_an_error_is_final(server: RangeServer, file: RangedFile) -> None:
    server.faults.append(Fault(status=403))
    for _ in range(2):
        with pytest.raises(LinkRefused):
            file.read(1)
    assert len(server.ranges) == 1


@pytest.mark.parametrize("change", ["tag", "size", "both"])
def test_a_file_that_changes_between_two_reads_is_an_error(server: RangeServer, file: RangedFile, change: str) -> None:
    file.read(1)
    if change != "tag":
        server.content += b"more"
    if change != "size":
        server.tag = '"second"'
    file.seek(20 * BLOCK)
    with pytest.raises(LinkChanged, match=r"clip\.mp4.*changed while it was read"):
        file.read(1)


def test_a_file_of_another_size_than_announced_is_an_error(server: RangeServer) -> None:
    with (
        RangedFile(server.url(), name="clip.mp4", size=len(CONTENT) + 1) as file,
        pytest.raises(LinkChanged, match=f"{len(CONTENT)} bytes instead of {len(CONTENT) + 1}"),
    ):
        file.read(1)


def test_an_announced_size_saves_asking_for_it(server: RangeServer) -> None:
    with RangedFile(server.url(), name="clip.mp4", size=len(CONTENT)) as file:
        file.seek(-5, io.SEEK_END)
        assert file.read(10) == CONTENT[-5:]
    assert len(server.ranges) == 1


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://127.0.0.1/a?{SECRET}",
        f"http://127.0.0.1/a b?{SECRET}",
        f"http://127.0.0.1/a\r\nX: y?{SECRET}",
        f"http://user:word@127.0.0.1/?{SECRET}",
        f"http://[::1/?{SECRET}",
        f"http://127.0.0.1:port/?{SECRET}",
        f"no link at all {SECRET}",
        "",
    ],
)
def test_what_is_no_link_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(LinkRefused, match="no http or https link") as caught:
        RangedFile(url, name="clip.mp4")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=403),
        Fault(status=503),
        Fault(status=302, headers={"Location": f"http://127.0.0.1/?{SECRET}"}),
        Fault(silent_s=0.4),
        Fault(cut_after=0),
        Fault(whole=True),
    ],
)
def test_a_link_shows_in_no_message_repr_traceback_or_log(
    server: RangeServer, fault: Fault, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    server.always = fault
    with impatient(server, patience_s=0.3) as file:
        with pytest.raises(LinkError) as caught:
            file.read(1)
        error = caught.value
        texts = [repr(file), str(error), repr(error), str(error.remedy), caplog.text, *capfd.readouterr()]
        texts += traceback.format_exception(error)
        inner: BaseException | None = error
        while inner is not None:
            texts += [str(inner), repr(inner)]
            inner = inner.__cause__ or inner.__context__
    assert "clip.mp4" in str(error)
    assert not [text for text in texts if "X-Amz" in text or SECRET in text or "temp/source" in text]


def test_a_closed_file_reads_no_more(server: RangeServer, file: RangedFile) -> None:
    file.read(1)
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    file.close()


@pytest.mark.processes
def test_https_links_are_read_where_the_certificate_is_trusted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "certificate.pem"))
    with RangeServer(CONTENT, tls=tls(certificate)) as server, RangedFile(server.url(), name="clip.mp4") as file:
        assert whole(file) == CONTENT


@pytest.mark.processes
def test_a_certificate_that_is_not_trusted_is_an_error_at_once(certificate: Path) -> None:
    with RangeServer(CONTENT, tls=tls(certificate)) as server, RangedFile(server.url(), name="clip.mp4") as file:
        began = time.monotonic()
        with pytest.raises(LinkRefused, match="certificate is not trusted"):
            file.read(1)
        assert time.monotonic() - began < 2
        assert not server.ranges


@pytest.mark.parametrize(
    ("tag", "headers"),
    [
        pytest.param('W/"first"', {}, id="weak, as compression on the way makes it"),
        pytest.param('"another"', {"x-amz-meta-sha256": "ab" * 32}, id="not what HEAD told, of what was stored"),
        pytest.param("", {}, id="none"),
    ],
)
def test_the_file_that_was_stored_is_read_whatever_form_its_etag_has(
    server: RangeServer, tag: str, headers: dict[str, str]
) -> None:
    server.tag = tag
    server.always = Fault(headers=headers)
    with RangedFile(server.url(), name="clip.mp4", tag="first", sha256="ab" * 32) as file:
        assert file.read(10) == CONTENT[:10]
        server.always = None
        file.seek(20 * BLOCK)
        assert file.read(10) == CONTENT[20 * BLOCK :][:10]


def test_another_file_than_the_one_that_was_stored_is_an_error(server: RangeServer) -> None:
    server.tag = '"another"'
    server.always = Fault(headers={"x-amz-meta-sha256": "cd" * 32})
    with (
        RangedFile(server.url(), name="clip.mp4", size=len(CONTENT), tag="first", sha256="ab" * 32) as file,
        pytest.raises(LinkChanged, match="its content was replaced"),
    ):
        file.read(1)
