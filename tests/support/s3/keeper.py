"""Runs a command that must not outlive the tests: `python keeper.py COMMAND...`, ended when standard input closes.

The pipe closes whichever way the test run ends, `kill -9` included.
"""

from __future__ import annotations

import subprocess
import sys
import threading


def main() -> int:
    with subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL) as child:

        def watch() -> None:
            sys.stdin.buffer.read()
            child.kill()

        threading.Thread(target=watch, daemon=True).start()
        return child.wait()


if __name__ == "__main__":
    sys.exit(main())
