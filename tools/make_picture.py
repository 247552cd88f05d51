"""Draw `docs/picture.webp` from the example: the source and its camera, and one detail by Lanczos and by the network.

    python tools/make_picture.py

The pixels are those that `make demo` encodes: the same plan, window, network and sampling, of one output frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from keyscale.engine.camera.sampler import sample
from keyscale.engine.job import Compute, Job, ModelChoice, Target
from keyscale.engine.models import open_model
from keyscale.engine.pipeline.upscaler import Upscaler
from keyscale.engine.plan.plan import LANCZOS, Plan
from keyscale.engine.runners.prepare import prepare_plan
from keyscale.engine.source.reader import SourceFrame, read_frames

ROOT = Path(__file__).resolve().parents[1]
CLIP, CAMERA = ROOT / "examples" / "court.mp4", ROOT / "examples" / "court.json"

NETWORK = "keyscale-compact-x4"
"""What `--mode fast` takes at x4."""
SIZE = (540, 960)
SECOND = 2.96
"""Time of the source frame that is shown."""
DETAIL = (130, 310, 530, 950)
"""Left, top, right and bottom of the detail, in pixels of the result."""

PAPER, INK, DIM, FRAME = (15, 19, 30), (244, 245, 248), (160, 168, 184), (255, 214, 64)
MARGIN, GAP = 20, 12
WIDTH = 1280

Pixels = npt.NDArray[np.uint8]


def plan_with(model: str) -> Plan:
    """The demo's plan, by another network or by none."""
    return prepare_plan(
        Job(
            source=str(CLIP),
            keyframes=str(CAMERA),
            output=str(ROOT / "examples" / "picture.mp4"),
            target=Target(width=SIZE[0], height=SIZE[1]),
            model=ModelChoice(name=model),
            compute=Compute(device="cpu"),
        )
    )


def nearest(plan: Plan) -> int:
    """The output frame that shows the source at about `SECOND`."""
    times = plan.info.times()[plan.source_index]
    return int(np.abs(times - SECOND).argmin())


def output_frame(plan: Plan, number: int) -> tuple[Image.Image, Pixels]:
    """One output frame as the pipeline samples it, and the source frame that it shows."""
    (frame,) = read_frames(plan.info, [plan.pts(number)], deep=False, keep_going=False, should_stop=lambda: False)
    assert isinstance(frame, SourceFrame)
    pixels, window = frame.pixels, plan.window(number)
    if plan.model is None:
        seen = pixels[window.y0 : window.y1, window.x0 : window.x1]
    else:
        network = open_model(plan.model.name, plan.executions[0])
        seen = Upscaler(network, plan.info.lattice)(pixels, window)
    made = sample(seen, window, plan.scale, plan.geometry, plan.rects[number], plan.placements[number], SIZE)
    return Image.fromarray(made), np.asarray(pixels, dtype=np.uint8)


def source_view(pixels: Pixels, plan: Plan, number: int, width: int) -> Image.Image:
    """The source frame with the camera's rectangle bright and the rest darkened, and the way of its centre."""
    image = Image.fromarray(pixels)
    factor = width / image.width
    image = image.resize((width, round(image.height * factor)), Image.Resampling.LANCZOS)
    dark = Image.blend(image, Image.new("RGB", image.size, PAPER), 0.55)
    x, y, across, down = (float(v) * factor for v in plan.rects[number])
    box = (round(x), round(y), round(x + across), round(y + down))
    dark.paste(image.crop(box), box[:2])
    draw = ImageDraw.Draw(dark)
    draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=FRAME, width=2)
    centres = (plan.rects[:, :2] + plan.rects[:, 2:] / 2) * factor
    draw.line([tuple(map(float, c)) for c in centres], fill=FRAME, width=2)
    for u, v in centres[:: len(centres) // 8]:
        draw.ellipse((u - 3, v - 3, u + 3, v + 3), fill=FRAME)
    return dark


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font that Pillow brings."""
    return ImageFont.load_default(size)


def compose() -> Image.Image:
    """The whole picture."""
    plan, plain = plan_with(NETWORK), plan_with(LANCZOS)
    number = nearest(plan)
    result, pixels = output_frame(plan, number)
    lanczos, _ = output_frame(plain, number)
    panels = [image.crop(DETAIL) for image in (lanczos, result)]
    across, down = panels[0].size
    column = WIDTH - 2 * across - GAP - 3 * MARGIN
    head = 44
    canvas = Image.new("RGB", (WIDTH, head + down + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)

    def caption(x: int, y: int, text: str, colour: tuple[int, int, int] = INK, size: int = 18) -> None:
        draw.text((x, y), text, font=font(size), fill=colour, anchor="ls")

    view = source_view(pixels, plan, number, column)
    caption(MARGIN, head - 13, "The source, 640x360, and the camera")
    canvas.paste(view, (MARGIN, head))
    whole_height = head + down - (head + view.height + 52)
    whole = result.resize((round(whole_height * SIZE[0] / SIZE[1]), whole_height), Image.Resampling.LANCZOS)
    top = head + down - whole_height
    caption(MARGIN, top - 13, "The result, 540x960")
    canvas.paste(whole, (MARGIN, top))
    left = MARGIN + whole.width
    words = [
        ("keyscale upscale", INK),
        ("  court.mp4", INK),
        ("  court.json", INK),
        ("  --size 540x960", INK),
        ("", DIM),
        (f"output frame {number};", DIM),
        ("right: cut out of it,", DIM),
        ("pixel for pixel", DIM),
    ]
    for line, (text, colour) in enumerate(words):
        caption(left + 14, top + 16 + 23 * line, text, colour, 16)
    for index, (panel, text) in enumerate(zip(panels, ("Lanczos x4", f"keyscale ({NETWORK})"), strict=True)):
        x = WIDTH - MARGIN - (2 - index) * across - (1 - index) * GAP
        caption(x, head - 13, text)
        canvas.paste(panel, (x, head))
    return canvas


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Draw the picture of README.md.")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "picture.webp")
    target = parser.parse_args().to
    compose().save(target, quality=88, method=6)
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
