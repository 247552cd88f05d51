"""The command line's front door: the commands, and the one place where an error becomes an exit code."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from keyscale import __version__
from keyscale.cli.apart import own_process
from keyscale.cli.completion import COMPLETE
from keyscale.cli.terminal import COMMAND_LINE_ERROR, SafeStream, printable, show_failure

__all__ = ["BROKEN_PIPE", "COMMANDS", "app", "main", "run"]

BROKEN_PIPE = 128 + 13
"""Exit code when the reader of the output has left, as a shell reports SIGPIPE."""

_EXAMPLES = """\
Examples:

\b
  keyscale talk.mp4 camera.json           1080x1920, 30 fps: talk.keyscale.mp4
  keyscale talk.mp4 camera.json -o clip.mp4 --mode quality
  keyscale talk.mp4 --size 4k --fps source --start 1:30 --end 2:00
  keyscale plan talk.mp4 camera.json      what would be done
  keyscale preview talk.mp4 camera.json   talk.preview.png

Without a command it is 'keyscale upscale'. 'keyscale COMMAND --help' lists its flags. 'keyscale help TOPIC' explains
a flag, or one of these: keyframes, sizes, times, resume, settings, environment, exit-codes.
"""

COMMANDS = {
    "upscale": "Crop, upscale and verify a clip.",
    "batch": "Make many clips, each only once.",
    "plan": "Show what upscale would do.",
    "preview": "Show the camera over the video and what it will see.",
    "compare": "Show before and after at the same moments.",
    "convert": "Convert keyframes to keyscale's own format.",
    "models": "Networks and their weights: list, fetch, verify.",
    "devices": "Test the devices of this machine: precision and speed.",
    "config": "Defaults from files and the environment: show, path.",
    "doctor": "Check this machine and say how to fix what fails.",
    "completion": "Let the shell complete commands, flags, values and files.",
    "remote": "Run on Modal GPUs: deploy, status, cancel, resume, clean.",
    "help": "Explain a command, a flag such as --size, or a topic.",
}
"""The modules of this folder that hold a command or a group of them, and what help says of each."""


class Program(TyperGroup):
    """The commands. A module is loaded when its command runs: neither help nor another command waits for it."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Click passes it
        """Their names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - Click passes it
        """A command by its name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"keyscale.cli.{cmd_name}")
        return module.command() if hasattr(module, "command") else get_command(module.app)

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """As of Click; a shell completes what stands without `upscale` too."""
        if extra.get("resilient_parsing") and args and args[0] not in {*COMMANDS, *_ROOT_OPTIONS}:
            args = ["upscale", *args]
        return super().make_context(info_name, args, parent, **extra)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """As of Click; the flags of `upscale`, whose name may be left out, too."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            upscale = self.get_command(ctx, "upscale")
            return found + upscale.shell_complete(
                upscale.make_context("upscale", [], ctx, resilient_parsing=True), incomplete
            )
        return found

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - Click passes it
        """Write them with what they do."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    name="keyscale",
    cls=Program,
    help="Crop a video along camera keyframes and upscale it: one exact, verified clip.",
    epilog=_EXAMPLES,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its panels load Markdown and Pygments: half of the time in which --help has to answer
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"keyscale {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


_ROOT_OPTIONS = frozenset({"--help", "-h", "--version", "-V"})


def _with_command(args: list[str], commands: list[str]) -> list[str]:
    """`args`, with `upscale` before a first one that is neither a command nor an option of the program; or `--help`."""
    from keyscale.engine.errors import UsageError

    if not args:
        return ["--help"]
    word = args[0]
    if word == "help" and Path(word).exists():
        return ["upscale", *args]
    if word in commands or word in _ROOT_OPTIONS:
        return args
    if word == "version" and not Path(word).exists():
        return ["--version", *args[1:]]
    if re.fullmatch(r"\w+", word) and not Path(word).exists():
        from difflib import get_close_matches

        near = get_close_matches(word, commands, n=1, cutoff=0.7)
        raise UsageError(
            f"{word!r} is not a command, and there is no such file",
            remedy=f"Did you mean 'keyscale {near[0]}'?" if near else "'keyscale --help' lists the commands.",
        )
    return ["upscale", *args]


def _verbosity(args: list[str]) -> int:
    # Counted here and not taken from the parsed flags: the command line itself may be what is wrong.
    options = args[: args.index("--")] if "--" in args else args
    return sum(
        1 if text == "--verbose" else text.count("v")
        for text in options
        if text == "--verbose" or re.fullmatch(r"-[qv]+", text)
    )


def _show_command_line_error(error: Any, args: list[str]) -> int:
    message = error.format_message().strip()
    if type(error).__name__ == "NoArgsIsHelpError":
        SafeStream(sys.stderr).line(message)
    else:
        from keyscale.cli.mistakes import remedy_for
        from keyscale.engine.addresses import redacted

        SafeStream(sys.stderr).line(f"error: {printable(redacted(message))}\n  -> {printable(remedy_for(error, args))}")
    return int(error.exit_code)


def run(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code; one message on stderr says what went wrong.

    Args:
        argv: Arguments without the program's name; None is the process's own.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    # Help that was not asked for is a message, not data.
    redirected = contextlib.nullcontext() if args else contextlib.redirect_stdout(sys.stderr)
    try:
        command = get_command(app)
        # The parser empties the list that it is given.
        with redirected, command.make_context("keyscale", [*_with_command(args, sorted(COMMANDS))]) as context:
            result = command.invoke(context)
        return result if isinstance(result, int) and not isinstance(result, bool) else 0
    except typer.Exit as stop:
        return stop.exit_code if args else 2
    except COMMAND_LINE_ERROR as error:
        return _show_command_line_error(error, args)
    except BrokenPipeError:
        return BROKEN_PIPE
    except SystemExit as stop:
        # So a library that prints ends the process when its reader leaves.
        return stop.code if isinstance(stop.code, int) else 1
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, typer.Abort):
            error = KeyboardInterrupt()
        from keyscale.engine.events import failure

        failed = failure(error)
        show_failure(failed)
        if _verbosity(args) >= 2:
            SafeStream(sys.stderr).line("".join(traceback.format_exception(error)).rstrip())
        return failed.exit_code


def main() -> None:
    """The console script: `run`, and out."""
    own_process()
    if asked := os.environ.get(COMPLETE):
        from typer.completion import completion_init, shell_complete  # type: ignore[attr-defined]  # Typer has no __all__ there

        completion_init()
        sys.exit(shell_complete(get_command(app), {}, "keyscale", COMPLETE, asked))
    code = run()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            # What is still buffered would make the interpreter complain about the broken pipe on its way out.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            code = code or BROKEN_PIPE
    if code > 128:
        # A network's forward in a worker thread cannot be interrupted, and the interpreter waits for it.
        os._exit(code)
    sys.exit(code)
