"""Fixtures: `swift` and `rclone` (one server each for the whole run), `server` (each of both), `bucket`, `proxy`."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import NoReturn

import pytest

from keyscale.engine.storage.bucket import StorageSettings
from support.s3.process import Unavailable
from support.s3.proxy import Proxy
from support.s3.rclone import RcloneServer
from support.s3.server import S3Server
from support.s3.swift import SwiftServer

SERVERS = pytest.StashKey[list[S3Server]]()


def _unavailable(reason: Unavailable) -> NoReturn:
    """Skip, except where servers have to be there."""
    if os.environ.get("KEYSCALE_REQUIRE_SERVERS") == "1" or os.environ.get("CI"):
        pytest.fail(str(reason), pytrace=False)
    pytest.skip(str(reason))


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[SwiftServer]:
    """OpenStack Swift with its S3 interface."""
    server: SwiftServer | None = None
    try:
        server = SwiftServer(tmp_path_factory.mktemp("swift"))
        server.open()
    except Unavailable as reason:
        if server is not None:
            server.close()
        _unavailable(reason)
    request.config.stash.setdefault(SERVERS, []).append(server)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RcloneServer]:
    """`rclone serve s3`."""
    server: RcloneServer | None = None
    try:
        server = RcloneServer(tmp_path_factory.mktemp("rclone"))
        server.start()
    except Unavailable as reason:
        _unavailable(reason)
    request.config.stash.setdefault(SERVERS, []).append(server)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(params=["swift", "rclone"])
def server(request: pytest.FixtureRequest) -> S3Server:
    """Each of the servers in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, S3Server)
    return found


@pytest.fixture
def bucket(server: S3Server) -> StorageSettings:
    """An empty bucket on each of the servers."""
    return server.new_bucket()


@pytest.fixture
def proxy(server: S3Server) -> Iterator[Proxy]:
    """A breakable way to `server`; reach a bucket by it with `via(bucket, proxy.endpoint)`."""
    with Proxy(server.endpoint) as proxy:
        yield proxy


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the servers logged beside a failure of a test that uses them."""
    report = yield
    if report.failed:
        used = set(getattr(item, "fixturenames", ()))
        for server in item.config.stash.get(SERVERS, []):
            if used & {server.name, "server"}:
                report.sections.append((f"log of {server.name}", server.log()))
    return report
