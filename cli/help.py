"""`keyscale help`: a command, a flag or a topic, explained on the terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyscale.cli.terminal import write_data

if TYPE_CHECKING:
    from keyscale.engine.options import Option

__all__ = ["SYNONYMS", "TOPICS", "app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)

COLUMNS = 80
"""The manual page indents topics by seven more, so their lines are shorter."""

TOPICS = {
    "keyframes": """\
A keyframes file says which rectangle of the source is shown when:

  [
    {"time": 0.0, "x": 656.3, "y": 0, "width": 607.5, "height": 1080},
    {"time": 2.5, "x": 1100, "y": 0, "width": 607.5, "height": 1080}
  ]

time     seconds after the source's first frame
x, y     left and top edge, in pixels of the source as a player shows it
width, height   of the rectangle
ease     optional: "hold" keeps the rectangle until the next keyframe

Between keyframes the camera moves evenly. CSV, JSON Lines and the files
of several editors are read as well. 'keyscale convert FILE' shows what
was understood, 'keyscale preview VIDEO FILE' draws it over the video.
""",
    "sizes": """\
--size 1080x1920   width and height in pixels, both even
--size reel        a name: reel, short, story, tiktok (1080x1920),
                   portrait (1080x1350), square (1080x1080), 720p,
                   1080p, 1440p, 2160p, 4k (3840x2160), 8k
--size 9:16        a shape; the network's scale decides how large
--size 2x          twice what the camera sees at its widest

If camera and size differ in shape, --fit cover crops, contain adds bars,
and stretch distorts. 'keyscale plan' shows the size in pixels.
""",
    "times": """\
Times are seconds (90, 1.5), MM:SS (1:30), H:MM:SS.mmm (0:01:30.250), or
have units (1m30s, 250ms). They count from the source's first displayed
frame; --still counts from the start of the result.

Rates are exact: --fps 30, 30000/1001, 29.97 (read as 30000/1001), or
source.
""",
    "resume": """\
A job is made in chunks of about 8 seconds. After Ctrl-C, a crash or
kill -9, run the same command again: it continues from the finished
chunks and gives the same frames. They lie in .NAME.keyscale beside the
result; remove that folder to give up a job. --no-resume starts anew.

The result appears under its name when it is complete and verified.
--overwrite replaces an existing one, --update skips one that is up to
date.
""",
    "settings": """\
A flag that is not given takes its value from the first of these that has
one:

  environment   KEYSCALE_ and the flag's name, such as KEYSCALE_SIZE
  preset        --config FILE, else keyscale.toml beside the input
  user config   the file that 'keyscale config path' prints

Files are TOML; a key is the flag's name without dashes:
size = "1080x1920".
'keyscale config show' prints each value and where it comes from.
""",
    "environment": """\
KEYSCALE_SIZE, KEYSCALE_CRF, ...   the default of a flag
KEYSCALE_CONFIG        the same as --config
KEYSCALE_CONFIG_DIR    the folder of your config.toml
KEYSCALE_CACHE_DIR     weights, copies of sources with an address, speeds
KEYSCALE_STATE_DIR     notes about remote jobs
KEYSCALE_WEIGHTS_DIR   a folder of weights files, searched first
KEYSCALE_WEIGHTS_URL   a mirror to download weights from
MODAL_ENABLED          whether --remote is the default
MODAL_TOKEN_ID, MODAL_TOKEN_SECRET   your account at Modal
R2_ENDPOINT_URL or R2_ACCOUNT_ID, R2_BUCKET_NAME, R2_ACCESS_KEY_ID,
R2_SECRET_ACCESS_KEY   your bucket
HTTPS_PROXY, HTTP_PROXY, NO_PROXY    proxies
NO_COLOR               no colours
""",
    "exit-codes": """\
0     the result is there and was verified
1     anything else, such as a batch in which clips failed
2     a flag or the keyframes file is wrong
3     the source cannot be read
4     this machine: disk, rights, memory, device, encoder
5     object storage or Modal
6     the finished file differs from the plan, and was not published
129   the terminal was closed (SIGHUP)
130   Ctrl-C (SIGINT)
141   the reader of the output has left (SIGPIPE)
143   SIGTERM

