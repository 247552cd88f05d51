"""What `support.forked` forks from has loaded this: nothing that starts a thread, which a fork would lose."""

from __future__ import annotations

import importlib
from typing import Any

import botocore.loaders
import botocore.session

for name in (
    "keyscale.cli.app",
    "keyscale.cli.progress",
    "keyscale.cli.remote",
    "keyscale.cli.signals",
    "keyscale.cli.upscale",
    "keyscale.engine.runners.local",
    "keyscale.engine.runners.prepare",
    "keyscale.engine.remote.run",
    "keyscale.engine.worker.chunk",
    "boto3.session",
    "modal",
    "modal.config",
    "modal.exception",
    "numpy.ma",
):
    importlib.import_module(name)

# Most of what a client of S3 costs is reading botocore's descriptions; its loader keeps what it read.
_loader = botocore.loaders.create_loader()


def _create_loader(search_path_string: str | None = None) -> Any:
    return _loader


botocore.loaders.create_loader = _create_loader
botocore.session.Session(session_vars={"profile": (None, None, None, None)}).create_client(
    "s3",
    region_name="auto",
    aws_access_key_id="none",
    aws_secret_access_key="none",  # noqa: S106 - it is none
)
