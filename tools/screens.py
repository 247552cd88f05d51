"""Draw the screenshots of docs/use.md from the example: the contact sheet of its camera, and the page in a browser.

    python -m tools.screens [--to docs]

The page needs Chromium (`apt install chromium`); without it that picture is left as it is, and this says so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from keyscale.engine.job import Job, Target
from keyscale.engine.review.page import preview_page
from keyscale.engine.review.sheet import contact_sheet
from keyscale.engine.runners.prepare import prepare_plan

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SIZE = (540, 960)
WINDOW = (1180, 1080)
MOMENT = 76
"""The frame of the result that the page shows."""
QUALITY = 82


def browser() -> str | None:
    """Chromium's program, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def main(arguments: list[str] | None = None) -> int:
    """Write the pictures; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.screens", description="Draw the screenshots of docs/use.md.")
    parser.add_argument("--to", type=Path, default=ROOT / "docs")
    target = parser.parse_args(arguments).to
    # Learned speeds would put other estimates into the pictures each time.
    with tempfile.TemporaryDirectory(prefix="keyscale-screens-") as cache:
        os.environ["KEYSCALE_CACHE_DIR"] = cache
        plan = prepare_plan(
            Job(
                source="examples/court.mp4",
                keyframes="examples/court.json",
                output="examples/court.keyscale.mp4",
                target=Target(width=SIZE[0], height=SIZE[1]),
            )
        )
    contact_sheet(plan).save(target / "preview.webp", quality=QUALITY, method=6)
    program = browser()
    if program is None:
        print("no Chromium is installed: docs/preview-page.webp is left as it is", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="keyscale-screens-") as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "page.png"
        text = preview_page(plan, page, embed=True).replace("\nshow(0);\n", f"\nshow({MOMENT});\n")
        page.write_text(text, encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000"]
        size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
        command = [program, *flags, f"--user-data-dir={folder}/profile", size, f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)  # noqa: S603 - found on the path
        with Image.open(shot) as image:
            image.convert("RGB").save(target / "preview-page.webp", quality=QUALITY, method=6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
