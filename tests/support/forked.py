"""`keyscale` command lines as processes that are forked from one which has all of it loaded.

Loading the program takes five times as long as a small job. A forked process can be killed, signalled and limited like
any other; only its start is not the user's. Tests whose point is the start run the installed command.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TextIO

__all__ = ["Forked", "fork", "say_to"]

TESTS = Path(__file__).resolve().parents[1]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["support.loaded"])

_codes = threading.Lock()
"""Held while exit codes are read: `Process.start` reads those of all processes, in whichever thread it's called, and of
two that read the same one, one gets 255."""


def _start_server() -> None:
    """Start the process that is forked from, where it does not run yet; it has to find its modules."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *([before] if before else [])])
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def fork(act: Callable[..., object], *arguments: object, environment: Mapping[str, str], folder: Path) -> BaseProcess:
    """Run `act(*arguments)` in a forked process with exactly these variables.

    It is the first of a session of its own, as a process that is started with `start_new_session`.
    """
    _start_server()
    process = _context.Process(target=_become, args=(act, arguments, dict(environment), str(folder)), daemon=True)
    with _codes:
        process.start()
    return process


def _become(act: Callable[..., object], arguments: Sequence[object], environment: dict[str, str], folder: str) -> None:
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        # multiprocessing's own: a process that was started has it as Python sets it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        act(*arguments)
    except KeyboardInterrupt:  # before the program itself looks after signals
        os._exit(128 + signal.SIGINT)


def say_to(out: int, err: int) -> None:
    """Let this process's standard output and error go to other files."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115


def _command(out: Connection, err: Connection, first: str, prepare: Callable[[], None] | None, argv: list[str]) -> None:
    say_to(out.fileno(), err.fileno())
    out.close()
    err.close()
    if prepare is not None:
        prepare()
    _run_first(first)
    sys.argv = ["keyscale", *argv]
    try:
        importlib.import_module("keyscale.cli.app").main()
    except Exception:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()


def _run_first(first: str) -> None:
    import keyscale

    version = keyscale.__version__
    exec(first, {})  # noqa: S102 - the test's own
    if keyscale.__version__ != version:
        # Modules that are loaded already have taken it from there.
        for module in list(sys.modules.values()):
            if module.__name__.startswith("keyscale.") and hasattr(module, "__version__"):
                vars(module)["__version__"] = keyscale.__version__


class Forked:
    """A `keyscale` process, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        first: str = "",
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """Start `keyscale ARGV`; `prepare` and then the Python in `first` run before."""
        self.args = ["keyscale", *argv]
        out, out_there = _context.Pipe(duplex=False)
        err, err_there = _context.Pipe(duplex=False)
        self._process = fork(
            _command, out_there, err_there, first, prepare, list(argv), environment=environment, folder=folder
        )
        for there in (out_there, err_there):
            there.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(pipe.fileno()), encoding="utf-8") for pipe in (out, err))
        for pipe in (out, err):
            pipe.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        with _codes:
            return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            wait([self._process.sentinel], timeout)
        if (code := self.returncode) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        texts = {"out": "", "err": ""}

        def read(name: str, stream: TextIO) -> None:
            with stream:
                texts[name] = stream.read()

        threads = [
            threading.Thread(target=read, args=(name, stream), daemon=True)
            for name, stream in (("out", self.stdout), ("err", self.stderr))
        ]
        for thread in threads:
            thread.start()
        self.wait(timeout)
        for thread in threads:
            thread.join(30)
        return texts["out"], texts["err"]
