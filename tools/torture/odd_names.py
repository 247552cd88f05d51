"""Section: names of files that shells, terminals, URLs, formats and file systems stumble over."""

from __future__ import annotations

import os
import time
import unicodedata

from tools.torture.cases import Case
from tools.torture.lab import ALL_FROM, Lab
from tools.torture.material import FLAGS, KINDS, make_video
from tools.torture.report import Section

__all__ = ["NAMES", "odd_names"]

NAMES: tuple[bytes, ...] = (
    b" ", b"  two  ", b"new\nline", b"tab\t", b"'", b'"', b"`id`", b"$(touch x)", b"; touch x", b"|x", b"&", b"<x>",
    b"*", b"?", b"[a]", b"!", b"\\", b"\\n", b"-", b"--", b"-o", b"-rf", b"--help", b"~", b"~root", b"$HOME", b"%d",
    b"%05d", b"%s%n", b"{x}", b"a:b", b"file:x", b"http:x", b"pipe:0", b"concat:a|b", b"data:,x", b"s3:x",
    b"con", b".hidden", b"..x", b"x..", b"#", b"@x", b"=", b",", b"(", b"\x01", b"\x1b[31mred", b"\x7f", "é".encode(),
    unicodedata.normalize("NFD", "é").encode(),
    "ﬁ Å".encode(), "日本語".encode(), "👩‍👩‍👧".encode(), "\u202egnp".encode(), "a\u200bb".encode(), "\ufeff".encode(),
    b"\xff\xfe", b"caf\xe9", b"\xc3", b"\xed\xa0\x80", b"x" * 240, "日".encode() * 83, b"x" * 251, b"\xff" * 251,
)  # fmt: skip
"""Without their extension. The last ones are as long as a name can be, 255 bytes with it."""

LONGEST = 255
"""Bytes of a name on common file systems."""


def odd_names(lab: Lab) -> Section:
    """Each name in turn for the source, the keyframes and the result; then for all of them at once."""
    section = Section(
        name="odd names",
        about=f"{len(NAMES)} names: with spaces, line ends, quotes, leading dashes, of 255 bytes, not UTF-8, in two "
        "normal forms of Unicode, with what shells, URLs and FFmpeg's patterns take for their own. Each as "
        "source, as keyframes, as result, and for a result that is named after its source. All have to work, and "
        "to leave nothing but the result.",
    )
    began = time.monotonic()
    with lab.folder() as folder:
        video = make_video(folder / "in.mp4", KINDS[0]).read_bytes()
    camera = b'[{"time": 0, "x": 0, "y": 0, "width": 32, "height": 24}]'
    count = max(8, lab.count(len(NAMES)))
    for number in range(count):
        stem = os.fsdecode(NAMES[int((number + 0.5) * len(NAMES) / count)])
        source, keyframes, output = f"{stem}.mp4", f"{stem}.json"[-LONGEST:], f"{stem}.mov"
        if len(os.fsencode(f"{stem}.json")) > LONGEST:
            keyframes = os.fsdecode(os.fsencode(stem)[1:]) + ".json"
        named = f"{stem}.keyscale.mp4"
        too_long = len(os.fsencode(named)) > LONGEST
        shown = ascii(stem if len(stem) < 40 else f"{stem[:8]}... ({len(os.fsencode(stem))} bytes)")
        roles = (
            ("as the source", ("upscale", "-o", "out.mp4", *FLAGS, "--", source), "out.mp4"),
            ("as the keyframes", ("upscale", "-o", "out.mp4", *FLAGS, "--", "in.mp4", keyframes), "out.mp4"),
            ("as the result", ("upscale", "in.mp4", *FLAGS, "-o", output), output),
            ("as all three", ("upscale", f"--output={output}", *FLAGS, "--", source, keyframes), output),
            ("as a path", ("upscale", f"./{source}", f"./{keyframes}", "-o", f"./{output}", *FLAGS), output),
            ("and a result named after it", ("upscale", *FLAGS, "--", source), named),
        )
        # Of a small share each name has two roles, the next name the next two.
        first = 2 * number % len(roles)
        for role, arguments, made in roles if lab.share >= ALL_FROM else roles[first : first + 2]:
            with lab.folder() as folder:
                for name, content in ((source, video), ("in.mp4", video), (keyframes, camera)):
                    (folder / name).write_bytes(content)
                refused = too_long and made == named
                case = Case(
                    name=f"{shown} {role}",
                    arguments=arguments,
                    output=made,
                    codes=frozenset({2, 4}) if refused else frozenset({0}),
                )
                lab.attempt(case, folder, section)
    section.seconds = time.monotonic() - began
    return section
