"""Run the server by hand: `python -m tests.support.modal_server`, then paste what it prints."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from pathlib import Path

from . import ModalServer


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.modal_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes any that is free")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="interpreter of the containers")
    parser.add_argument("--folder", type=Path, help="for files and logs, which stay; a new one where none is given")
    parser.add_argument("--max-containers", type=int, default=8)
    given = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    folder = given.folder or Path(tempfile.mkdtemp(prefix="modal-server-"))
    with ModalServer(folder, python=given.python, port=given.port, max_containers=given.max_containers) as server:
        for name, value in server.environment().items():
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
        sys.stdout.write(f"# logs of the containers: {folder / 'logs'}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
