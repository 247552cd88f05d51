"""A place where `--remote` runs for real: an S3 server, a Modal server and containers, all on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import pytest
from botocore.exceptions import ClientError

import modal_stub
from keyscale.engine.storage.bucket import Storage, StorageSettings
from support.forked import Forked
from support.modal_server import ModalServer
from support.s3.server import S3Server

__all__ = ["Place", "container_python", "deployed", "place", "swift_place"]

ROOT = Path(__file__).resolve().parents[2]
KEYSCALE = str(Path(sys.executable).with_name("keyscale"))
INSTALL_S = 1200


def _install(python: Path, requirements: tuple[str, ...]) -> None:
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
        check=True,
        timeout=INSTALL_S,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="session")
def container_python() -> Path:
    """The Python of containers: an environment with what the image installs, and Modal's client, which Modal adds.

    keyscale itself is not in it: containers have it from the mount. Made once on a machine.
    """
    from importlib.metadata import version

    packages = sorted((*modal_stub.PINNED, *modal_stub.ON_CPUS))
    requirements = (*packages, *modal_stub.STORAGE, f"modal=={version('modal')}")
    mark = hashlib.sha256(f"{requirements}{sys.version}".encode()).hexdigest()[:16]
    home = platformdirs.user_cache_path("keyscale-tests")
    folder = home / f"container-{mark}"
    python = folder / "bin" / "python"
    home.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(home / f"container-{mark}.lock"):
        if not (folder / "complete").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
            try:
                _install(python, requirements)
            except subprocess.CalledProcessError as error:
                if os.environ.get("KEYSCALE_REQUIRE_SERVERS") == "1" or os.environ.get("CI"):
                    pytest.fail(f"the containers' environment cannot be made: {error.stderr}", pytrace=False)
                pytest.skip(f"the containers' environment cannot be made: {error.stderr}")
            (folder / "complete").touch()
    return python


class Place:
    """One bucket, one deployment, and the command line pointed at both."""

    forks_clients = False
    """Whether its clients are forked instead of started as a user starts them."""

    def __init__(self, folder: Path, s3: S3Server, modal: ModalServer) -> None:
        self.folder, self.s3, self.modal = folder, s3, modal
        self.settings: StorageSettings = s3.new_bucket()
        self.state = folder / "state"
        self._looked_at: Storage | None = None

    def close(self) -> None:
        """Close what was opened on the way."""
        if self._looked_at is not None:
            self._looked_at.close()

    def environment(self, **more: str) -> dict[str, str]:
        """What a client's process needs, on top of this one's."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("R2_", "MODAL_", "KEYSCALE_GPU"))}
        return (
            clean
            | self.modal.environment()
            | self.s3.environment(self.settings)
            | {"KEYSCALE_STATE_DIR": str(self.state), "KEYSCALE_CACHE_DIR": str(self.folder / "cache")}
            | more
        )

    def deploy(self, *, containers: int = 3, **environment: str) -> None:
        """`modal deploy` of the stub, on CPUs."""
        self.modal.set_secret("r2-credentials", self.s3.environment(self.settings))
        chosen = {"KEYSCALE_GPU": "none", "KEYSCALE_CONTAINERS": str(containers)} | environment
        done = self.modal.deploy("-m", "keyscale.modal_stub", cwd=self.folder, environment=chosen)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(
        self, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str] | Forked:
        """`keyscale ARGUMENTS` as a process of its own group."""
        if self.forks_clients:
            variables = self.environment(**(environment or {}))
            return Forked([str(word) for word in arguments], environment=variables, folder=self.folder)
        return subprocess.Popen(
            [KEYSCALE, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(**(environment or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, *arguments: str | Path, environment: Mapping[str, str] | None = None, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """`keyscale ARGUMENTS` to its end."""
        process = self.start(*arguments, environment=environment)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"keyscale {arguments} hung:\n{out}\n{err}\n{self.logs()}")
        return subprocess.CompletedProcess(process.args, process.wait(), out, err)

    def left(self) -> list[str]:
        """Keys of all objects in the bucket, and of uploads that were begun and not ended."""
        if self._looked_at is None or self._looked_at.settings != self.settings:
            self._looked_at = Storage(self.settings)
        storage = self._looked_at
        objects = [found.key for found in storage.list("")]
        try:
            uploads = storage.client.list_multipart_uploads(Bucket=self.settings.bucket).get("Uploads", [])
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchUpload":
                raise
            uploads = []  # so rclone says that there never was one
        return objects + [f"{upload['Key']} (upload)" for upload in uploads]

    def logs(self) -> str:
        """What all containers printed."""
        return "\n".join(f"{task}:\n{self.modal.logs(task)}" for task in self.modal.task_ids())


def events_of(text: str) -> list[dict[str, Any]]:
    """The NDJSON of `--progress json`."""
    return [json.loads(line) for line in text.splitlines()]


def _place(folder: Path, s3: S3Server, python: Path) -> Iterator[Place]:
    with (
        ModalServer(
            folder / "modal", python=python, scaledown_s=5, container_environment={"OMP_NUM_THREADS": "1"}
        ) as modal,
        contextlib.closing(Place(folder, s3, modal)) as place,
    ):
        yield place


@pytest.fixture
def place(tmp_path: Path, rclone: S3Server, container_python: Path) -> Iterator[Place]:
    """On rclone's S3 server, which starts at once. Nothing is deployed yet."""
    for place in _place(tmp_path, rclone, container_python):
        place.forks_clients = True
        yield place


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, rclone: S3Server, container_python: Path) -> Iterator[Place]:
    """Three containers on rclone's server, shared by a module's tests: each leaves the bucket as it found it."""
    for place in _place(tmp_path_factory.mktemp("place"), rclone, container_python):
        place.deploy()
        yield place


@pytest.fixture
def swift_place(tmp_path: Path, swift: S3Server, container_python: Path) -> Iterator[Place]:
    """On OpenStack Swift, which enforces what rclone does not: multipart uploads, expiry, signatures."""
    yield from _place(tmp_path, swift, container_python)
