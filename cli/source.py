"""A source that has an address, fetched before a command goes on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from threading import Event as StopFlag

    from keyscale.cli.progress import Renderer
    from keyscale.engine.events import Event
    from keyscale.engine.job import Job

__all__ = ["local_source"]


def local_source(job: Job, view: Renderer | None = None, *, quiet: bool = False) -> Job:
    """The job itself where its source is a file, else with a copy of it; signals end the fetching of that cleanly.

    Args:
        job: as asked for.
        view: what shows the progress; None is a bar or lines on stderr.
        quiet: of these show nothing.

    Raises:
        KeyscaleError: it cannot be fetched.
    """
    from keyscale.engine.addresses import is_address

    if not is_address(job.source):
        return job
    from keyscale.cli.progress import renderer, shown
    from keyscale.cli.signals import show_events
    from keyscale.engine.runners.fetched import with_local_source

    if view is None:
        with shown(renderer(quiet=quiet)) as own:
            return local_source(job, own)
    found: list[Job] = []

    def start(stop: StopFlag) -> Generator[Event, None, None]:
        found.append((yield from with_local_source(job, stop.is_set)))

    remedy = "Run the same command again: what was fetched is not fetched again."
    show_events(start, view, kept="what was fetched is kept", remedy=remedy)
    return found[0]
