"""Object storage when something is wrong: servers gone, connections cut, wrong credentials, damage. Nothing leaks."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import random
import resource
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.s3 import Proxy, S3Server, SwiftServer, via

from keyscale.engine.errors import InputError, Interrupted, RemoteError, StorageError
from keyscale.engine.storage.bucket import (
    ObjectDamaged,
    ObjectMissing,
    Storage,
    StorageFault,
    StorageRefused,
    StorageSettings,
    StorageUnreachable,
    job_prefix,
    new_job_id,
    source_key,
)

ONE_IN_CI = pytest.mark.parametrize("server", ["rclone", pytest.param("swift", marks=pytest.mark.slow)], indirect=True)
"""What takes long by waiting on this side, where it makes no difference which server it is."""

MIB = 1 << 20
PART = 5 * MIB
SLACK = MIB
"""Bytes of headers, listings and the like that come on top of content."""


@pytest.fixture
def settings(server: S3Server, proxy: Proxy) -> StorageSettings:
    """A bucket behind the proxy."""
    return via(server.new_bucket(), proxy.endpoint)


@pytest.fixture
def direct(server: S3Server, settings: StorageSettings) -> Iterator[Storage]:
    """The same bucket, not by way of the proxy."""
    with Storage(via(settings, server.endpoint)) as storage:
        yield storage


def written(path: Path, size: int, seed: int = 0) -> Path:
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def parts_of(storage: Storage, key: str) -> list[dict[int, int]]:
    """Bytes by number of part, for each unfinished upload of a key, or of all that begin with it."""
    client, bucket = storage.client, storage.settings.bucket
    try:
        uploads = client.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", ())
    except client.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "NoSuchUpload"  # rclone's word for none
        return []
    pages = client.get_paginator("list_parts")
    return [
        {
            part["PartNumber"]: part["Size"]
            for page in pages.paginate(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            for part in page.get("Parts", ())
        }
        for upload in uploads
    ]


def unfinished(storage: Storage) -> bool:
    return bool(parts_of(storage, ""))


@contextmanager
def later(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Do something after some seconds, beside what is in the `with` statement."""
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def took(act: Callable[[], object], fault: type[Exception]) -> tuple[float, Any]:
    """Seconds until something fails as it should, and the failure."""
    begun = time.monotonic()
    with pytest.raises(fault) as caught:
        act()
    return time.monotonic() - begun, caught.value


