"""Make the pictures of README.md from the example; `make pictures` does it, and `tools.screens` the others.

- `docs/camera.webp` moves: the source with the camera, and beside it the result.
- `docs/picture.webp`: one detail by Lanczos and by the network.

The pixels are those that `make demo` encodes: the same plan, window, network and sampling.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from keyscale.engine.camera.sampler import sample
from keyscale.engine.job import Compute, Job, ModelChoice, Target
from keyscale.engine.models import open_model
from keyscale.engine.pipeline.upscaler import Upscaler
from keyscale.engine.plan.plan import LANCZOS, Plan
from keyscale.engine.review.camera_track import track_of
from keyscale.engine.review.pictures import DIM, INK, PAPER, font, source_pixels, source_view
from keyscale.engine.runners.prepare import prepare_plan

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CLIP, CAMERA = "examples/court.mp4", "examples/court.json"

NETWORK = "keyscale-compact-x4"
"""What `--mode fast` takes at x4."""
SIZE = (540, 960)
SECOND = 2.96
"""Time of the source frame whose detail is shown."""
DETAIL = (130, 310, 530, 950)
"""Left, top, right and bottom of the detail, in pixels of the result."""

MOVING = (270, 480)
"""Size of the result in the moving picture."""
EVERY = 4
"""Of the result's 30 frames a second, which one is shown."""

MARGIN, GAP, HEAD = 20, 12, 44
WIDTH = 1280


def plan_with(model: str, size: tuple[int, int] = SIZE) -> Plan:
    """The demo's plan, by another network or by none, at another size."""
    return prepare_plan(
        Job(
            source=CLIP,
            keyframes=CAMERA,
            output="examples/picture.mp4",
            target=Target(width=size[0], height=size[1]),
            model=ModelChoice(name=model),
            compute=Compute(device="cpu"),
        )
    )


def shown(plan: Plan, frames: list[int]) -> Iterator[tuple[int, Image.Image, Image.Image]]:
    """Output frames as the pipeline samples them, each with its number and the source frame with the camera."""
    upscaler = Upscaler(open_model(plan.model.name, plan.executions[0]), plan.info.lattice) if plan.model else None
    track = track_of(plan)
    size = (plan.job.target.width, plan.job.target.height)
    for number, pixels in source_pixels(plan, frames):
        window = plan.window(number)
        seen = upscaler(pixels, window) if upscaler else pixels[window.y0 : window.y1, window.x0 : window.x1]
        made = sample(seen, window, plan.scale, plan.geometry, plan.rects[number], plan.placements[number], size)
        yield number, Image.fromarray(made), source_view(plan, track, number, pixels, plan.info.lattice)


def caption(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, size: int = 18) -> None:
    """A line of text above something at `y`."""
    draw.text((x, y), text, font=font(size), fill=INK if size > 16 else DIM, anchor="ls")


def moving() -> list[Image.Image]:
    """The camera at work: the source and the result, side by side."""
    plan = plan_with(NETWORK, MOVING)
    pictures = []
    for _, result, source in shown(plan, list(range(0, plan.frames, EVERY))):
        canvas = Image.new("RGB", (source.width + GAP + MOVING[0], MOVING[1]), PAPER)
        canvas.paste(source, (0, MOVING[1] - source.height))
        canvas.paste(result, (source.width + GAP, 0))
        draw = ImageDraw.Draw(canvas)
        caption(draw, 0, MOVING[1] - source.height - 44, "keyscale court.mp4 court.json", 22)
        caption(draw, 0, MOVING[1] - source.height - 14, "640x360, and the camera; right: what it sees, upscaled", 16)
        pictures.append(canvas)
    return pictures


def detail() -> Image.Image:
    """One moment: source, result, and a detail of it beside Lanczos."""
    plan = plan_with(NETWORK)
    number = int(np.abs(plan.info.times()[plan.source_index] - SECOND).argmin())
    (_, result, source), (_, lanczos, _) = (next(shown(each, [number])) for each in (plan, plan_with(LANCZOS)))
    panels = [image.crop(DETAIL) for image in (lanczos, result)]
    across, down = panels[0].size
    canvas = Image.new("RGB", (WIDTH, HEAD + down + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    column = WIDTH - 2 * across - GAP - 3 * MARGIN
    view = source.resize((column, round(source.height * column / source.width)), Image.Resampling.LANCZOS)
    caption(draw, MARGIN, HEAD - 13, "The source, 640x360, and the camera")
    canvas.paste(view, (MARGIN, HEAD))
    tall = down - view.height - 52
    whole = result.resize((round(tall * SIZE[0] / SIZE[1]), tall), Image.Resampling.LANCZOS)
    caption(draw, MARGIN, HEAD + down - tall - 13, "The result, 540x960")
    canvas.paste(whole, (MARGIN, HEAD + down - tall))
    caption(draw, MARGIN + whole.width + 14, HEAD + down - tall + 16, f"output frame {number};", 16)
    caption(draw, MARGIN + whole.width + 14, HEAD + down - tall + 39, "right: cut out of it,", 16)
    caption(draw, MARGIN + whole.width + 14, HEAD + down - tall + 62, "pixel for pixel", 16)
    for index, (panel, text) in enumerate(zip(panels, ("Lanczos x4", f"keyscale ({NETWORK})"), strict=True)):
        x = WIDTH - MARGIN - (2 - index) * across - (1 - index) * GAP
        caption(draw, x, HEAD - 13, text)
        canvas.paste(panel, (x, HEAD))
    return canvas


def main() -> None:
    """Write them."""
    detail().save(DOCS / "picture.webp", quality=88, method=6)
    first, *rest = moving()
    first.save(
        DOCS / "camera.webp",
        save_all=True,
        append_images=rest,
        duration=1000 * EVERY // 30,
        loop=0,
        quality=45,
        method=4,
    )
    for name in ("picture", "camera"):
        path = DOCS / f"{name}.webp"
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
