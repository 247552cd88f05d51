"""Finished files on their way into storage: what a client leaves that dies meanwhile, and that it is found again."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.s3 import Proxy, S3Server, via

from keyscale.engine.storage.bucket import (
    Storage,
    StorageRefused,
    StorageSettings,
    job_prefix,
    new_job_id,
    publication_id,
    source_key,
)

MIB = 1 << 20
KEY = "clips/my clip.mp4"
SIZE = 30 * MIB
"""Of a file of four parts."""

PUBLISHES = """
import os, sys
from pathlib import Path
from keyscale.engine.storage.bucket import Storage, StorageSettings
with Storage(StorageSettings.from_environment(os.environ)) as storage:
    storage.publish(Path(sys.argv[1]), sys.argv[2], "video/mp4")
"""


@pytest.fixture
def settings(server: S3Server, proxy: Proxy) -> StorageSettings:
    """A bucket behind the proxy."""
    return via(server.new_bucket(), proxy.endpoint)


@pytest.fixture
def direct(server: S3Server, settings: StorageSettings) -> Iterator[Storage]:
    """The same bucket, not by way of the proxy."""
    with Storage(via(settings, server.endpoint)) as storage:
        yield storage


def environment(settings: StorageSettings) -> dict[str, str]:
    return os.environ | {
        "R2_ENDPOINT_URL": settings.endpoint,
        "R2_BUCKET_NAME": settings.bucket,
        "R2_ACCESS_KEY_ID": settings.access_key,
        "R2_SECRET_ACCESS_KEY": settings.secret_key,
    }


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def unfinished(storage: Storage) -> list[str]:
    """Keys of the multipart uploads that are neither completed nor aborted."""
    try:
        page = storage.client.list_multipart_uploads(Bucket=storage.settings.bucket)
    except storage.client.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "NoSuchUpload"  # rclone's word for none
        return []
    return [upload["Key"] for upload in page.get("Uploads", ())]


def begin(storage: Storage, key: str) -> None:
    """An unfinished upload of which one part is there."""
    client, bucket = storage.client, storage.settings.bucket
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)
    client.upload_part(Bucket=bucket, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=bytes(5 * MIB))


def parts(storage: Storage) -> int:
    """How many parts of the one unfinished upload are there."""
    client, bucket = storage.client, storage.settings.bucket
    (upload,) = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    return len(client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts", ()))


def kill_while_publishing(settings: StorageSettings, direct: Storage, proxy: Proxy, clip: Path) -> None:
    """A client that dies with the last of its four parts on the way."""
    proxy.hold(lambda line: "partNumber=4" in line)
    client = subprocess.Popen([sys.executable, "-c", PUBLISHES, str(clip), KEY], env=environment(settings))
    try:
        proxy.wait_held()
        end = time.monotonic() + 60
        while parts(direct) < 3:
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        client.kill()
        client.wait()
    proxy.cut()
    proxy.release()


def test_publishing_ends_what_was_begun_to_its_key_before_and_to_no_other(
    settings: StorageSettings, direct: Storage, clip: Path
) -> None:
    for key in (KEY, KEY, f"{KEY}.bak"):
        begin(direct, key)
    with Storage(settings) as storage:
        found = storage.publish(clip, KEY, "video/mp4")
    assert found.sha256 == hashlib.sha256(clip.read_bytes()).hexdigest()
    assert unfinished(direct) == [f"{KEY}.bak"]
    assert [item.key for item in direct.list("")] == [KEY]


@pytest.mark.processes
def test_what_a_client_leaves_that_dies_while_publishing_is_swept_with_what_jobs_leave(
    settings: StorageSettings, direct: Storage, proxy: Proxy, clip: Path
) -> None:
    direct.put("clips/other.mp4", b"mine")
    kill_while_publishing(settings, direct, proxy, clip)
    begin(direct, f"{KEY}.bak")
    assert sorted(unfinished(direct)) == [KEY, f"{KEY}.bak"]
    assert direct.stale_jobs(timedelta(hours=1)) == []
    (left,) = direct.stale_jobs(timedelta(seconds=-60))
    assert (left.destination, left.objects, left.uploads) == (KEY, 1, 1)
    assert 3 * 8 * MIB <= left.size < SIZE
    assert direct.delete_prefix(job_prefix(left.job_id)) == 2
    assert unfinished(direct) == [f"{KEY}.bak"]
    assert [item.key for item in direct.list("")] == ["clips/other.mp4"]
    assert direct.stale_jobs(timedelta(seconds=-60)) == []


@pytest.mark.processes
def test_the_next_client_that_publishes_there_removes_what_the_dead_one_left(
    settings: StorageSettings, direct: Storage, proxy: Proxy, clip: Path
) -> None:
    kill_while_publishing(settings, direct, proxy, clip)
    assert unfinished(direct) == [KEY]
    with Storage(settings) as storage:
        storage.publish(clip, KEY, "video/mp4")
    assert unfinished(direct) == []
    assert [item.key for item in direct.list("")] == [KEY]


def test_publishing_that_fails_leaves_neither_upload_nor_note(
    settings: StorageSettings, direct: Storage, proxy: Proxy, clip: Path
) -> None:
    proxy.answer(lambda line: "partNumber=3" in line, 403, "AccessDenied")
    with Storage(settings) as storage, pytest.raises(StorageRefused):
        storage.publish(clip, KEY, "video/mp4")
    assert unfinished(direct) == []
    assert list(direct.list("")) == []


def test_an_upload_that_cannot_be_aborted_keeps_the_note_by_which_it_is_found(
    settings: StorageSettings, direct: Storage, proxy: Proxy, clip: Path
) -> None:
    proxy.answer(lambda line: "partNumber=3" in line or line.startswith("DELETE"), 403, "AccessDenied")
    with Storage(settings) as storage, pytest.raises(StorageRefused, match=f"upload of {KEY}"):
        storage.publish(clip, KEY, "video/mp4")
    assert unfinished(direct) == [KEY]
    with Storage(settings) as storage:
        (left,) = storage.stale_jobs(timedelta(seconds=-60))
        with pytest.raises(StorageRefused):
            storage.delete_prefix(job_prefix(left.job_id))
        assert [found.destination for found in direct.stale_jobs(timedelta(seconds=-60))] == [KEY], "as before"
        proxy.pass_on()
        storage.delete_prefix(job_prefix(left.job_id))
    assert unfinished(direct) == []
    assert list(direct.list("")) == []


def test_who_may_not_list_publishes_all_the_same(
    settings: StorageSettings, direct: Storage, proxy: Proxy, clip: Path
) -> None:
    proxy.answer(lambda line: line.startswith("GET") and "uploads" in line, 403, "AccessDenied")
    with Storage(settings) as storage:
        storage.publish(clip, KEY, "video/mp4")
    assert [item.key for item in direct.list("")] == [KEY]


def test_no_note_leads_to_uploads_of_another_key_or_of_jobs(direct: Storage) -> None:
    begin(direct, "clips/of another program.mp4")
    direct.put(f"{job_prefix(publication_id(KEY))}destination", b"clips/of another program.mp4")
    direct.put(f"{job_prefix(new_job_id())}destination", b"clips/of another program.mp4")
    for left in direct.stale_jobs(timedelta(seconds=-60)):
        assert (left.destination, left.uploads) == (None, 0)
        direct.delete_prefix(job_prefix(left.job_id))
    assert unfinished(direct) == ["clips/of another program.mp4"]


def test_ids_of_publications_are_none_of_jobs() -> None:
    assert publication_id(KEY) == publication_id(KEY) != publication_id(f"{KEY}.bak")
    assert source_key(publication_id("ü" * 500), ".mp4").startswith("temp/upscale_publish-")
