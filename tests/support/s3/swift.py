"""OpenStack Swift with its S3 interface: signatures, expiry, multipart rules and conditions are all enforced.

One account, container and object server and a proxy, each a process, on one folder. Swift is installed into a virtual
environment of its own, made once for a machine.
"""

from __future__ import annotations

import getpass
import hashlib
import http.client
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import filelock
import platformdirs

from support.s3.process import Process, Unavailable, free_port
from support.s3.server import S3Server

REQUIREMENTS = """\
certifi==2026.10.18
cffi==2.1.1
charset-normalizer==3.5.2
cryptography==50.0.2
dnspython==2.9.2
eventlet==0.41.3
greenlet==3.5.6
idna==3.20
lxml==6.1.3
PasteDeploy==3.1.0
pycparser==3.12
pyeclib==1.8.0
requests==2.34.2
swift==2.38.3
urllib3==2.8.0
xattr==1.3.0
"""

BACKENDS = ("account", "container", "object")

_BACKEND = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
fallocate_reserve = 0

[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
log_requests = false
"""

_PROXY = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}

[pipeline:main]
pipeline = {pipeline} proxy-server

[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = auto
max_upload_part_num = 10000
# Short pages, so that every listing of some length takes several.
max_bucket_listing = 10
max_parts_listing = 2
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_writer = {writer} .admin
user_{account}_reader = {reader}
[filter:copy]
use = egg:swift#copy
[filter:container-quotas]
use = egg:swift#container_quotas
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
error_suppression_limit = 1000000
"""

_PIPELINE = (
    "catch_errors gatekeeper healthcheck listing_formats s3api tempauth copy container-quotas slo dlo versioned_writes"
)

_CONSTRAINTS = """\
[swift-hash]
swift_hash_path_prefix = keyscale
swift_hash_path_suffix = keyscale

[storage-policy:0]
name = one
default = yes
"""

_RINGS = """\
import sys
from swift.common.ring import RingBuilder
folder, *rest = sys.argv[1:]
for kind, port in zip(rest[::2], rest[1::2]):
    where = {"ip": "127.0.0.1", "port": int(port), "replication_ip": "127.0.0.1", "replication_port": int(port)}
    builder = RingBuilder(part_power=PART_POWER, replicas=1, min_part_hours=0)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "device": "disk", "weight": 1, **where})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
"""
PART_POWER = 2


class SwiftServer(S3Server):
    """`stop` and `start` are those of the proxy, which is all that clients see; the stores behind it run on."""

    name = "swift"
    account = "studio"
    access_key = f"{account}:writer"
    secret_key = "swift-secret-0123456789abcdef"  # noqa: S105 - of a server on this machine
    reader_access_key = f"{account}:reader"
    """Keys that are known but have no right to anything."""
    reader_secret_key = "swift-reader-0123456789abcdef"  # noqa: S105

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._python = _installed()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _require_attributes(folder)
        (folder / "devices" / "disk").mkdir(parents=True)
        (folder / "swift.conf").write_text(_CONSTRAINTS)
        self._ports = {kind: free_port() for kind in (*BACKENDS, "proxy")}
        self.port = self._ports["proxy"]
        self._processes = {kind: self._configured(kind) for kind in self._ports}
        rings = [word for kind in BACKENDS for word in (kind, str(self._ports[kind]))]
        _run([self._python, "-c", _RINGS.replace("PART_POWER", str(PART_POWER)), str(folder), *rings])

    def _configured(self, kind: str) -> Process:
        text = (_PROXY if kind == "proxy" else _BACKEND).format(
            kind=kind,
            pipeline=_PIPELINE,
            port=self._ports[kind],
            user=getpass.getuser(),
            folder=self._folder,
            account=self.account,
            writer=self.secret_key,
            reader=self.reader_secret_key,
        )
        config = self._folder / f"{kind}.conf"
        config.write_text(text)
        program = self._python.with_name(f"swift-{kind}-server")
        return Process(
            [self._python, program, config, "--verbose"], port=self._ports[kind], log=self._folder / f"{kind}.log"
        )

    def open(self) -> None:
        """Start the stores and the proxy."""
        for process in self._processes.values():
            process.launch()
        for process in self._processes.values():
            process.wait()

    def start(self) -> None:
        self._processes["proxy"].launch()
        self._processes["proxy"].wait()

    def stop(self) -> None:
        self._processes["proxy"].stop()

    def close(self) -> None:
        super().close()
        for process in self._processes.values():
            process.stop()

    def log(self) -> str:
        return "\n".join(f"{kind}:\n{process.tail(20)}" for kind, process in self._processes.items())

    def limit(self, bucket: str, size: int) -> None:
        """Let a bucket hold no more than so many bytes."""
        # Swift's own interface would need a token, and those need a cache server: the store is told directly.
        path = f"AUTH_{self.account}/{bucket}"
        mark = hashlib.md5(f"keyscale/{path}keyscale".encode(), usedforsecurity=False).digest()
        partition = int.from_bytes(mark[:4], "big") >> (32 - PART_POWER)
        store = http.client.HTTPConnection("127.0.0.1", self._ports["container"], timeout=20)
        try:
            headers = {"X-Timestamp": f"{time.time():016.05f}", "X-Container-Meta-Quota-Bytes": str(size)}
            store.request("POST", f"/disk/{partition}/{path}", headers=headers)
            assert store.getresponse().status == 204
        finally:
            store.close()


def _installed() -> Path:
    """The Python of an environment with Swift in it."""
    if platform.system() != "Linux":
        raise Unavailable("Swift runs on Linux alone")
    mark = hashlib.sha256(f"{REQUIREMENTS}{sys.version}{platform.machine()}".encode()).hexdigest()[:16]
    home = platformdirs.user_cache_path("keyscale-tests")
    folder = home / f"swift-{mark}"
    python = folder / "bin" / "python"
    home.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(home / f"swift-{mark}.lock"):
        if (folder / "complete").is_file() and _works(python):
            return python
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        (folder / "requirements.txt").write_text(REQUIREMENTS)
        _run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(folder / "requirements.txt")])
        (folder / "complete").touch()
    return python


def _works(python: Path) -> bool:
    try:
        _run([python, "-c", "import swift.common.wsgi, xattr"])
    except Unavailable:
        return False
    return True


def _run(command: list[str | Path]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except OSError as error:
        raise Unavailable(f"{command[0]} does not run: {error}") from error
    if done.returncode:
        raise Unavailable(f"setting up Swift failed: {done.stderr[-2000:]}")


def _require_attributes(folder: Path) -> None:
    """Swift keeps an object's metadata in extended attributes of its file."""
    trial = folder / "trial"
    trial.touch()
    try:
        if sys.platform == "linux":
            os.setxattr(trial, "user.swift.metadata", bytes(1000))
    except OSError as error:
        raise Unavailable(f"the file system of {folder} stores no extended attributes: {error}") from error
    finally:
        trial.unlink()
