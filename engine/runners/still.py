"""One frame of a job's result, through the network, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from threading import Event as StopFlag

from keyscale.engine.addresses import is_address, local_name
from keyscale.engine.errors import UsageError
from keyscale.engine.events import Event, Note, Phase
from keyscale.engine.files import drafted
from keyscale.engine.output.still import write_png
from keyscale.engine.pipeline.chunks import make_frame
from keyscale.engine.plan.plan import Plan
from keyscale.engine.runners.local import LocalRun
from keyscale.engine.runners.prepare import Prepared, check_source
from keyscale.engine.source.colour import PixelArray
from keyscale.engine.wording import say

__all__ = ["StillRun", "frame_at", "still_path"]


def frame_at(plan: Plan, seconds: float) -> int:
    """The output frame that stands at a second of the result.

    Raises:
        UsageError: the result is shorter.
    """
    # What is written with three decimals means the frame that begins there.
    frame = int((seconds + 0.5e-3) * plan.rate)
    if frame >= plan.frames:
        raise UsageError(
            f"{seconds:g} s is not within the result, which lasts {float(plan.duration):.3f} s",
            option="still",
            remedy=f"Give 0 to {float((plan.frames - 1) / plan.rate):.3f}.",
        )
    return frame


def still_path(output: str | None, video: str, seconds: float) -> str:
    """Where a still goes: as it is named, or `NAME.12.5s.png` beside the source; of an address, in the current folder.

    Raises:
        UsageError: the name is not that of a PNG.
    """
    if output is None:
        source = local_name(video)
        return str(source.parent / f"{source.stem}.{seconds:g}s.png")
    if Path(output).suffix.lower() != ".png" or is_address(output):
        raise UsageError(
            say("{output} {}: a still is a PNG file on this machine", output), remedy=say("Give {output} NAME.png.")
        )
    return output


class StillRun(LocalRun):
    """Makes one output frame as the whole job would, and writes it before it is encoded."""

    def __init__(self, prepared: Prepared, stop: StopFlag, seconds: float, path: str) -> None:
        """`seconds` are of the result; the job says whether a file at `path` may be replaced."""
        super().__init__(prepared, stop)
        self.frame, self.path = frame_at(prepared.plan, seconds), path

    def events(self) -> Generator[Event, None, None]:
        """Make the picture; the last event is `Done`.

        Raises:
            StorageError: the picture is there already, or cannot be written.
            Interrupted: `stop` was set; nothing is left.
            KeyscaleError: whatever else failed.
        """
        with drafted(self.path, overwrite=self.job.overwrite) as draft:
            for warning in self.plan.warnings:
                yield Note(level="warning", message=warning)
            yield from self.load()

            def make(report: Callable[[int, int], None]) -> PixelArray:
                report(0, 1)
                pixels = make_frame(self.plan, self.frame, self.upscaler, self.stop.is_set, self.tally)
                report(1, 1)
                return pixels

            pixels = yield from self.during(Phase.UPSCALE, make)
            write_png(draft, pixels, self.plan.colour)
            check_source(self.prepared)
        yield replace(self.done(), output=self.path, frames=1)
