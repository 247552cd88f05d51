"""Sources with an address: fetched once, in ranges, from a real server that fails as told; no secret is shown."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.certificates import tls
from support.clips import clicks_in, clicks_track, make_clip, numbers_in
from support.forward_proxy import ForwardProxy
from support.range_server import SECRET, Fault, RangeServer

import keyscale
from keyscale.cli.app import run
from keyscale.engine.addresses import local_name, redacted, shown
from keyscale.engine.errors import InputError, Interrupted, KeyscaleError, StorageError
from keyscale.engine.events import Phase, Progress
from keyscale.engine.job import Job, default_output
from keyscale.engine.runners import fetched as module
from keyscale.engine.runners.fetched import fetched, with_local_source

pytestmark = pytest.mark.loopback

CONTENT = random.Random(18).randbytes(3_000_000)
QUICK = ["--size", "64x64", "--model", "lanczos", "--fps", "source", "--preset", "ultrafast", "--crf", "10"]
WORD = "pa55word"
SECRETS = (SECRET, "X-Amz", WORD, "Basic ")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "FIRST_PATIENCE_S", 0.3)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with RangeServer() as server:
        yield server


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sound = clicks_track([0.5], seconds=1.2, sample_rate=48000)
    return make_clip(tmp_path_factory.mktemp("clip") / "talk.mp4", frames=30, rate=25, sounds=[sound])


def job(url: str) -> Job:
    return Job(source=url, output=default_output(url))


def signed_in(url: str) -> str:
    return url.replace("http://", f"http://anna:{WORD}@")


def copies(folder: Path) -> list[Path]:
    return [path for path in (folder / "cache" / "sources").rglob("*") if path.is_file() and path.suffix != ".lock"]


def untold(folder: Path, *texts: str) -> None:
    """Nothing secret stands in texts, in names of files, or in files."""
    for text in texts:
        assert not [secret for secret in SECRETS if secret in text]
    for path in folder.rglob("*"):
        assert not [secret for secret in SECRETS if secret in str(path)]
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in SECRETS if secret.encode() in content]


def test_a_clip_is_made_of_an_address_as_of_the_file(
    server: RangeServer, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.objects["films/my talk.mp4"] = clip.read_bytes()
    server.objects["films/my%20talk.mp4"] = clip.read_bytes()
    url = signed_in(server.url("films/my%20talk.mp4"))
    assert run([url, *QUICK]) == 0
    out, err = capsys.readouterr()
    made = tmp_path / "here" / "my talk.keyscale.mp4"
    assert out.strip() == "my talk.keyscale.mp4"
    assert run(["upscale", str(clip), *QUICK, "-o", "local.mp4"]) == 0
    assert [number for _, number in numbers_in(made)] == list(range(30))
    assert numbers_in(made) == numbers_in(Path("local.mp4"))
    assert clicks_in(made) == clicks_in(Path("local.mp4"))
    assert keyscale.plan(url, size=(64, 64)).frames == 36
    untold(tmp_path, out, err, *capsys.readouterr())
    assert all(headers["Authorization"].startswith("Basic ") for _, headers in server.requests)


def test_each_byte_travels_once_whatever_is_asked_of_it(
    server: RangeServer, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.content = clip.read_bytes()
    for number, command in enumerate(
        (["plan"], ["preview"], ["upscale", "--still", "0.4"], ["upscale", "--sample", "0.4"], ["upscale"])
    ):
        # A new signature for each.
        url = server.url().replace("Expires=60", f"Expires={number}")
        assert run([command[0], url, *command[1:], *QUICK]) == 0
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert names == [
        *("source.0.4s.png", "source.keyscale.mp4", "source.keyscale.sample.mp4", "source.preview.png"),
    ]
    # Each command asks for a byte to see where the address leads, and for the first block, which tells the version.
    whole = [first for first, last in server.ranges if (first, last) != (0, 0)]
    assert server.sent <= len(server.content) * (1 + 5) + 10
    assert max(whole) < len(server.content)
    assert len(copies(tmp_path)) == 1
    untold(tmp_path, *capsys.readouterr())


def test_a_large_file_travels_once(server: RangeServer, tmp_path: Path) -> None:
    server.content = CONTENT
    found = Path(fetched(job(server.url())).source)
    assert found.read_bytes() == CONTENT
    assert server.sent < len(CONTENT) * 1.1
    sent = server.sent
    assert Path(fetched(job(server.url())).source) == found
    assert server.sent - sent < 300_000


def test_what_was_fetched_before_an_interruption_is_not_fetched_again(server: RangeServer, tmp_path: Path) -> None:
    server.content = CONTENT
    server.faults.extend([Fault(), Fault(), Fault(), Fault(), Fault(), Fault(), Fault(status=404)])
    with pytest.raises(InputError, match="there is no source"):
        fetched(job(server.url()))
    (part,) = copies(tmp_path)
    have = part.stat().st_size
    assert part.suffix == ".part"
    assert 0 < have < len(CONTENT)
    assert part.read_bytes() == CONTENT[:have]
    before = len(server.ranges)
    found = fetched(job(server.url()))
    assert Path(found.source).read_bytes() == CONTENT
    assert not [first for first, _ in server.ranges[before:] if 131072 <= first < have - 131072]
    assert copies(tmp_path) == [Path(found.source)]


def test_a_stop_is_heeded_and_keeps_what_is_there(server: RangeServer, tmp_path: Path) -> None:
    server.content = CONTENT
    server.always = Fault(silent_s=0.3)
    server.faults.extend([Fault()] * 4)
    stop = threading.Event()
    began = time.monotonic()
    steps = with_local_source(job(server.url()), stop.is_set)

    def stop_once_something_came() -> None:
        for event in steps:
            if isinstance(event, Progress) and event.frame:
                assert event.phase is Phase.DOWNLOAD
                assert event.unit == "bytes"
                assert event.total == len(CONTENT)
                stop.set()

    with pytest.raises(Interrupted):
        stop_once_something_came()
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("fault", "said", "advised"),
    [
        (Fault(status=404), "there is no source.mp4 on 127.0.0.1 (status 404)", "Check the address"),
        (Fault(status=410), "there is no source.mp4", "Check the address"),
        (Fault(status=403), "refuses to give source.mp4 on 127.0.0.1 (status 403)", "signed ones expire"),
        (Fault(status=401), "(status 401)", "USER:PASSWORD@ before the host"),
        (Fault(status=403, body=b"<Code>AccessDenied</Code>"), "(status 403)", "signed ones expire"),
        (Fault(status=400), "status 400", "Check the address"),
        (Fault(whole=True), "whole files only", "Download it first"),
        (Fault(headers={"Content-Range": "bytes 5-9/100"}), "in parts", "Download it first"),
        (Fault(headers={"Content-Type": "text/html; charset=utf-8"}), "is a web page", "the video file itself"),
        (Fault(status=503), "cannot reach 127.0.0.1 for source.mp4", "Check the address and the network"),
        (Fault(silent_s=0.01), "cannot reach 127.0.0.1", "Check the address and the network"),
        (Fault(status=302, headers={"Location": "ftp://127.0.0.1/" + SECRET}), "no http or https link", "Check"),
        (Fault(status=302, headers={"Location": "?" + SECRET}), "round in circles", "Check the address"),
        (Fault(status=302), "leads elsewhere", "Check the address"),
    ],
)
def test_what_is_wrong_at_the_server_is_told_before_anything_else(
    server: RangeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Fault, said: str, advised: str
) -> None:
    server.content = CONTENT
    server.always = fault
    assert run(["plan", "-v", signed_in(server.url())]) == 3
    out, err = capsys.readouterr()
    told, _, remedy = err.partition("\n  -> ")
    assert out == ""
    assert said in told
    assert advised in remedy
    assert copies(tmp_path) == []
    untold(tmp_path, err)


def test_a_traceback_tells_nothing_secret_either(server: RangeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.always = Fault(status=403)
    assert run(["upscale", "-vv", "--progress", "json", signed_in(server.url())]) == 3
    out, err = capsys.readouterr()
    assert "Traceback" in err
    assert '"event":"error"' in out
    assert not [secret for secret in SECRETS if secret in out + err]


@pytest.mark.parametrize(
    "typed",
    [
        "ftp://anna:{0}@host/talk.mp4",
        "s3://bucket/talk.mp4?{1}",
        "rtmp://anna:{0}@host/live#{1}",
        "https://anna:{0}/x@host/talk.mp4",
        "talk.mp4 https://anna:{0}@host/camera.json?{1}",
        "https://anna:{0}@host/camera.json?{1} talk.mp4",
        "talk.mp4 camera.json https://anna:{0}@host/out.mp4?{1}",
        "talk.mp4 -o https://anna:{0}@host/out.mp4?{1}",
        "batch https://anna:{0}@host/talk.mp4?{1} -o out",
        "compare https://anna:{0}@host/talk.mp4?{1}",
        "compare talk.mp4 https://anna:{0}@host/out.mp4?{1}",
        "preview https://anna:{0}@host/talk.mp4?{1} -o page.html",
        "convert https://anna:{0}@host/camera.json?{1}",
        "plan https://anna:{0}@/talk.mp4?{1}",
        "plan https://anna:{0}@host:port/talk.mp4?{1}",
    ],
)
def test_what_cannot_be_read_so_is_said_without_its_secrets(
    server: RangeServer, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    Path("talk.mp4").write_bytes(b"")
    assert run(typed.format(WORD, SECRET).split()) in {2, 3}
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "\n  -> " in err
    assert not [secret for secret in SECRETS if secret in err]
    assert server.requests == []


def test_redirects_are_followed_and_take_no_password_to_another_server(server: RangeServer, tmp_path: Path) -> None:
    with RangeServer(CONTENT) as other:
        place = other.url().replace("127.0.0.1", "localhost")
        server.faults.extend(
            [Fault(status=301, headers={"Location": "moved.mp4"}), Fault(status=307, headers={"Location": place})] * 2
        )
        found = Path(fetched(job(signed_in(server.url()))).source)
        assert found.name == "source.mp4"
        assert found.read_bytes() == CONTENT
        assert [request for request, _ in server.requests][1::2] == ["GET /temp/moved.mp4"] * 2
        assert all("Authorization" in headers for _, headers in server.requests)
        assert not [headers for _, headers in other.requests if "Authorization" in headers]


def test_a_redirect_whose_signature_expires_is_asked_for_again(server: RangeServer) -> None:
    with RangeServer(CONTENT) as other:
        server.always = Fault(status=302, headers={"Location": other.url()})
        other.faults.extend([Fault()] * 6 + [Fault(status=403)])
        assert Path(fetched(job(server.url())).source).read_bytes() == CONTENT
        assert len(server.requests) == 3


def test_what_passes_is_borne(server: RangeServer) -> None:
    server.content = CONTENT
    server.faults.extend(
        [Fault(status=503), Fault(), Fault(), Fault(), Fault(), Fault(cut_after=5000), Fault(status=500)]
    )
    assert Path(fetched(job(server.url())).source).read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["tag", "size"])
def test_a_file_that_changes_while_it_is_fetched_is_an_error_and_then_another_file(
    server: RangeServer, tmp_path: Path, change: str
) -> None:
    server.content = CONTENT
    new = CONTENT[::-1] if change == "tag" else CONTENT + b"more"

    def replaced() -> None:
        server.content, server.tag = new, server.tag if change == "size" else '"second"'

    steps = with_local_source(job(server.url()), lambda: False)
    ranges = iter(range(100))
    original = server.ranges

    class Watched(list[tuple[int, int]]):
        def append(self, each: tuple[int, int]) -> None:
            super().append(each)
            if next(ranges) == 6:
                replaced()

    server.ranges = Watched(original)
    with pytest.raises(InputError, match=r"source\.mp4 on 127\.0\.0\.1 changed while it was fetched"):
        list(steps)
    assert Path(fetched(job(server.url())).source).read_bytes() == new


def test_a_file_that_was_replaced_since_is_fetched_anew(server: RangeServer) -> None:
    server.content = CONTENT
    first = Path(fetched(job(server.url())).source)
    server.content, server.tag = CONTENT[::-1], '"second"'
    second = Path(fetched(job(server.url())).source)
    assert second.read_bytes() == CONTENT[::-1]
    assert first.read_bytes() == CONTENT, "another job may be using it"


def test_of_a_server_that_tells_no_versions_apart_no_copy_is_used_twice(server: RangeServer) -> None:
    server.content, server.tag = CONTENT, ""
    first = Path(fetched(job(server.url())).source)
    server.content = CONTENT[::-1]
    assert Path(fetched(job(server.url())).source).read_bytes() == CONTENT[::-1]
    assert first.read_bytes() == CONTENT


def test_copies_that_nobody_used_for_a_week_are_removed(server: RangeServer, tmp_path: Path) -> None:
    server.objects = {f"{name}.mp4": CONTENT[:1000] for name in ("old", "used", "new")}
    old, used = (Path(fetched(job(server.url(f"{name}.mp4"))).source) for name in ("old", "used"))
    for path in (old, used):
        then = time.time() - 8 * 86400
        os.utime(path.parent, (then, then))
    fetched(job(server.url("used.mp4")))
    fetched(job(server.url("new.mp4")))
    assert sorted(path.name for path in copies(tmp_path)) == ["new.mp4", "used.mp4"]


def test_two_jobs_at_once_fetch_it_once(server: RangeServer) -> None:
    server.content = CONTENT
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(fetched(job(server.url())).source)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert Path(found[0]).read_bytes() == CONTENT
    assert server.sent < len(CONTENT) + 4 * 150_000


def test_no_room_in_the_cache_is_told_before_anything_is_fetched(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = CONTENT
    monkeypatch.setattr(module, "SPARE", 1 << 60)
    with pytest.raises(StorageError, match="MiB free") as caught:
        fetched(job(server.url()))
    assert "KEYSCALE_CACHE_DIR" in str(caught.value.remedy)
    assert server.sent < 200_000


def test_a_cache_that_cannot_be_written_is_told(server: RangeServer, tmp_path: Path) -> None:
    server.content = CONTENT
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(StorageError, match="cannot write"):
        fetched(job(server.url()))


def test_from_python_it_is_an_argument_as_any_other(server: RangeServer, clip: Path, tmp_path: Path) -> None:
    server.content = clip.read_bytes()
    options: dict[str, Any] = {"size": (64, 64), "model": "lanczos", "fps": "source", "preset": "ultrafast"}
    work = keyscale.upscale(signed_in(server.url()), **options)
    assert WORD not in repr(work)
    assert SECRET not in repr(work)
    phases = [event.phase for event in work if isinstance(event, Progress)]
    assert phases[0] is Phase.DOWNLOAD
    assert Path("source.keyscale.mp4").is_file()
    server.always = Fault(status=403)
    with pytest.raises(KeyscaleError) as caught:
        keyscale.upscale(signed_in(server.url()), output="other.mp4", **options).run()
    untold(tmp_path, str(caught.value), repr(caught.value))


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://host/films/talk.mp4?sig=1#t=3", "talk.mp4"),
        ("https://host/a%20b%2Fc.mov", "a b_c.mov"),
        ("https://host/", "video"),
        ("https://host", "video"),
        ("https://host/..%2f..%2fetc", "_.._etc"),
        ("https://host/-rf.mp4", "rf.mp4"),
        ("https://host/.hidden", "hidden"),
        ("https://host/%00%0a:*.mp4", "____.mp4"),
        ("https://host/" + 300 * "n" + ".mp4", 110 * "n" + ".mp4"),
        ("https://host/%D0%BA%D0%B8%D0%BD%D0%BE.mkv", "кино.mkv"),
        ("https://[::1/x.mp4", "video"),
    ],
)
def test_the_name_of_a_file_is_the_last_part_of_its_address(address: str, name: str) -> None:
    assert local_name(address) == Path(name)
    assert default_output(address) == f"{Path(name).stem}.keyscale.mp4"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://anna:w@host:8080/a/b.mp4?x=1#f", "https://host:8080/a/b.mp4"),
        ("https://anna:w/r?d@host/b.mp4", "https://..."),
        ("https://anna:w#d@host/b.mp4", "https://..."),
        ("https://host/b.mp4", "https://host/b.mp4"),
        ("https://[::1/b.mp4?s", "https://..."),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(address: str, expected: str) -> None:
    assert shown(address) == expected
    assert redacted(f"cannot read '{address}'") == f"cannot read '{expected}'"
    assert redacted("r2://bucket/a?b#c@d is there") == "r2://bucket/a?b#c@d is there"


@pytest.mark.processes
def test_a_manifest_names_addresses_too(
    server: RangeServer, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.objects["films/talk.mp4"] = clip.read_bytes()
    Path("camera.json").write_text('{"version":1,"keyframes":[{"time":0,"x":0,"y":0,"width":64,"height":64}]}')
    address = signed_in(server.url("films/talk.mp4"))
    rows = [
        "video,keyframes,output",
        f"{address},camera.json,one.mp4",
        f"{address},,",
        "ftp://a:b@host/x.mp4,camera.json,",
    ]
    Path("clips.csv").write_text("\n".join([*rows, f"{signed_in(server.url('no.mp4'))},camera.json,"]))
    assert run(["batch", "clips.csv", "-o", "out", "--jobs", "1", *QUICK]) == 1
    out, err = capsys.readouterr()
    assert [number for _, number in numbers_in(Path("out/one.mp4"))] == list(range(30))
    assert sorted(path.name for path in Path("out").iterdir()) == ["one.mp4", "report.json"]
    said = Path("out/report.json").read_text(encoding="utf-8")
    Path("clips.csv").unlink()
    for text in (
        "beside an address none are looked for",
        "ftp://host/x.mp4 is an address of a kind that no video is read from",
        "there is no no.mp4 on 127.0.0.1 (status 404)",
    ):
        assert text in said
    untold(tmp_path, out, err, said)


@pytest.mark.processes
def test_https_is_read_where_the_certificate_is_trusted(
    server: RangeServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RangeServer(CONTENT, tls=tls(certificate)) as secure:
        with pytest.raises(InputError, match="its certificate is not trusted") as caught:
            fetched(job(secure.url()))
        assert "Check the address" in str(caught.value.remedy)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "certificate.pem"))
        assert Path(fetched(job(secure.url())).source).read_bytes() == CONTENT
        secure.always = Fault(status=302, headers={"Location": server.url()})
        with pytest.raises(InputError, match="leads on without encryption"):
            fetched(job(secure.url()))
        assert server.requests == []


PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_a_source_is_read_through_the_proxy_that_is_set(
    server: RangeServer, no_proxies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """http asks the proxy for the whole address; a user of the proxy is told to it and not to the server."""
    server.content = CONTENT
    known = "Basic YW5uYTpwYTU1d29yZA=="  # anna:pa55word
    with ForwardProxy(authorization=known) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://anna:{WORD}@{proxy.address}")
        assert Path(fetched(job(server.url())).source).read_bytes() == CONTENT
        assert proxy.requests
        assert {request.partition("?")[0] for request in proxy.requests} == {server.url().partition("?")[0]}
        assert all(headers["Proxy-Authorization"] == known for headers in proxy.passed_on)
        assert not [headers for _, headers in server.requests if "Proxy-Authorization" in headers]
        asked = len(proxy.requests)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert Path(fetched(job(server.url("temp/source.mp4"))).source).read_bytes() == CONTENT
        assert len(proxy.requests) == asked


@pytest.mark.processes
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_https_goes_through_a_tunnel(
    variable: str, certificate: Path, server: RangeServer, no_proxies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate is that of the server, and the proxy reads nothing."""
    with RangeServer(CONTENT, tls=tls(certificate)) as secure, ForwardProxy() as proxy:
        monkeypatch.setenv(variable, proxy.address)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "certificate.pem"))
        assert Path(fetched(job(secure.url())).source).read_bytes() == CONTENT
        assert set(proxy.tunnels) == {f"127.0.0.1:{secure.port}"}
        assert proxy.requests == []


