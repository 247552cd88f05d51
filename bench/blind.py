"""One page of details of upscaled clips, still and moving, in random order and without names; the key is another file.

    python -m bench.blind --out DIR [--ratio R] [--source NAME] [--clips NAME ...] [--student NAME=FILE ...] [--seed N]

Each scene of `blind.html` shows the original and then the candidates under letters that are drawn anew for each scene;
`key.json` says which letter is which. The page holds its pictures itself and tells nothing but what they show.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase

import numpy as np
from PIL import Image

from bench.candidates import Candidate, candidates, enlarge
from bench.crops import save_loop
from bench.footage import Clip, Store, read
from bench.metrics import Pixels
from bench.quality import Options, parse
from keyscale.engine.errors import KeyscaleError
from keyscale.engine.review.measures import busiest

SIDE = (256, 176)
"""Width and height of a detail in pixels."""
ZOOM = 2
"""Stills are shown with each pixel repeated so often, both ways."""
LOOP_QUALITY = 90
DEFAULTS = ("Lanczos", "realesr-animevideov3", "realesr-general-x4v3", "automatic choice")
"""What is shown besides the students, unless `--only` says otherwise."""

STYLE = """
body { background: #808080; color: #000; font: 16px/1.4 sans-serif; margin: 2em; }
section { margin-bottom: 3em; }
.row { display: flex; flex-wrap: wrap; gap: 12px; }
figure { margin: 0; }
figcaption { font-weight: bold; }
img { display: block; }
.still { image-rendering: pixelated; }
"""


@dataclass(frozen=True)
class Shown:
    """What the page says of one candidate in one scene."""

    letter: str
    still: bytes
    """PNG."""
    loop: bytes
    """Animated WebP."""


def _detail(frame: Pixels, corner: tuple[int, int]) -> Image.Image:
    top, left = corner
    return Image.fromarray(np.ascontiguousarray(frame[top : top + SIDE[1], left : left + SIDE[0]]))


def show(letter: str, frames: Sequence[Pixels], corner: tuple[int, int]) -> Shown:
    """The pictures of one candidate: the middle frame, and all of them as a loop."""
    details = [_detail(frame, corner) for frame in frames]
    still, loop = io.BytesIO(), io.BytesIO()
    details[len(details) // 2].save(still, "PNG")
    save_loop(details, loop, quality=LOOP_QUALITY)
    return Shown(letter, still.getvalue(), loop.getvalue())


def shuffled(names: Sequence[str], seed: int, scene: str) -> dict[str, str]:
    """Names by letter, drawn for one scene."""
    order = np.random.default_rng([seed, *scene.encode()]).permutation(len(names))
    return {letter: names[place] for letter, place in zip(ascii_uppercase, order, strict=False)}


def page(scenes: Mapping[str, Sequence[Shown]]) -> str:
    """The whole page, given what is shown by each scene's heading."""

    def picture(data: bytes, kind: str, zoom: int, look: str) -> str:
        source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        return f'<img class="{look}" width="{SIDE[0] * zoom}" alt="" src="{source}">'

    parts = []
    for heading, shown in scenes.items():
        figures = "\n".join(
            f"<figure><figcaption>{html.escape(one.letter)}</figcaption>"
            f"{picture(one.still, 'png', ZOOM, 'still')}{picture(one.loop, 'webp', 1, 'loop')}</figure>"
            for one in shown
        )
        parts.append(f'<section><h2>{html.escape(heading)}</h2>\n<div class="row">\n{figures}\n</div></section>')
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Which is best?</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>Which comes closest to the original?</h1>\n{body}\n</body>\n"
        "</html>\n"
    )


def scene(
    clip: Clip, store: Store, compared: Sequence[Candidate], options: Options, seed: int
) -> tuple[list[Shown], dict[str, str]]:
    """What is shown of one clip, the original first, and its key."""
    (ratio,), (source,) = options.ratios, options.sources
    originals = read(store.reference(clip))
    height, width = originals[0].shape[:2]
    corner = busiest(originals[len(originals) // 2], SIDE)
    small = store.small(clip, ratio, source)
    key = shuffled([one.name for one in compared], seed, clip.name)
    by_name = {one.name: one for one in compared}
    shown = [show("original", originals, corner)]
    with tempfile.TemporaryDirectory(prefix="keyscale-blind-") as folder:
        for letter, name in key.items():
            output = Path(folder) / "large.mp4"
            enlarge(small, output, (width, height), by_name[name])
            shown.append(show(letter, read(output), corner))
    return shown, key


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and its key; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.blind",
        description="A page of details without names. What else is given is as of bench.quality.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=1, help="of the order (1)")
    given, rest = parser.parse_known_args(arguments)
    options, _ = parse(["--ratio", "2", "--source", "crf23", *rest])
    if len(options.ratios) != 1 or len(options.sources) != 1:
        parser.error("give one ratio and one source")
    if not options.only:
        students = tuple(name for name, _ in options.students)
        options = replace(options, only=(*DEFAULTS, *students))
    store = Store(options.work, options.shared, options.frames, options.whole)
    scenes: dict[str, list[Shown]] = {}
    key: dict[str, dict[str, str]] = {}
    try:
        (ratio,), (source,) = options.ratios, options.sources
        compared = [one for one in candidates(options) if one.takes(ratio, source.name)]
        for number, clip in enumerate(options.clips, 1):
            heading = f"{number}: {clip.kind}"
            scenes[heading], key[heading] = scene(clip, store, compared, options, given.seed)
            print(heading, file=sys.stderr, flush=True)
    except FileNotFoundError as error:
        print(f"{error.filename} is not there; see --shared and KEYSCALE_SHARED", file=sys.stderr)
        return 2
    except KeyscaleError as error:
        print(f"{error}\n{error.remedy or ''}", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "blind.html").write_text(page(scenes), encoding="utf-8")
    about = {"ratio": ratio, "source": source.name, "seed": given.seed, "scenes": key}
    (given.out / "key.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"{given.out / 'blind.html'}; the key is in {given.out / 'key.json'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
