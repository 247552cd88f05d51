"""keyscale for programs: `upscale` and `plan`, as the package `keyscale` offers them (docs/python.md)."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike, environ
from types import TracebackType
from typing import Any, Unpack

from keyscale.engine.addresses import redacted
from keyscale.engine.argument_types import Options
from keyscale.engine.arguments import describe_arguments, read_arguments, said_in_python
from keyscale.engine.camera.framing import Framing
from keyscale.engine.errors import Interrupted, UsageError
from keyscale.engine.events import Done, Event, Failed, Note, Progress
from keyscale.engine.plan.plan import Plan
from keyscale.engine.request import Request
from keyscale.engine.runners.fetched import fetched, with_local_source
from keyscale.engine.runners.prepare import prepare, prepare_plan
from keyscale.engine.threads import Keeper
from keyscale.engine.wording import as_argument, worded

__all__ = ["Upscaling", "plan", "upscale"]

POLL_S = 0.5
"""How long a wait may last before it is looked whether it makes sense; where signals do not wake a waiting thread, the
longest that Ctrl-C is not noticed."""


def upscale(
    video: str | PathLike[str],
    keyframes: str | PathLike[str] | Framing | Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
    output: str | PathLike[str] | None = None,
    **options: Unpack[Options],
) -> Upscaling:
    """Crop a video along keyframes, upscale what the camera sees, write a verified clip.

    Nothing begins before the result is iterated or run:

        for event in upscale("talk.mp4", "camera.json", "clip.mp4"):
            ...
        done = upscale("talk.mp4", "camera.json", "clip.mp4").run()

    Args:
        video: the source; it is only read. An `https://` address is fetched into the cache.
        keyframes: the camera, as the path of a keyframes file ("-" is standard input), as what such a file holds (a
            list of dicts, or a dict), or as a `Framing`; None is the whole picture.
        output: the result; None is `NAME.keyscale.mp4` beside the source (of an address, in the current folder). Its
            extension chooses the container.
            `"r2://BUCKET/KEY"` is kept in the current folder under the key's last part and stored there too.
        options: {options}

    Raises:
        UsageError: an argument has a wrong type or value; files are looked at later.
    """
    # Taken as they are: type checkers hold callers to the types above, and `read_arguments` those who use none.
    return Upscaling(read_arguments({"video": video, "keyframes": keyframes, "output": output, **options}))


def plan(
    video: str | PathLike[str],
    keyframes: str | PathLike[str] | Framing | Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
    output: str | PathLike[str] | None = None,
    **options: Unpack[Options],
) -> Plan:
    """What `upscale` would do with the same arguments, frame by frame. Runs no network and writes nothing.

    Raises:
        UsageError: an argument, or what the keyframes file holds, is wrong.
        KeyscaleError: the source, the network or, with `remote`, the cost is what stands against it.
    """
    request = read_arguments({"video": video, "keyframes": keyframes, "output": output, **options})
    with said_in_python():
        found = prepare_plan(fetched(request.job), remote=request.remote is not None, framing=request.framing)
        if request.remote is not None:
            from keyscale.engine.remote.estimate import affordable_estimate

            affordable_estimate(found, environ, request.remote)
    return replace(found, warnings=tuple(worded(warning, as_argument) for warning in found.warnings))


describe_arguments(upscale, plan)


class Upscaling:
    """A job that `upscale` was asked for. Iterating it, or `run`, does it, once.

    Iterating gives events: `Progress`, at least one every two seconds once the job is prepared; `Note`; and `Done` as
    the last one. The work goes on in threads of its own, whatever the loop does meanwhile. A loop that is left early
    ends it, by `break` as by an exception; so does `close`, from any thread. Whoever ends it waits until no thread and
    no open file of it is left. Finished chunks are kept for the next time.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._gate = threading.Lock()
        self._work: _Work | None = None
        self._closed = False
        self._result: Done | None = None

    @property
    def output(self) -> str:
        """Where the finished file will stand."""
        return self._request.job.output

    @property
    def result(self) -> Done | None:
        """The last event, once the job is done."""
        return self._result

    def __iter__(self) -> Iterator[Progress | Note | Done]:
        """Do the job.

        Raises:
            Interrupted: `close` was called from elsewhere.
            KeyscaleError: whatever failed; nothing half done has a finished name.
            UsageError: the job was done, or closed, already.
        """
        work = self._begin()
        try:
            for event in work.events():
                if isinstance(event, Done):
                    self._result = event
                yield event
        finally:
            work.end()

    def run(self, on_event: Callable[[Progress | Note | Done], object] | None = None) -> Done:
        """Do the job and return its last event; `on_event` is called with each of them. Errors as of iterating."""
        for event in self:
            if on_event is not None:
                on_event(event)
        assert self._result is not None
        return self._result

    def close(self) -> None:
        """End the work, if there is any, and wait for that; finished chunks are kept."""
        with self._gate:
            self._closed = True
            work = self._work
        if work is not None:
            work.end()

    def __enter__(self) -> Upscaling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Upscaling of {redacted(self._request.job.source)!r} to {self.output!r}>"

    def _begin(self) -> _Work:
        with self._gate:
            if self._work is not None or self._closed:
                raise UsageError("this job was begun or closed already", remedy="Call upscale() again.")
            self._work = _Work(self._request)
        self._work.start()
        return self._work


class _Work:
    """The job in a thread of its own. It knows nothing of who listens, so that one who leaves can be noticed."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._stop = threading.Event()
        self._told: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self._keeper = Keeper("keyscale-job", self._run)

    def start(self) -> None:
        # The interpreter freezes threads as it ends, in the middle of whatever they write.
        atexit.register(self.end)
        self._keeper.start()

    def events(self) -> Iterator[Progress | Note | Done]:
        """What the job tells, up to `Done`, or what ended it raised."""
        while True:
            at_work = self._keeper.is_alive()
            try:
                told = self._told.get(timeout=POLL_S)
            except queue.Empty:
                if at_work:
                    continue
                raise RuntimeError("the job ended without a result") from None
            if isinstance(told, BaseException):
                try:
                    raise told
                finally:
                    del told  # it holds this frame by its traceback, and with it all that the job has in memory
            assert not isinstance(told, Failed)
            yield told
            if isinstance(told, Done):
                return

    def end(self) -> None:
        """Stop, and wait until nothing of it is left."""
        self._stop.set()
        # What drops the last reference may be one of the job's own threads, which cannot wait for itself.
        if not self._keeper.includes(threading.current_thread()):
            while self._keeper.is_alive():
                self._keeper.join(POLL_S)
            atexit.unregister(self.end)

    def _run(self) -> None:
        try:
            with said_in_python():
                for event in self._make():
                    told = event
                    if isinstance(told, Note):
                        told = replace(told, message=worded(told.message, as_argument))
                    self._told.put(told)
        except Interrupted as error:
            error.remedy = error.remedy or "Call upscale() again: what is finished of it is not made again."
            self._told.put(error)
        except BaseException as error:
            self._told.put(error)

    def _make(self) -> Iterator[Event]:
        request, options = self._request, self._request.remote
        job = yield from with_local_source(request.job, self._stop.is_set)
        prepared = prepare(job, remote=options is not None, framing=request.framing)
        if options is None:
            from keyscale.engine.runners.local import run_local

            yield from run_local(prepared, self._stop)
            return
        from keyscale.engine.remote.run import run_remote

        yield from run_remote(prepared, options, self._stop)
