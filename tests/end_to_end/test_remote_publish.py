"""`-o r2://BUCKET/KEY` where storing the finished file fails or its client dies: only that is done again."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clips import make_clip
from support.faulty_place import FRAMES, SIZE, Client, FaultyPlace, asked
from support.remote_place import events_of

from keyscale.engine.storage.bucket import Storage
from keyscale.engine.workspace.folder import work_folder_of

STORES_RESULT = asked(r"PUT BUCKET/results/")


class Publisher:
    """Jobs whose result goes to one key, and stays in the place's folder under its last part."""

    def __init__(self, place: FaultyPlace, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.key = f"results/{folder.name}.mp4"
        self.address = f"r2://{place.settings.bucket}/{self.key}"
        self.local = place.folder / f"{folder.name}.mp4"
        self.source = make_clip(folder / "source.mp4", frames=FRAMES, rate=1, size=SIZE)
        self.home = place.home(folder)

    def start(self, *more: str) -> Client:
        flags = ("--size", f"{SIZE[0]}x{SIZE[1]}", "--fps", "1", "--model", "lanczos", "--chunk-seconds", "20")
        return self.place.client(
            "upscale", self.source, "-o", self.address, *flags, *(more or ("--remote",)), **self.home
        )

    def kill_while_storing(self, *more: str) -> Client:
        """A client that died when all but the upload was done."""
        self.place.proxy.hold(STORES_RESULT)
        client = self.start(*more)
        self.place.proxy.wait_held()
        client.kill()
        self.place.proxy.cut()
        self.place.proxy.release()
        assert self.local.exists()
        return client

    def status(self) -> str:
        done = self.place.run("remote", "status", environment=self.home)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def put(self, data: bytes) -> None:
        with Storage(self.place.direct) as storage:
            storage.put(self.key, data)

    def stored(self) -> str | None:
        """SHA-256 of what is at the key."""
        with Storage(self.place.direct) as storage:
            head = storage.head(self.key)
            return None if head is None else hashlib.sha256(storage.get(self.key)).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.local.read_bytes()).hexdigest()

    def check_stored(self, client: Client, before: str) -> None:
        """It succeeded without making anything, stored what was there, and nothing else is left of it."""
        assert client.end() == 0, f"{client.errors}\n{client.last}"
        client.check()
        assert (client.last["event"], client.last["published"]) == ("done", self.address)
        assert client.last["skipped"]
        assert "upscale" not in {event.get("phase") for _, event in client.events}
        assert self.stored() == self.sha256 == before
        assert self.place.left() == [self.key]
        assert not work_folder_of(self.local).exists()
        assert not list((self.folder / "state").rglob("*.*"))


@pytest.fixture
def publisher(faulty: FaultyPlace, tmp_path: Path) -> Iterator[Publisher]:
    publisher = Publisher(faulty, tmp_path)
    yield publisher
    faulty.mend()
    with Storage(faulty.direct) as storage:
        for key in [found.key for found in storage.list("")]:
            storage.delete(key)
    publisher.local.unlink(missing_ok=True)


