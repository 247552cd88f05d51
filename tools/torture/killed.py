"""Section: `kill -9` at random moments of a job, then the same command again."""

from __future__ import annotations

import random
import time
from pathlib import Path

from keyscale.engine.workspace.locks import PRIVATE
from tools.torture.cases import Case, done_event, last_phase
from tools.torture.lab import Lab
from tools.torture.material import KINDS, make_video
from tools.torture.report import Section
from tools.torture.storage import FLAGS, SIZE

__all__ = ["killed"]

KILLS = 100
"""How often in full."""


def killed(lab: Lab) -> Section:
    """Kill one clip at random moments, some of them again and again."""
    section = Section(
        name="killed",
        about="`kill -9` at a random moment of a job of ten chunks, every third one again during the next run, then "
        "the same command to its end: the bytes of an undisturbed run, nothing left over.",
    )
    drawn = random.Random(f"{lab.seed} kills")  # noqa: S311
    began = time.monotonic()
    phases: dict[str, int] = {}
    resumed = 0
    arguments = ("upscale", "in.mp4", "-o", "out.mp4", *FLAGS)
    with lab.folder() as folder:
        film = make_video(folder / "in.mp4", KINDS[0], frames=240, size=SIZE).read_bytes()
        case = Case(name="undisturbed", arguments=arguments, codes=frozenset({0}))
        seconds = lab.attempt(case, folder, section).seconds
        whole = (folder / "out.mp4").read_bytes()
    for number in range(lab.count(KILLS)):
        with lab.folder() as folder:
            (folder / "in.mp4").write_bytes(film)
            moments = [drawn.uniform(0, 1.05 * seconds) for _ in range(1 + (number % 3 == 2))]
            for moment in moments:
                phase = _kill(lab, arguments, folder, moment)
                phases[phase] = phases.get(phase, 0) + 1
                if (folder / "out.mp4").exists():
                    break
            # Where the last of them came after the result was published, an asked-for second run starts over.
            more = ("--overwrite",) if (folder / "out.mp4").exists() else ()
            name = f"killed after {' and '.join(f'{moment:.3f}' for moment in moments)} s"
            again = Case(name=name, arguments=(*arguments, *more), codes=frozenset({0}))
            # Left by the killed ones where the encoder was being checked.
            checks = tuple(path.name for path in folder.glob(f"{PRIVATE}*"))
            ended = lab.attempt(again, folder, section, may_change=("out.mp4", ".out.mp4.keyscale", *checks))
            done = done_event(ended)
            resumed += int(str(done["resumed_frames"])) if done is not None else 0
            faults = []
            if not (folder / "out.mp4").exists() or (folder / "out.mp4").read_bytes() != whole:
                faults.append("the result differs from that of an undisturbed run")
            if (folder / ".out.mp4.keyscale").exists():
                faults.append("the work folder was left over")
            faults += [f"{name} was left over" for name in checks if (folder / name).exists()]
            if faults:
                lab.fail(section, again, folder, ended, faults)
    told = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items(), key=lambda item: -item[1]))
    section.figures.append(f"What the killed runs had told of last: {told}. Frames taken over in all: {resumed}.")
    section.seconds = time.monotonic() - began
    return section


def _kill(lab: Lab, arguments: tuple[str, ...], folder: Path, moment: float) -> str:
    """Run the command and kill it after so many seconds; what it had told of last."""
    with lab.folder() as beside:
        out = beside / "stdout"
        running = lab.nursery.start(arguments, folder=folder, out=out, err=beside / "stderr")
        if not running.ended_within(moment):
            running.kill()
        ended = running.wait(60)
    if ended.code != -9:
        return f"(ended with {ended.code})"
    return last_phase(ended)
