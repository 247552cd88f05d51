"""Object storage, against real servers: what is stored, listed, signed, published and cleaned up, and what is sent."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support.s3 import Proxy, RcloneServer, S3Server, via
from support.s3.process import free_port, listens

from keyscale.engine.errors import InputError, Interrupted, RemoteError, UsageError
from keyscale.engine.storage.bucket import (
    ObjectMissing,
    Storage,
    StorageSettings,
    job_of,
    job_prefix,
    new_job_id,
    parse_address,
    source_key,
)
from keyscale.engine.storage.settings import new_trial

MIB = 1 << 20
PART = 5 * MIB
"""The smallest part that servers take."""

COMPLETE = {
    "R2_ACCOUNT_ID": "0123456789abcdef0123456789abcdef",
    "R2_ACCESS_KEY_ID": "an-access-key",
    "R2_SECRET_ACCESS_KEY": "a-secret-key",
    "R2_BUCKET_NAME": "videos",
}


@pytest.fixture
def storage(bucket: StorageSettings) -> Iterator[Storage]:
    with Storage(bucket, patience_s=10) as storage:
        yield storage


def written(path: Path, size: int, seed: int = 0) -> Path:
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unfinished(storage: Storage, prefix: str = "") -> list[str]:
    """Keys of the multipart uploads that are neither completed nor aborted."""
    try:
        page = storage.client.list_multipart_uploads(Bucket=storage.settings.bucket, Prefix=prefix)
    except storage.client.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "NoSuchUpload"  # rclone's word for none
        return []
    return [upload["Key"] for upload in page.get("Uploads", ())]


class TestSettings:
    def test_an_account_gives_the_endpoint(self) -> None:
        settings = StorageSettings.from_environment(COMPLETE)
        assert settings.endpoint == "https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"
        assert (settings.bucket, settings.region) == ("videos", "auto")
        assert (settings.access_key, settings.secret_key) == ("an-access-key", "a-secret-key")

    @pytest.mark.parametrize(
        ("url", "endpoint"),
        [
            ("https://s3.example.com", "https://s3.example.com"),
            ("https://s3.example.com/", "https://s3.example.com"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("http://[::1]:9000", "http://[::1]:9000"),
        ],
    )
    def test_an_address_wins_over_the_account(self, url: str, endpoint: str) -> None:
        assert StorageSettings.from_environment({**COMPLETE, "R2_ENDPOINT_URL": url}).endpoint == endpoint

    def test_all_missing_variables_are_named_at_once(self) -> None:
        with pytest.raises(RemoteError) as caught:
            StorageSettings.from_environment({"R2_BUCKET_NAME": "  "})
        assert caught.value.exit_code == 5
        for name in ("R2_ENDPOINT_URL", "R2_ACCOUNT_ID", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "R2_BUCKET_NAME"):
            assert name in caught.value.message
            assert name in (caught.value.remedy or "")

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("R2_ENDPOINT_URL", "s3.example.com", "not of the form"),
            ("R2_ENDPOINT_URL", "ftp://s3.example.com", "not of the form"),
            ("R2_ENDPOINT_URL", "https://", "not of the form"),
            ("R2_ENDPOINT_URL", "https://s3.example.com:port", "not an address"),
            ("R2_ENDPOINT_URL", "https://s3.example.com/videos", "leave out the name of the bucket"),
            ("R2_ENDPOINT_URL", "https://me:hidden@s3.example.com", "has more in it than https://s3.example.com"),
            ("R2_ENDPOINT_URL", "https://s3.example.com?token=hidden", "has more in it than https://s3.example.com"),
            ("R2_ACCOUNT_ID", "hidden", "32 hexadecimal digits"),
            ("R2_ACCESS_KEY_ID", "hidden key", "white space"),
            ("R2_SECRET_ACCESS_KEY", "hidden\n", "white space"),
            ("R2_BUCKET_NAME", "hidden_Videos", "not the name of a bucket"),
        ],
    )
    def test_an_odd_value_is_named_without_giving_a_secret_away(self, name: str, value: str, words: str) -> None:
        with pytest.raises(RemoteError) as caught:
            StorageSettings.from_environment({**COMPLETE, name: value})
        assert name in caught.value.message
        assert words in caught.value.message
        assert "hidden" not in f"{caught.value.message} {caught.value.remedy}"

    def test_the_keys_do_not_show(self) -> None:
        settings = StorageSettings.from_environment(COMPLETE)
        with Storage(settings) as storage:
            assert not re.search("an-access-key|a-secret-key", f"{settings!r} {settings} {storage!r} {vars(storage)}")


class TestNames:
    @pytest.mark.parametrize(
        ("text", "bucket", "key"),
        [
            ("r2://videos/talk.mp4", "videos", "talk.mp4"),
            ("R2://my.videos/a/b c/über.mp4", "my.videos", "a/b c/über.mp4"),
            ("r2://videos/why?.mp4#1", "videos", "why?.mp4#1"),
            ("r2://videos/100%20.mp4", "videos", "100%20.mp4"),
        ],
    )
    def test_an_address_is_a_bucket_and_a_key_taken_as_it_stands(self, text: str, bucket: str, key: str) -> None:
        assert parse_address(text) == (bucket, key)

    @pytest.mark.parametrize(
        "text",
        [
            "talk.mp4",
            "s3://videos/talk.mp4",
            "r2:/videos/talk.mp4",
            "r2://",
            "r2:///talk.mp4",
            "r2://videos",
            "r2://videos/",
            "r2://videos/clips/",
            "r2://videos//talk.mp4",
            "r2://videos/../talk.mp4",
            "r2://Videos/talk.mp4",
            "r2://v/talk.mp4",
            "r2://videos/a\nb.mp4",
            f"r2://videos/{'x' * 1025}",
        ],
    )
    def test_other_forms_are_refused_with_the_right_one(self, text: str) -> None:
        with pytest.raises(UsageError) as caught:
            parse_address(text)
        assert "r2://BUCKET/KEY" in (caught.value.remedy or "")

    @pytest.mark.parametrize("key", ["temp/upscale_a/x.mp4", "temp/upscale_x.mp4", "temp/keyscale-check-0/x.mp4"])
    def test_no_address_lies_where_clean_up_would_remove_what_is_stored_there(self, key: str) -> None:
        with pytest.raises(UsageError, match="where jobs are staged") as caught:
            parse_address(f"r2://videos/{key}")
        assert "begins with neither temp/upscale_ nor temp/keyscale-check-" in (caught.value.remedy or "")
        assert parse_address(f"r2://videos/clips/{key}") == ("videos", f"clips/{key}")

    def test_jobs_have_names_of_their_own_that_sort_by_time(self) -> None:
        names = {new_job_id() for _ in range(100)}
        assert len(names) == 100
        assert all(re.fullmatch("[a-z0-9-]+", name) for name in names)
        earlier = new_job_id()
        time.sleep(1.1)
        assert earlier < new_job_id()

    def test_everything_of_a_job_lies_below_its_prefix(self) -> None:
        job = new_job_id()
        assert job_prefix(job) == f"temp/upscale_{job}/"
        assert source_key(job, ".MP4") == f"temp/upscale_{job}/source.mp4"
        assert source_key(job, "") == source_key(job, ".m/../p") == f"temp/upscale_{job}/source"
        assert job_of(source_key(job, ".mov")) == job_of(job_prefix(job)) == job
        assert job_of("temp/other/source.mp4") is job_of("clips/temp/upscale_a/x") is None
        for odd in ("", "../up", "a/b", "A", "x" * 65):
            with pytest.raises(UsageError):
                job_prefix(odd)


class TestObjects:
    def test_bytes_come_back_as_they_were_put(self, storage: Storage) -> None:
        storage.put("temp/ä b.bin", b"content", "video/x-test")
        assert storage.get("temp/ä b.bin") == b"content"
        found = storage.head("temp/ä b.bin")
        assert found is not None
        assert (found.key, found.size, found.content_type, found.sha256) == ("temp/ä b.bin", 7, "video/x-test", None)
        assert found.etag == hashlib.md5(b"content", usedforsecurity=False).hexdigest()
        assert abs(found.modified - datetime.now(UTC)) < timedelta(minutes=1)

    def test_what_is_not_there_is_missing(self, storage: Storage, tmp_path: Path) -> None:
        assert storage.head("absent") is None
        with pytest.raises(ObjectMissing, match="download of absent"):
            storage.get("absent")
        with pytest.raises(ObjectMissing, match="download of absent"):
            storage.download("absent", tmp_path / "file")
        storage.delete("absent")
        assert list(tmp_path.iterdir()) == []

    def test_a_listing_goes_on_over_pages(self, storage: Storage) -> None:
        keys = [f"clips/{number:03}" for number in range(25)]
        for key in (*keys, "clip", "other/x"):
            storage.put(key, key.encode())
        found = list(storage.list("clips/"))
        assert [item.key for item in found] == keys
        assert {item.size for item in found} == {9}
        assert list(storage.list("nothing/")) == []

    @pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 2 * PART, 4 * PART + 12345])
    def test_a_file_comes_back_whole_with_its_checksum(self, storage: Storage, tmp_path: Path, size: int) -> None:
        source, target = written(tmp_path / "source.mp4", size), tmp_path / "target.mp4"
        sent: list[tuple[int, int]] = []
        got: list[tuple[int, int]] = []
        stored = storage.upload(
            source, "a/b.mp4", content_type="video/mp4", part_size=PART, on_progress=lambda *at: sent.append(at)
        )
        assert (stored.size, stored.content_type, stored.sha256) == (size, "video/mp4", sha256(source))
        assert storage.head("a/b.mp4") == stored
        storage.download("a/b.mp4", target, sha256=stored.sha256, size=size, on_progress=lambda *at: got.append(at))
        assert target.read_bytes() == source.read_bytes()
        assert sent[-1] == (size, size)
        assert sent == sorted(sent)
        assert not size or got[-1] == (size, size)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source.mp4", "target.mp4"]
        assert unfinished(storage) == []

    def test_progress_is_finer_than_a_part(self, server: S3Server, proxy: Proxy, tmp_path: Path) -> None:
        source = written(tmp_path / "source", 2 * PART)
        sent: list[int] = []
        with Storage(via(server.new_bucket(), proxy.endpoint)) as storage:
            storage.upload(source, "key", part_size=PART, on_progress=lambda done, _: sent.append(done))
        assert any(done % PART for done in sent[:-1])

    def test_a_checksum_that_is_known_is_checked_against_the_file(self, storage: Storage, tmp_path: Path) -> None:
        source = written(tmp_path / "source", 2 * PART)
        assert storage.upload(source, "key", sha256=sha256(source), part_size=PART).sha256 == sha256(source)
        for size in (PART, 4 * PART):
            with pytest.raises(InputError, match="changed while it was uploaded"):
                storage.upload(source, "other", sha256="0" * 64, part_size=size)
        assert storage.head("other") is None
        assert unfinished(storage) == []

    def test_a_file_that_cannot_be_read_is_named(self, storage: Storage, tmp_path: Path) -> None:
        for given in (None, "0" * 64):
            with pytest.raises(InputError, match=r"absent\.mp4 cannot be read"):
                storage.upload(tmp_path / "absent.mp4", "key", sha256=given)

    def test_publishing_checks_what_is_there(self, storage: Storage, tmp_path: Path) -> None:
        source = written(tmp_path / "clip.mp4", PART + 1)
        found = storage.publish(source, "clips/my clip.mp4", "video/mp4")
        assert (found.size, found.content_type, found.sha256) == (PART + 1, "video/mp4", sha256(source))

    def test_a_storage_serves_several_threads(self, storage: Storage) -> None:
        def there_and_back(number: int) -> bool:
            data = random.Random(number).randbytes(100_000)
            storage.put(f"many/{number}", data)
            return storage.get(f"many/{number}") == data

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(there_and_back, range(24)))
        assert len(list(storage.list("many/"))) == 24


class TestSignedAddresses:
    def test_a_signed_address_reads_a_range(self, storage: Storage) -> None:
        storage.put("temp/x", b"0123456789")
        answer = anyone("GET", storage.presign_get("temp/x", 60), headers={"Range": "bytes=2-4"})
        assert (answer.headers["Content-Range"], answer.data) == ("bytes 2-4/10", b"234")

    def test_a_signed_address_writes_with_its_type(self, storage: Storage) -> None:
        url = storage.presign_put("temp/x y", 60, "video/mp4")
        assert anyone("PUT", url, body=b"sent", headers={"Content-Type": "video/mp4"}).status == 200
        found = storage.head("temp/x y")
        assert found is not None
        assert (found.size, found.content_type) == (4, "video/mp4")

    def test_a_signed_address_removes_one_object(self, storage: Storage) -> None:
        storage.put("temp/x", b"to go")
        storage.put("temp/y", b"to stay")
        url = storage.presign_delete("temp/x", 60)
        assert anyone("DELETE", url.replace("/temp/x?", "/temp/y?")).status == 403
        assert anyone("DELETE", url).status == 204
        assert [found.key for found in storage.list("temp/")] == ["temp/y"]

    def test_a_signed_address_is_for_one_method_key_and_type(self, storage: Storage) -> None:
        storage.put("temp/x", b"secret")
        good = storage.presign_get("temp/x", 60)
        typed = storage.presign_put("temp/x", 60, "video/mp4")
        assert anyone("GET", good.replace("/temp/x?", "/temp/y?")).status == 403
        assert anyone("PUT", good, body=b"altered").status == 403
        assert anyone("PUT", typed, body=b"altered", headers={"Content-Type": "text/html"}).status == 403
        assert storage.get("temp/x") == b"secret"

    def test_a_signed_address_expires(self, storage: Storage) -> None:
        storage.put("temp/x", b"secret")
        url = storage.presign_get("temp/x", 1)
        time.sleep(2.5)
        answer = anyone("GET", url)
        assert answer.status in {400, 403}
        assert b"secret" not in answer.data

    @pytest.mark.parametrize("seconds", [0, -5, 604801])
    def test_a_time_that_cannot_be_signed_is_refused(self, seconds: int) -> None:
        with (
            Storage(StorageSettings.from_environment(COMPLETE)) as storage,
            pytest.raises(RemoteError, match="seconds"),
        ):
            storage.presign_get("key", seconds)


def anyone(method: str, url: str, **parameters: Any) -> urllib3.BaseHTTPResponse:
    """What a signed address answers to someone who has nothing but it."""
    with urllib3.PoolManager() as pool:
        return pool.request(method, url, retries=False, timeout=20, **parameters)


class TestCleanUp:
    def test_all_of_a_job_goes_unfinished_uploads_included_and_nothing_else(self, storage: Storage) -> None:
        job, bucket = new_job_id(), storage.settings.bucket
        others = ["temp/other", f"temp/upscale_{job}0/source.mp4", "clips/talk.mp4", f"temp/upscale_{job}.txt"]
        for key in others:
            storage.put(key, b"keep")
        kept = storage.client.create_multipart_upload(Bucket=bucket, Key="clips/big.mp4")
        for number in range(15):
            storage.put(f"{job_prefix(job)}chunk-{number}", b"x")
        for name in ("source.mp4", "a b.mp4"):
            upload = storage.client.create_multipart_upload(Bucket=bucket, Key=job_prefix(job) + name)
            storage.client.upload_part(
                Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"], PartNumber=1, Body=b"part"
            )
        assert storage.delete_prefix(job_prefix(job)) == 17
        assert sorted(item.key for item in storage.list("")) == sorted(others)
        assert unfinished(storage) == [kept["Key"]]
        assert storage.delete_prefix(job_prefix(job)) == 0

    @pytest.mark.parametrize(
        "prefix", ["", "/", "temp/", "temp/upscale_", "temp/upscale_a", "temp/upscale_a/b", "clips/"]
    )
    def test_nothing_but_a_job_is_deleted_as_a_whole(self, storage: Storage, prefix: str) -> None:
        storage.put("temp/upscale_a/b", b"keep")
        with pytest.raises(UsageError, match="nothing else is ever deleted"):
            storage.delete_prefix(prefix)
        assert storage.get("temp/upscale_a/b") == b"keep"

    def test_jobs_left_behind_are_found_by_their_last_sign_of_life(self, storage: Storage) -> None:
        begun, staged = new_job_id(), new_job_id()
        storage.put(source_key(staged, ".mp4"), b"12345")
        storage.put(f"{job_prefix(staged)}chunk", b"123")
        storage.put("temp/other", b"no job")
        upload = storage.client.create_multipart_upload(Bucket=storage.settings.bucket, Key=source_key(begun, ".mp4"))
        storage.client.upload_part(
            Bucket=storage.settings.bucket, Key=upload["Key"], UploadId=upload["UploadId"], PartNumber=1, Body=b"1234"
        )
        assert storage.stale_jobs(timedelta(days=1)) == []
        jobs = {job.job_id: job for job in storage.stale_jobs(timedelta(seconds=-60))}
        assert jobs.keys() == {begun, staged}
        assert (jobs[staged].objects, jobs[staged].uploads, jobs[staged].size) == (2, 0, 8)
        assert (jobs[begun].objects, jobs[begun].uploads, jobs[begun].size) == (0, 1, 4)
        assert all(abs(job.newest - datetime.now(UTC)) < timedelta(minutes=1) for job in jobs.values())
        for job in jobs.values():
            storage.delete_prefix(job_prefix(job.job_id))
        assert storage.stale_jobs(timedelta(seconds=-60)) == []

    def test_trials_of_clients_that_were_killed_are_found_by_their_age_and_nothing_else(self, storage: Storage) -> None:
        trial = new_trial()
        storage.put(trial, b"12345")
        for key in (f"{trial}0", "temp/keyscale-check-mine", f"clips/{trial}", source_key(new_job_id(), "")):
            storage.put(key, b"keep")
        assert storage.stale_trials(timedelta(days=1)) == []
        assert [(found.key, found.size) for found in storage.stale_trials(timedelta(seconds=-60))] == [(trial, 5)]

    @pytest.mark.slow
    def test_an_upload_begun_long_ago_is_alive_while_parts_arrive(self, storage: Storage) -> None:
        job, bucket = new_job_id(), storage.settings.bucket
        upload = storage.client.create_multipart_upload(Bucket=bucket, Key=source_key(job, ""))
        time.sleep(3)
        storage.client.upload_part(
            Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"], PartNumber=1, Body=b"1234"
        )
        assert storage.stale_jobs(timedelta(seconds=2)) == []


class TestRequests:
    """What https would send, which no server on this machine can show."""

    def test_nothing_is_sent_that_r2_does_not_take(self, tmp_path: Path) -> None:
        sent = recorded(tmp_path)
        assert {"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"} <= sent.keys()
        assert {"HeadObject", "GetObject", "DeleteObject", "ListObjectsV2", "ListMultipartUploads"} <= sent.keys()
        assert "DeleteObjects" not in sent
        for operation, requests in sent.items():
            for request in requests:
                names = {name.lower() for name in request.headers}
                values = " ".join(text(value) for value in request.headers.values())
                where = f"{operation}: {sorted(names)}"
                assert not [name for name in names if re.match(r"x-amz-(checksum|sdk-checksum|trailer)", name)], where
                assert not names & {"content-md5", "transfer-encoding", "x-amz-decoded-content-length"}, where
                assert "aws-chunked" not in values, where
                assert "STREAMING" not in values, where

    def test_a_huge_file_has_larger_parts_rather_than_too_many(self, tmp_path: Path) -> None:
        source = written(tmp_path / "source", 30_001)
        with recording(source) as (storage, sent), pytest.raises(Interrupted):
            storage.upload(source, "key", part_size=1, should_stop=lambda: "UploadPart" in sent)
        # 30,001 bytes in 10,000 parts at most.
        assert {int(request.headers["Content-Length"]) for request in sent["UploadPart"]} == {4}

    def test_every_request_is_signed_for_region_auto_and_names_the_bucket_in_its_path(self, tmp_path: Path) -> None:
        for requests in recorded(tmp_path).values():
            for request in requests:
                assert request.url.startswith("https://s3.example.com/videos")
                signature = text(request.headers["Authorization"])
                assert re.match(r"AWS4-HMAC-SHA256 Credential=an-access-key/\d{8}/auto/s3/aws4_request", signature)

    def test_signed_addresses_are_plain_too(self) -> None:
        settings = StorageSettings.from_environment({**COMPLETE, "R2_ENDPOINT_URL": "https://s3.example.com"})
        with Storage(settings) as storage:
            for url in (storage.presign_get("a b", 60), storage.presign_put("a b", 60, "video/mp4")):
                assert url.startswith("https://s3.example.com/videos/a%20b?X-Amz-Algorithm=AWS4-HMAC-SHA256")
                assert "%2Fauto%2Fs3%2Faws4_request" in url
                assert "checksum" not in url.lower()


def text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def recorded(tmp_path: Path) -> dict[str, list[Any]]:
    """The signed requests of every kind of operation."""
    source = written(tmp_path / "source", 2 * PART)
    with recording(source) as (storage, sent):
        storage.put("key", b"data", "video/mp4")
        storage.upload(source, "key", part_size=PART, content_type="video/mp4")
        storage.get("key")
        storage.head("key")
        storage.delete("key")
        list(storage.list("temp/"))
        storage.delete_prefix("temp/upscale_a/")
    return sent


@contextmanager
def recording(source: Path) -> Iterator[tuple[Storage, dict[str, list[Any]]]]:
    """A bucket at an https endpoint, whose requests are kept by operation and answered here: none goes out."""
    from botocore.awsrequest import AWSResponse

    stored = {
        "Content-Length": str(source.stat().st_size),
        "x-amz-meta-sha256": sha256(source),
        "ETag": '"e"',
        "Last-Modified": "Sun, 22 Nov 2026 15:00:00 GMT",
    }
    headers = {"HeadObject": stored, "UploadPart": {"ETag": '"e"'}, "PutObject": {"ETag": '"e"'}}
    bodies = {
        "CreateMultipartUpload": b"<R><UploadId>one</UploadId></R>",
        "CompleteMultipartUpload": b"<R><ETag>e</ETag></R>",
        "ListObjectsV2": b"<R><IsTruncated>false</IsTruncated></R>",
        "ListMultipartUploads": b"<R><IsTruncated>false</IsTruncated></R>",
    }
    sent: dict[str, list[Any]] = {}

    def answer(request: Any, event_name: str, **_: object) -> Any:
        operation = event_name.rsplit(".", 1)[1]
        sent.setdefault(operation, []).append(request)
        body = urllib3.HTTPResponse(io.BytesIO(bodies.get(operation, b"")), preload_content=False)
        return AWSResponse(request.url, 200, headers.get(operation, {}), body)

    settings = StorageSettings.from_environment({**COMPLETE, "R2_ENDPOINT_URL": "https://s3.example.com"})
    with Storage(settings, patience_s=0) as storage:
        storage.client.meta.events.register("before-send.s3", answer)
        yield storage, sent


class TestSurroundings:
    def test_the_settings_of_other_tools_change_nothing(
        self, rclone: RcloneServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "config").write_text("[default]\nregion = eu-west-1\ns3 =\n  addressing_style = virtual\n")
        for name, value in {
            "AWS_PROFILE": "absent",
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "AWS_ACCESS_KEY_ID": "other",
            "AWS_SECRET_ACCESS_KEY": "other",
            "AWS_SESSION_TOKEN": "other",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported",
        }.items():
            monkeypatch.setenv(name, value)
        with Storage(rclone.new_bucket()) as storage:
            storage.check()

    @pytest.mark.processes
    def test_boto3_is_loaded_once_a_bucket_is_used_and_not_before(self) -> None:
        code = "import sys, keyscale.engine.storage.bucket; print('\\n'.join(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert not set(done.stdout.split()) & {"boto3", "botocore", "urllib3", "torch", "av", "numpy", "typer", "rich"}

    @pytest.mark.processes
    def test_a_server_of_the_tests_ends_with_them_even_if_they_are_killed(self, tmp_path: Path) -> None:
        port = free_port()
        code = (
            "import sys, time; from pathlib import Path; from support.s3.process import Process\n"
            f"server = Process([sys.executable, '-m', 'http.server', '-b', '127.0.0.1', '{port}'],"
            f" port={port}, log=Path({str(tmp_path / 'log')!r}))\n"
            "server.launch(); server.wait(); print('up', flush=True); time.sleep(600)"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as tests:
            assert tests.stdout is not None
            assert tests.stdout.readline() == b"up\n"
            assert listens(port)
            tests.send_signal(signal.SIGKILL)
        end = time.monotonic() + 20
        while listens(port) and time.monotonic() < end:
            time.sleep(0.05)
        assert not listens(port)


def test_a_bucket_that_an_address_names_is_told_as_such_where_it_is_not_there(bucket: StorageSettings) -> None:
    for settings, named in (
        (dataclasses.replace(bucket, bucket="absent"), "Check R2_BUCKET_NAME,"),
        (bucket.of_address("absent"), "Check the bucket in -o,"),
    ):
        with Storage(settings) as storage, pytest.raises(RemoteError, match="no bucket named absent") as caught:
            storage.check()
        assert (caught.value.remedy or "").startswith(named)


def test_check_leaves_nothing(bucket: StorageSettings) -> None:
    with Storage(bucket) as storage:
        storage.check()
        assert list(storage.list("")) == []


def test_the_environment_of_a_server_names_its_bucket(server: S3Server) -> None:
    settings = StorageSettings.from_environment(server.environment())
    assert settings == server.settings
    other = server.new_bucket()
    assert StorageSettings.from_environment(server.environment(other)) == other
    assert dataclasses.replace(other, bucket=settings.bucket) == settings