@pytest.mark.parametrize(
    ("scheme", "refuses", "said"),
    [("http", 407, "status 407"), ("https", 407, "status 407"), ("https", 403, "status 403"), ("https", 502, "502")],
)
def test_a_proxy_that_refuses_is_named_without_its_password(
    scheme: str,
    refuses: int,
    said: str,
    server: RangeServer,
    no_proxies: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ForwardProxy(refuses=refuses) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://anna:{WORD}@{proxy.address}")
        assert run(["plan", f"{scheme}://media.example/talk.mp4?{SECRET}"]) == 3
        err = capsys.readouterr().err
        assert f"the proxy {proxy.address} that {scheme}_proxy names" in err
        assert said in err
        assert WORD not in err
        assert (f"unset {scheme}_proxy" in err) is (refuses < 500)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks5://127.0.0.1:9", "is not written as http://HOST:PORT"),
        ("https://127.0.0.1:9", "is not written as http://HOST:PORT"),
        ("http://127.0.0.1:1", "that HTTPS_PROXY names: Connection refused"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_an_error(
    value: str,
    said: str,
    server: RangeServer,
    no_proxies: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A way around it would show the address where it must not be seen."""
    monkeypatch.setenv("HTTPS_PROXY", value)
    assert run(["plan", "https://media.example/talk.mp4"]) == 3
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("place", ["127.0.0.1:1", "no-such-host.invalid"])
def test_where_nobody_answers_at_all_it_is_told_soon(
    place: str, no_proxies: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped name or port is no fault that passes; a server that restarts answers within a second or two."""
    monkeypatch.setenv("KEYSCALE_CACHE_DIR", str(tmp_path / "cache"))

    def lookup(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    if "invalid" in place:
        monkeypatch.setattr("socket.getaddrinfo", lookup)
    began = time.monotonic()
    assert run(["plan", f"https://{place}/talk.mp4"]) == 3
    assert time.monotonic() - began < module.FIRST_PATIENCE_S / 2
    err = capsys.readouterr().err
    assert "no try succeeded for 1 s" in err
    assert "where it stopped" not in err