After 129, 130 and 143 the same command continues from the finished
chunks.
""",
}
"""What no single command or flag explains; the manual page has them too."""

SYNONYMS = {
    "camera": "keyframes",
    "exit": "exit-codes",
    "codes": "exit-codes",
    "errors": "exit-codes",
    "env": "environment",
    "variables": "environment",
    "rates": "times",
    "resuming": "resume",
    "names": "sizes",
}
"""Other words for topics."""


def _complete(incomplete: str) -> list[str]:
    from keyscale.cli.app import COMMANDS

    return [word for word in (*COMMANDS, *TOPICS) if word.startswith(incomplete.lower())]


@app.command("help", epilog=f"Topics: {', '.join(TOPICS)}.", context_settings={"ignore_unknown_options": True})
def explain(
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND|FLAG|TOPIC",
            help="A command, a flag such as --size, or one of the topics below.",
            autocompletion=_complete,
        ),
    ] = None,
) -> int:
    """Explain a command, a flag or a topic."""
    from keyscale.cli.app import COMMANDS, run
    from keyscale.cli.options import owners
    from keyscale.engine.errors import UsageError

    if not words:
        return run(["--help"])
    if words[0] in COMMANDS and words[0] not in TOPICS:
        return run([*words, "--help"])
    word = words[0].lower()
    name = word.lstrip("-").replace("_", "-")
    topic = SYNONYMS.get(name, name)
    if topic in TOPICS and not word.startswith("-"):
        write_data(TOPICS[topic])
        return 0
    found = owners(word if word.startswith("-") else f"--{name}")
    if not found:
        from difflib import get_close_matches

        from keyscale.cli.mistakes import REMEDIES

        if meant := REMEDIES.get(word if word.startswith("-") else f"--{name}"):
            write_data(_filled(f"{meant[0].upper()}{meant[1:]}"))
            return 0
        known = (*COMMANDS, *TOPICS)
        near = get_close_matches(name, known, n=1, cutoff=0.6)
        raise UsageError(
            f"there is no command, flag or topic {words[0]!r}",
            remedy=f"Did you mean 'keyscale help {near[0]}'?" if near else f"Topics are {', '.join(TOPICS)}.",
        )
    write_data(_entry(found))
    return 0


def _entry(found: dict[str, Option]) -> str:
    """What there is to know of a flag, a paragraph for each meaning that it has."""
    from keyscale.cli.settings import known_settings
    from keyscale.engine.arguments import arguments_of
    from keyscale.engine.wording import say

    by_help: dict[str, list[str]] = {}
    for command, each in found.items():
        by_help.setdefault(each.help, []).append(command)
    known, _ = known_settings()
    lines = []
    for text, commands in by_help.items():
        each = found[commands[0]]
        value = "" if each.is_switch else f" {each.metavar or each.form.metavar}"
        short = f"-{each.short}, " if each.short else ""
        contrary = f", --{each.contrary}" if each.contrary else ""
        lines.append(f"{short}--{each.key}{value}{contrary}".rstrip() + "\n")
        rows = [("", str(say(text))), ("commands", ", ".join(commands))]
        if not each.is_switch and each.default is not None:
            rows.append(("default", str(each.written(each.default))))
        if each.name in known:
            rows.append(("settings", f"{each.key} in files, {', '.join(known[each.name].variables)}"))
        if each.name in arguments_of() and arguments_of()[each.name].help == text:
            rows.append(("Python", each.name))
        for label, said in rows:
            lines.append(_filled(said, f"  {label + ':':<10}" if label else "  ", "  " + " " * 10 * bool(label)))
    return "".join(lines)


def _filled(text: str, first: str = "", others: str = "") -> str:
    options: dict[str, Any] = {"break_on_hyphens": False, "break_long_words": False}
    return textwrap.fill(text, COLUMNS, initial_indent=first, subsequent_indent=others, **options) + "\n"