class TestCheck:
    def test_a_server_that_is_stopped_is_told_in_seconds(self, server: S3Server) -> None:
        with Storage(server.new_bucket()) as storage:
            server.stop()
            try:
                seconds, fault = took(storage.check, StorageUnreachable)
            finally:
                server.start()
            assert seconds < 10
            assert f"{server.endpoint} cannot be reached (connection refused)" in fault.message
            assert "R2_ENDPOINT_URL" in fault.remedy
            storage.check()

    @ONE_IN_CI
    def test_a_server_that_does_not_answer_is_told_in_seconds(self, proxy: Proxy, settings: StorageSettings) -> None:
        proxy.stall()
        with Storage(settings) as storage:
            seconds, fault = took(storage.check, StorageUnreachable)
        assert seconds < 15
        assert "no answer in time" in fault.message

    def test_a_name_that_nobody_knows_is_told(self, settings: StorageSettings) -> None:
        with Storage(via(settings, "http://storage.invalid")) as storage:
            seconds, fault = took(storage.check, StorageUnreachable)
        assert seconds < 15
        assert "http://storage.invalid cannot be reached" in fault.message

    def test_a_wrong_secret_is_told(self, settings: StorageSettings) -> None:
        with Storage(dataclasses.replace(settings, secret_key=settings.secret_key[::-1])) as storage:
            _, fault = took(storage.check, StorageRefused)
        assert "finds the signature wrong" in fault.message
        assert "R2_SECRET_ACCESS_KEY" in fault.remedy
        assert fault.exit_code == 5

    def test_a_wrong_access_key_is_told(self, settings: StorageSettings) -> None:
        with Storage(dataclasses.replace(settings, access_key="another")) as storage:
            _, fault = took(storage.check, StorageRefused)
        assert "R2_ACCESS_KEY_ID" in fault.remedy

    def test_a_bucket_that_is_not_there_is_told(self, settings: StorageSettings) -> None:
        with Storage(dataclasses.replace(settings, bucket="elsewhere")) as storage:
            _, fault = took(storage.check, StorageRefused)
        assert "no bucket named elsewhere" in fault.message
        assert "R2_BUCKET_NAME" in fault.remedy

    def test_credentials_without_rights_are_told(self, swift: SwiftServer) -> None:
        settings = dataclasses.replace(
            swift.new_bucket(), access_key=swift.reader_access_key, secret_key=swift.reader_secret_key
        )
        with Storage(settings) as storage:
            _, fault = took(storage.check, StorageRefused)
        assert "trial write" in fault.message
        assert f"does not allow it in bucket {settings.bucket}" in fault.message
        assert "right to read and write" in fault.remedy

    def test_a_right_to_write_but_not_to_delete_is_told(self, proxy: Proxy, settings: StorageSettings) -> None:
        proxy.answer(lambda line: line.startswith("DELETE "), 403, "AccessDenied")
        with Storage(settings) as storage:
            _, fault = took(storage.check, StorageRefused)
        assert "trial deletion" in fault.message
        assert "does not allow it" in fault.message

    def test_another_kind_of_server_is_told(self, settings: StorageSettings, proxy: Proxy) -> None:
        with Storage(via(settings, f"https{proxy.endpoint.removeprefix('http')}")) as storage:
            _, fault = took(storage.check, StorageUnreachable)
        assert "no encrypted connection can be made" in fault.message

    @pytest.mark.parametrize(
        ("status", "code", "kind", "words"),
        [
            (401, "Unauthorized", StorageRefused, "R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY"),
            (403, "InvalidAccessKeyId", StorageRefused, "R2_ACCESS_KEY_ID"),
            (403, "RequestTimeTooSkewed", StorageRefused, "clock"),
            (301, "PermanentRedirect", StorageRefused, "R2_ENDPOINT_URL"),
            (507, "InsufficientStorage", StorageRefused, "no room"),
            (400, "OddRequest", StorageRefused, "answers 400 OddRequest: as told"),
            (429, "TooManyRequests", StorageUnreachable, "Try again later"),
            (503, "SlowDown", StorageUnreachable, "answers 503 SlowDown"),
        ],
    )
    def test_what_services_answer_is_told_in_terms_of_what_to_do(
        self, swift: SwiftServer, status: int, code: str, kind: type[StorageFault], words: str
    ) -> None:
        with Proxy(swift.endpoint) as proxy, Storage(via(swift.settings, proxy.endpoint)) as storage:
            proxy.answer(lambda _: True, status, code)
            seconds, fault = took(storage.check, kind)
        assert words in f"{fault.message} {fault.remedy}"
        assert seconds < 10

    @ONE_IN_CI
    @pytest.mark.parametrize(
        ("request_", "status", "code", "times"),
        [("PUT ", 429, "TooManyRequests", 5), ("GET ", 503, "SlowDown", 3), ("DELETE ", 429, "", 3)],
    )
    def test_a_burst_of_refusals_because_of_too_many_requests_is_waited_for(
        self, proxy: Proxy, settings: StorageSettings, request_: str, status: int, code: str, times: int
    ) -> None:
        proxy.answer(lambda line: line.startswith(request_), status, code, times=times)
        with Storage(settings) as storage:
            storage.check()
            assert list(storage.list("")) == []

    @ONE_IN_CI
    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
    def test_a_dead_proxy_is_named_and_not_the_endpoint(
        self, settings: StorageSettings, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(variable, f"http://me:secret@127.0.0.1:{port}")
        with Storage(settings) as storage:
            seconds, fault = took(storage.check, StorageUnreachable)
        assert seconds < 8
        assert f"the proxy 127.0.0.1:{port} that {variable} names does not answer" in fault.message
        assert fault.remedy == f"Correct or unset {variable}, or name 127.0.0.1 in NO_PROXY."


class TestTags:
    """ETags as gateways and proxies give them: none, weak ones, and others for HEAD than for GET."""

    @ONE_IN_CI
    @pytest.mark.parametrize(
        ("pattern", "put"),
        [(rb"\r\nETag: [^\r]*", b""), (rb"\r\nETag: ", b"\r\nETag: W/")],
        ids=["none", "weak"],
    )
    def test_files_go_there_and_come_back_over_connections_that_break(
        self, proxy: Proxy, settings: StorageSettings, tmp_path: Path, pattern: bytes, put: bytes
    ) -> None:
        proxy.change(lambda _: True, pattern, put)
        source, target = written(tmp_path / "source", 2 * PART + 7), tmp_path / "target"
        with Storage(settings, timeout_s=5) as storage:
            assert storage.upload(source, "parts", part_size=PART).sha256 == sha256(source)
            assert storage.upload(source, "whole", part_size=3 * PART).sha256 == sha256(source)
            for key in ("parts", "whole"):
                proxy.cut_after(PART)
                storage.download(key, target)
                assert target.read_bytes() == source.read_bytes()
            found = storage.head("whole")
        assert found is not None
        assert not found.etag.startswith("W/")


class TestPatience:
    def test_an_overloaded_server_is_waited_for(self, proxy: Proxy, settings: StorageSettings) -> None:
        proxy.answer(lambda line: line.startswith("PUT "), 503, "SlowDown")
        with Storage(settings, patience_s=20) as storage, later(2, proxy.pass_on):
            storage.put("key", b"data")
            assert storage.get("key") == b"data"

    def test_patience_ends(self, proxy: Proxy, settings: StorageSettings) -> None:
        proxy.refuse()
        with Storage(settings, patience_s=2) as storage:
            seconds, fault = took(lambda: storage.put("key", b"data"), StorageUnreachable)
        assert 2 <= seconds < 10
        assert fault.transient

    def test_what_will_not_pass_is_not_waited_for(self, proxy: Proxy, settings: StorageSettings) -> None:
        proxy.answer(lambda line: line.startswith("PUT "), 403, "AccessDenied")
        with Storage(settings, patience_s=60) as storage:
            seconds, fault = took(lambda: storage.put("key", b"data"), StorageRefused)
        assert seconds < 10
        assert not fault.transient

    @pytest.mark.parametrize("part_size", [PART, 10 * PART], ids=["in parts", "at once"])
    def test_an_upload_goes_on_over_a_connection_that_was_cut(
        self, proxy: Proxy, settings: StorageSettings, tmp_path: Path, part_size: int
    ) -> None:
        source, sent = written(tmp_path / "source", 4 * PART), []
        proxy.cut_after(2 * PART)
        with Storage(settings, timeout_s=5) as storage:
            stored = storage.upload(source, "key", part_size=part_size, on_progress=lambda done, _: sent.append(done))
        assert stored.sha256 == sha256(source)
        assert proxy.sent > 4 * PART + SLACK, "something was sent twice"
        assert sent == sorted(sent)

    @pytest.mark.parametrize("away_s", [2, pytest.param(20, marks=pytest.mark.slow)])
    def test_a_server_gone_for_a_while_in_mid_transfer_and_back_is_survived(
        self, proxy: Proxy, settings: StorageSettings, tmp_path: Path, away_s: int
    ) -> None:
        source, target = written(tmp_path / "source", 6 * PART), tmp_path / "target"
        with Storage(settings) as storage:
            for act in (
                lambda: storage.upload(source, "key", part_size=PART),
                lambda: storage.download("key", target, sha256=sha256(source)),
            ):
                proxy.cut_after(2 * PART, then_refuse=True)
                begun = time.monotonic()
                with later(away_s, proxy.accept):
                    act()
                assert time.monotonic() - begun >= away_s
        assert target.read_bytes() == source.read_bytes()

    def test_a_server_that_is_restarted_in_mid_upload_is_survived(self, swift: SwiftServer, tmp_path: Path) -> None:
        source = written(tmp_path / "source", 6 * PART)
        restarts: list[int] = []

        def restart_once(done: int, _: int) -> None:
            if done > 2 * PART and not restarts:
                restarts.append(done)
                swift.stop()
                time.sleep(1)
                swift.start()

        with Storage(swift.new_bucket(), patience_s=300, timeout_s=20) as storage:
            stored = storage.upload(source, "key", part_size=PART, on_progress=restart_once)
        assert restarts
        assert stored.sha256 == sha256(source)

    def test_a_connection_that_stalls_is_given_up_and_made_anew(self, proxy: Proxy, settings: StorageSettings) -> None:
        with Storage(settings, timeout_s=1) as storage:
            storage.put("key", b"data")
            proxy.stall()

            def mend() -> None:
                proxy.cut()
                proxy.flow()

            with later(3, mend):
                assert storage.get("key") == b"data"


class TestUpload:
    def test_an_upload_that_broke_off_is_resumed(
        self, proxy: Proxy, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        source = written(tmp_path / "source", 8 * PART + 777)
        with Storage(settings, patience_s=0.5) as storage:
            proxy.cut_after(5 * PART, then_refuse=True)
            with pytest.raises(StorageUnreachable):
                storage.upload(source, "key", part_size=PART)
            assert direct.head("key") is None
            (there,) = parts_of(direct, "key")
            assert 1 <= len(there) <= 5
            proxy.accept()
            before, sent = proxy.sent, []
            stored = storage.upload(
                source, "key", part_size=PART, content_type="video/mp4", on_progress=lambda done, _: sent.append(done)
            )
        missing = source.stat().st_size - sum(there.values())
        assert missing <= proxy.sent - before <= missing + SLACK
        assert sent == sorted(sent)
        assert stored.sha256 == sha256(source)
        assert not unfinished(direct)

    def test_progress_of_a_resumed_upload_begins_with_what_is_there(
        self, proxy: Proxy, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        source = written(tmp_path / "source", 4 * PART)
        begun = begin(direct, "key", source, [(1, PART), (2, PART)])
        sent: list[int] = []
        with Storage(settings) as storage:
            storage.upload(source, "key", part_size=PART, on_progress=lambda done, _: sent.append(done))
        assert next(done for done in sent if done) >= PART
        assert not [done for done in sent if 0 < done < PART]
        assert proxy.sent <= 2 * PART + SLACK
        assert parts_of(direct, "key") == []
        assert begun

    def test_an_upload_that_was_begun_and_no_more_is_not_taken_for_another_content(
        self, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        source, other = written(tmp_path / "source", 3 * PART), written(tmp_path / "other", 3 * PART, seed=1)
        begin(direct, "key", other, [])
        with Storage(settings) as storage:
            assert storage.upload(source, "key", part_size=PART).sha256 == sha256(source)
        assert not unfinished(direct)

    def test_an_upload_is_resumed_with_the_size_of_its_parts(
        self, proxy: Proxy, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        source = written(tmp_path / "source", 4 * PART)
        begin(direct, "key", source, [(1, PART), (3, PART), (4, PART)])
        with Storage(settings) as storage:
            assert storage.upload(source, "key", part_size=PART + MIB).sha256 == sha256(source)
        assert proxy.sent <= PART + SLACK

    def test_parts_of_another_file_are_sent_again(
        self, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        source, other = written(tmp_path / "source", 3 * PART), written(tmp_path / "other", 3 * PART, seed=1)
        begin(direct, "key", other, [(1, PART), (2, PART)])
        with Storage(settings) as storage:
            assert storage.upload(source, "key", part_size=PART).sha256 == sha256(source)
            storage.download("key", tmp_path / "target", sha256=sha256(source))
        assert not unfinished(direct)

    def test_an_upload_that_is_of_no_use_is_aborted(
        self, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        source = written(tmp_path / "source", 3 * PART)
        begin(direct, "key", source, [(1, PART), (2, PART + 1)])
        begin(direct, "key", source, [(9, PART)])
        begin(direct, "key", source, [(1, PART)])
        begin(direct, "key-of-another", source, [(1, PART)])
        with Storage(settings) as storage:
            storage.upload(source, "key", part_size=PART)
        assert parts_of(direct, "") == [{1: PART}]

    def test_publishing_leaves_nothing_where_it_fails(
        self, proxy: Proxy, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        source = written(tmp_path / "clip.mp4", 30 * MIB)
        proxy.answer(lambda line: "partNumber=3" in line, 403, "AccessDenied")
        with Storage(settings) as storage, pytest.raises(StorageRefused):
            storage.publish(source, "clips/clip.mp4", "video/mp4")
        assert direct.head("clips/clip.mp4") is None
        assert not unfinished(direct)

    def test_a_stop_is_prompt_and_leaves_the_parts_for_later(
        self, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        source, job = written(tmp_path / "source", 12 * PART), new_job_id()
        stop = threading.Event()
        stopped: list[float] = []

        def watch(done: int, _: int) -> None:
            if done > 4 * PART and not stop.is_set():
                stop.set()
                stopped.append(time.monotonic())

        with Storage(settings) as storage:
            with pytest.raises(Interrupted):
                storage.upload(source, source_key(job, ""), part_size=PART, on_progress=watch, should_stop=stop.is_set)
            assert time.monotonic() - stopped[0] < 6
            (there,) = parts_of(direct, source_key(job, ""))
            assert there
            assert storage.delete_prefix(job_prefix(job)) >= 1
        assert not unfinished(direct)

    def test_a_stop_is_prompt_while_the_line_stalls_or_the_server_is_away(
        self, proxy: Proxy, settings: StorageSettings, tmp_path: Path
    ) -> None:
        source, target = written(tmp_path / "source", 4 * PART), tmp_path / "target"
        with Storage(settings) as storage:
            for trouble, relief in ((proxy.stall, proxy.flow), (proxy.refuse, proxy.accept)):
                trouble()
                try:
                    stop = threading.Event()
                    with later(1, stop.set):
                        seconds, _ = took(
                            lambda stop=stop: storage.upload(  # type: ignore[misc]
                                source, "key", sha256=sha256(source), part_size=8 * PART, should_stop=stop.is_set
                            ),
                            Interrupted,
                        )
                    assert seconds < 8
                finally:
                    relief()
            proxy.refuse()
            stop = threading.Event()
            with later(1, stop.set):
                seconds, _ = took(lambda: storage.download("key", target, should_stop=stop.is_set), Interrupted)
            assert seconds < 6
        assert not target.exists()

    def test_a_file_that_changes_meanwhile_is_an_error(
        self, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        source = written(tmp_path / "source", 12 * PART)

        def meddle(done: int, _: int) -> None:
            if done > PART:
                with source.open("r+b") as stream:
                    stream.seek(-1, 2)
                    stream.write(b"?")

        with Storage(settings) as storage, pytest.raises(InputError, match="changed while it was uploaded"):
            storage.upload(source, "key", part_size=PART, on_progress=meddle)
        assert direct.head("key") is None
        assert not unfinished(direct)

    def test_an_upload_whose_last_answer_is_lost_is_done(
        self, proxy: Proxy, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        source = written(tmp_path / "source", 2 * PART)
        uploads: list[str] = []

        def complete_it_first(line: str) -> bool:
            # The proxy answers in the server's place, once; meanwhile the upload is completed, as it would have been.
            if not line.startswith("POST ") or "uploadId=" not in line or uploads:
                return False
            uploads.append(line)
            client, bucket = direct.client, direct.settings.bucket
            (upload,) = client.list_multipart_uploads(Bucket=bucket, Prefix="key")["Uploads"]
            parts = client.list_parts(Bucket=bucket, Key="key", UploadId=upload["UploadId"])["Parts"]
            done = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]
            client.complete_multipart_upload(
                Bucket=bucket, Key="key", UploadId=upload["UploadId"], MultipartUpload={"Parts": done}
            )
            return True

        proxy.answer(complete_it_first, 500, "InternalError")
        with Storage(settings) as storage:
            assert storage.upload(source, "key", part_size=PART).sha256 == sha256(source)
        assert uploads

    def test_a_bucket_that_is_full_is_told(self, swift: SwiftServer, tmp_path: Path) -> None:
        settings = swift.new_bucket()
        swift.limit(settings.bucket, 1000)
        with Storage(settings) as storage:
            storage.put("small", bytes(100))
            for act in (
                lambda: storage.put("large", bytes(2000)),
                lambda: storage.upload(written(tmp_path / "source", 2000), "large"),
            ):
                seconds, fault = took(act, StorageRefused)
                assert f"no room for it in bucket {settings.bucket}" in fault.message
                assert seconds < 10


def begin(storage: Storage, key: str, source: Path, parts: list[tuple[int, int]]) -> str:
    """An unfinished upload of a file, of which these parts (number, bytes) are there."""
    client, bucket = storage.client, storage.settings.bucket
    upload = client.create_multipart_upload(Bucket=bucket, Key=key, Metadata={"sha256": sha256(source)})
    content = source.read_bytes()
    for number, size in parts:
        body = content[(number - 1) * PART :][:size].ljust(size, b"\0")
        client.upload_part(Bucket=bucket, Key=key, UploadId=upload["UploadId"], PartNumber=number, Body=body)
    return str(upload["UploadId"])


class TestDownload:
    def test_a_download_that_broke_off_goes_on_where_it_was(
        self, proxy: Proxy, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        source, target = written(tmp_path / "source", 6 * PART), tmp_path / "target"
        direct.upload(source, "key", part_size=2 * PART)
        got: list[int] = []
        with Storage(settings) as storage:
            proxy.cut_after(4 * PART)
            storage.download("key", target, sha256=sha256(source), on_progress=lambda done, _: got.append(done))
        assert target.read_bytes() == source.read_bytes()
        assert sum(line.startswith("GET ") for line in proxy.requests) == 2
        assert proxy.received < 7 * PART
        assert got == sorted(got)

    @pytest.mark.parametrize("given", [True, False], ids=["checksum given", "checksum stored"])
    def test_damage_in_storage_is_found(self, server: S3Server, tmp_path: Path, given: bool) -> None:
        source, target = written(tmp_path / "source", 100_000), tmp_path / "target"
        target.write_bytes(b"from before")
        with Storage(server.new_bucket()) as storage:
            stored = storage.upload(source, "temp/chunk.mp4")
            damaged = bytearray(source.read_bytes())
            damaged[50_000] ^= 1
            storage.client.put_object(
                Bucket=storage.settings.bucket,
                Key="temp/chunk.mp4",
                Body=bytes(damaged),
                Metadata={"sha256": str(stored.sha256)},
            )
            with pytest.raises(ObjectDamaged, match=r"temp/chunk\.mp4 was damaged in storage"):
                storage.download("temp/chunk.mp4", target, sha256=stored.sha256 if given else None)
        assert target.read_bytes() == b"from before"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]

    def test_another_size_is_found_before_anything_is_read(self, server: S3Server, tmp_path: Path) -> None:
        with Storage(server.new_bucket()) as storage:
            storage.put("key", b"12345")
            with pytest.raises(ObjectDamaged, match="has 5 bytes in storage, not 6"):
                storage.download("key", tmp_path / "target", size=6)
        assert list(tmp_path.iterdir()) == []

    def test_an_object_that_is_replaced_meanwhile_is_not_mixed_with_the_other(
        self, proxy: Proxy, settings: StorageSettings, direct: Storage, tmp_path: Path
    ) -> None:
        direct.put("key", random.Random(0).randbytes(6 * PART))
        done: list[int] = []

        def replace(so_far: int, _: int) -> None:
            if so_far > PART and not done:
                done.append(so_far)
                direct.put("key", random.Random(1).randbytes(6 * PART))
                proxy.cut()

        with Storage(settings) as storage, pytest.raises(ObjectDamaged, match="while it was downloaded"):
            storage.download("key", tmp_path / "target", on_progress=replace)
        assert list(tmp_path.iterdir()) == []

    def test_a_stop_leaves_no_file(self, server: S3Server, tmp_path: Path) -> None:
        stop = threading.Event()
        with Storage(server.new_bucket()) as storage:
            storage.put("key", bytes(4 * PART))
            with pytest.raises(Interrupted):
                storage.download("key", tmp_path / "target", on_progress=lambda *_: stop.set(), should_stop=stop.is_set)
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_is_full_is_told_and_not_tried_again(self, server: S3Server, tmp_path: Path) -> None:
        with Storage(server.new_bucket()) as storage:
            storage.put("key", bytes(PART))
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
            try:
                _, fault = took(lambda: storage.download("key", tmp_path / "target"), StorageError)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert "target.part cannot be written" in fault.message
            with pytest.raises(StorageError, match="cannot be written"):
                storage.download("key", tmp_path / "absent" / "target")
        assert list(tmp_path.iterdir()) == []


class TestCleanUp:
    def test_everything_is_tried_before_a_fault_is_raised(
        self, proxy: Proxy, settings: StorageSettings, direct: Storage
    ) -> None:
        job = new_job_id()
        for number in range(12):
            direct.put(f"{job_prefix(job)}{number:02}", b"x")
        proxy.answer(lambda line: line.startswith("DELETE ") and "/05" in line, 403, "AccessDenied")
        with Storage(settings) as storage:
            with pytest.raises(StorageRefused, match=r"deletion of .*/05"):
                storage.delete_prefix(job_prefix(job))
            assert [item.key[-2:] for item in direct.list(job_prefix(job))] == ["05"]
            proxy.pass_on()
            assert storage.delete_prefix(job_prefix(job)) == 1

    def test_a_server_that_goes_away_is_waited_for_once_and_not_for_every_object(
        self, proxy: Proxy, settings: StorageSettings, direct: Storage
    ) -> None:
        job = new_job_id()
        for number in range(40):
            direct.put(f"{job_prefix(job)}{number:02}", b"x")
        proxy.answer(lambda line: line.startswith("DELETE "), 503, "SlowDown")
        with Storage(settings, patience_s=2) as storage:
            seconds, _ = took(lambda: storage.delete_prefix(job_prefix(job)), StorageUnreachable)
        assert seconds < 20


class TestSecrets:
    @ONE_IN_CI
    def test_no_fault_and_no_log_record_gives_a_secret_away(
        self, settings: StorageSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        source, job = written(tmp_path / "source", 2 * PART), new_job_id()
        told: list[str] = []
        attempts: list[Callable[[Storage], object]] = [
            lambda storage: storage.check(),
            lambda storage: storage.put("key", b"data"),
            lambda storage: storage.get("key"),
            lambda storage: storage.head("key"),
            lambda storage: storage.delete("key"),
            lambda storage: list(storage.list("temp/")),
            lambda storage: storage.upload(source, "key", part_size=PART),
            lambda storage: storage.upload(source, "key", part_size=4 * PART),
            lambda storage: storage.download("key", tmp_path / "target"),
            lambda storage: storage.delete_prefix(job_prefix(job)),
            lambda storage: storage.stale_jobs(timedelta(0)),
        ]
        wrong = [
            via(settings, "http://127.0.0.1:9"),
            via(settings, "http://storage.invalid"),
            via(settings, f"https{settings.endpoint.removeprefix('http')}"),
            dataclasses.replace(settings, secret_key=f"{settings.secret_key}-wrong"),
            dataclasses.replace(settings, access_key=f"{settings.access_key}-wrong"),
            dataclasses.replace(settings, bucket="elsewhere"),
        ]
        failed = 0
        for one in [settings, *wrong]:
            with Storage(one, patience_s=0, timeout_s=5) as storage:
                told += [repr(storage), str(storage)]
                for attempt in attempts:
                    try:
                        attempt(storage)
                    except RemoteError as fault:
                        failed += 1
                        assert fault.__context__ is None
                        assert fault.__cause__ is None
                        trail = "".join(traceback.format_exception(fault, chain=True))
                        told += [str(fault), repr(fault), str(fault.remedy), repr(vars(fault)), trail]
        assert failed >= 50
        told += [record.getMessage() for record in caplog.records]
        told += [str(record.exc_info) for record in caplog.records]
        assert len(caplog.records) > 50, "urllib3 tells of every request"
        everything = "\n".join(told)
        for secret in (settings.secret_key, settings.access_key, "X-Amz-Signature", "Signature=", "Credential="):
            assert secret.lower() not in everything.lower()

    def test_a_server_that_repeats_the_keys_is_not_quoted(self, swift: SwiftServer) -> None:
        settings = swift.settings
        with Proxy(swift.endpoint) as proxy, Storage(via(settings, proxy.endpoint), patience_s=0) as storage:
            told = (
                f"key {settings.access_key} and {settings.secret_key} in http://host/path?X-Amz-Signature=abc#x "
                f"X-Amz-Credential={settings.access_key}"
            )
            proxy.answer(lambda _: True, 400, "OddRequest", message=told)
            with pytest.raises(StorageRefused) as caught:
                storage.get("key")
        assert "OddRequest" in caught.value.message
        for secret in (settings.access_key, settings.secret_key, "abc", "X-Amz"):
            assert secret not in caught.value.message


def test_a_missing_object_is_told_apart_from_a_missing_bucket(settings: StorageSettings) -> None:
    with Storage(settings) as storage, pytest.raises(ObjectMissing):
        storage.get("absent")
    with Storage(dataclasses.replace(settings, bucket="elsewhere")) as storage, pytest.raises(StorageRefused):
        storage.get("absent")
