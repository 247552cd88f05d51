"""Real S3 servers on this machine, for tests: `S3Server`, a breakable `Proxy`, and the fixtures in `fixtures`.

`conftest.py` makes the fixtures known to all test modules.
"""

from __future__ import annotations

from support.s3.proxy import Proxy
from support.s3.rclone import RcloneServer
from support.s3.server import S3Server, via
from support.s3.swift import SwiftServer

__all__ = ["Proxy", "RcloneServer", "S3Server", "SwiftServer", "via"]