@pytest.mark.parametrize("way", ["resume", "the same command"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_result_whose_client_was_killed_while_storing_it_is_only_stored(
    publisher: Publisher, way: str, overwrite: bool
) -> None:
    if overwrite:
        publisher.put(b"older")
        publisher.local.write_bytes(b"older")
    flags = ("--remote", *(["--overwrite"] if overwrite else []))
    killed = publisher.kill_while_storing(*flags)
    before, spawned = publisher.sha256, publisher.place.spawned()
    told = publisher.status()
    assert f"the file is finished, its upload to {publisher.address} is not" in told
    assert f"`keyscale remote resume {killed.job}` does it" in told
    if way == "resume":
        follower = publisher.place.resume(publisher.folder, killed.job)
    else:
        follower = publisher.start(*flags)
    publisher.check_stored(follower, before)
    assert publisher.place.spawned() == spawned
    assert "no remote job is unfinished" in publisher.status()


def test_a_result_that_storage_refused_is_stored_by_what_the_error_says(publisher: Publisher) -> None:
    publisher.place.proxy.answer(STORES_RESULT, 403, "AccessDenied")
    refused = publisher.start()
    assert refused.end() == 5
    assert f"only its upload is missing. `keyscale remote resume {refused.job}` uploads it." in refused.last["remedy"]
    publisher.place.mend()
    assert publisher.place.left() == []
    before = publisher.sha256
    publisher.check_stored(publisher.place.resume(publisher.folder, refused.job), before)


def test_a_result_whose_storing_was_interrupted_is_stored_later(publisher: Publisher) -> None:
    publisher.place.proxy.hold(STORES_RESULT)
    client = publisher.start()
    publisher.place.proxy.wait_held()
    client.signal(signal.SIGINT)
    assert client.end() == 130
    assert f"`keyscale remote resume {client.job}` uploads it." in client.last["remedy"]
    publisher.place.proxy.cut()
    publisher.place.mend()
    before = publisher.sha256
    publisher.check_stored(publisher.place.resume(publisher.folder, client.job), before)


@pytest.mark.parametrize("way", ["the first upload", "a later one"])
def test_nobody_takes_over_an_upload_that_is_under_way(publisher: Publisher, way: str) -> None:
    if way == "a later one":
        publisher.kill_while_storing()
    publisher.place.proxy.hold(STORES_RESULT)
    client = publisher.start()
    publisher.place.proxy.wait_held()
    job = publisher.status().split()[0]
    for other in (publisher.place.resume(publisher.folder, job), publisher.start()):
        assert other.end() == 4
        assert "another process is working on" in other.last["message"]
    publisher.place.proxy.release()
    assert client.end() == 0, client.errors
    assert publisher.stored() == publisher.sha256
    assert publisher.place.left() == [publisher.key]
    assert not work_folder_of(publisher.local).exists()


def test_a_client_killed_after_all_was_stored_is_followed_by_one_that_sees_it(publisher: Publisher) -> None:
    killed = publisher.kill_while_storing()
    before = publisher.sha256
    with Storage(publisher.place.direct) as storage:
        storage.publish(publisher.local, publisher.key, "video/mp4")
    follower = publisher.place.resume(publisher.folder, killed.job)
    publisher.check_stored(follower, before)
    assert "publish" not in {event.get("phase") for _, event in follower.events}


def test_the_result_of_a_local_job_is_only_stored_too(publisher: Publisher) -> None:
    publisher.kill_while_storing("--local")
    before = publisher.sha256
    publisher.check_stored(publisher.start("--local"), before)


def test_what_the_error_of_a_local_job_says_that_replaces_stores_its_result(publisher: Publisher) -> None:
    publisher.put(b"older")
    publisher.place.proxy.answer(STORES_RESULT, 403, "AccessDenied")
    refused = publisher.start("--local", "--overwrite")
    assert refused.end() == 5
    assert "The same command with --update instead of --overwrite uploads it." in refused.last["remedy"]
    publisher.place.mend()
    before = publisher.sha256
    publisher.check_stored(publisher.start("--local", "--update"), before)


@pytest.mark.parametrize("change", ["other settings", "another file", "something stored there"])
def test_nothing_else_is_taken_for_the_result_and_nothing_is_replaced(publisher: Publisher, change: str) -> None:
    killed = publisher.kill_while_storing()
    if change == "another file":
        publisher.local.write_bytes(b"mine")
    if change == "something stored there":
        publisher.put(b"mine")
    if change == "other settings":
        follower = publisher.start("--remote", "--crf", "30")
    else:
        follower = publisher.place.resume(publisher.folder, killed.job)
    before, stored = publisher.sha256, publisher.stored()
    assert follower.end() == 4
    assert "already exists" in follower.last["message"]
    assert (publisher.sha256, publisher.stored()) == (before, stored)


def test_cancelling_forgets_the_upload_and_keeps_the_file(publisher: Publisher) -> None:
    killed = publisher.kill_while_storing()
    assert publisher.place.left() != [], "what tells of the upload"
    done = publisher.place.run("remote", "cancel", killed.job, environment=publisher.home)
    assert done.returncode == 0, done.stderr
    assert publisher.place.left() == []
    assert publisher.local.exists()
    assert not work_folder_of(publisher.local).exists()
    assert "no remote job is unfinished" in publisher.status()


def test_clean_names_what_was_on_its_way(publisher: Publisher) -> None:
    killed = publisher.kill_while_storing()
    done = publisher.place.run("remote", "clean", "--older-than", "0s", environment=publisher.home)
    assert done.returncode == 0, done.stderr
    assert f"on its way to {publisher.key}  1 object, " in done.stdout
    assert publisher.place.left() == []
    before = publisher.sha256
    publisher.check_stored(publisher.place.resume(publisher.folder, killed.job), before)


def test_an_address_among_what_is_cleaned_up_is_refused(faulty: FaultyPlace, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=2, rate=1, size=SIZE)
    address = f"r2://{faulty.settings.bucket}/temp/upscale_x/clip.mp4"
    done = faulty.run("upscale", clip, "-o", address, "--local", "--progress", "json")
    assert done.returncode == 2
    assert "lies where jobs are staged" in events_of(done.stdout)[-1]["message"]
    assert not (faulty.folder / "clip.mp4").exists()
