"""`keyscale completion`: what shells complete, and the script by which they ask."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyscale.cli.terminal import write_data

if TYPE_CHECKING:
    from keyscale.engine.options import Option

__all__ = ["COMPLETE", "app", "words_for"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)

COMPLETE = "_KEYSCALE_COMPLETE"
"""The variable by which a shell's script asks what a command line may go on with."""

SHELLS = ("bash", "zsh", "fish", "powershell")

ZSH_READY = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }\n"
"""`compdef` is there once the completion system is; a start file that never began it need not be changed for it."""


@app.command("completion")
def completion(
    *,
    shell: Annotated[str, typer.Argument(metavar="|".join(SHELLS), help="The shell.")],
    install: Annotated[bool, typer.Option("--install", help="Install it, and say which files were changed.")] = False,
) -> None:
    """Print or install shell completion for commands, flags, values and files."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # Typer has no __all__ there

    from keyscale.engine.errors import UsageError

    if shell not in SHELLS:
        raise UsageError(f"{shell!r} is not a supported shell", remedy=f"Give {', '.join(SHELLS)}.")
    script = get_completion_script(prog_name="keyscale", complete_var=COMPLETE, shell=shell) + "\n"
    if shell == "zsh":
        script = ZSH_READY + script
    write_data("".join(f"{line}\n" for line in _install(shell, script)) if install else script)


def _install(shell: str, script: str) -> list[str]:
    """Write the script, and the line that loads it where the shell looks for none by itself; what was done.

    Raises:
        StorageError: a file cannot be written.
    """
    from keyscale.engine.errors import StorageError
    from keyscale.engine.files import storage_error

    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    start: Path | None = None
    if shell == "fish":
        path = config / "fish" / "completions" / "keyscale.fish"
    else:
        path = config / "keyscale" / f"completion.{'ps1' if shell == 'powershell' else shell}"
        if shell == "powershell":
            start = _profile()
        else:
            start = (Path(os.environ.get("ZDOTDIR") or home) if shell == "zsh" else home) / f".{shell}rc"
    done = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script, encoding="utf-8")
        done.append(f"wrote {path}")
        if start is not None:
            line = f'. "{path}"'
            before = start.read_text(encoding="utf-8") if start.exists() else ""
            if line in before.splitlines():
                done.append(f"{start} loads it already")
            else:
                start.parent.mkdir(parents=True, exist_ok=True)
                with start.open("a", encoding="utf-8") as file:
                    file.write(f"{'' if not before or before.endswith(chr(10)) else chr(10)}{line}\n")
                done.append(f"added to {start}: {line}")
    except OSError as error:
        raise storage_error(error, Path(error.filename or path)) from error
    except UnicodeDecodeError as error:
        raise StorageError(f"{start} is not UTF-8 text", remedy=f"Add this line to it: . {path}") from error
    return [*done, "It holds in shells that are started from now on."]


def _profile() -> Path:
    """PowerShell's start file, which it alone knows."""
    from keyscale.engine.errors import EnvironmentFault

    for program in ("pwsh", "powershell"):
        try:
            told = subprocess.run(  # noqa: S603 - the arguments are ours
                [program, "-NoProfile", "-Command", "$PROFILE"], capture_output=True, text=True, check=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            continue
        if told.stdout.strip():
            return Path(told.stdout.strip())
    raise EnvironmentFault(
        "no PowerShell answers here",
        remedy="Add to its $PROFILE: keyscale completion powershell | Out-String | Invoke-Expression",
    )


def words_for(each: Option, incomplete: str, given: Mapping[str, Any]) -> list[str]:
    """What an option may go on with; nothing leaves it to the shell, which knows files.

    Args:
        each: the option.
        incomplete: what was typed of it.
        given: the other values of the command line, by option.
    """
    from keyscale.engine.forms import Model

    if each.name == "keyframes":
        return _keyframes(incomplete, given.get("video"))
    words: tuple[str, ...] = each.form.words
    if isinstance(each.form, Model):
        from keyscale.engine.models.registry import all_models

        words = (*(spec.name for spec in all_models()), "lanczos")
    return [word for word in words if word.lower().startswith(incomplete.lower())]


def _keyframes(incomplete: str, video: str | None) -> list[str]:
    """Files of keyframes where one is being typed, else beside the video; that of the video's name first."""
    from keyscale.engine.files import CAMERA_SUFFIXES

    typed, slash, begun = incomplete.rpartition("/")
    folder = f"{typed}{slash}"
    beside = "" if incomplete or video is None else "".join(str(video).rpartition("/")[:2])
    stem = Path(video or "").stem.lower()
    try:
        names = sorted(path.name for path in Path(folder or beside).iterdir())
    except OSError:
        return []
    found = [name for name in names if name.startswith(begun) and name.lower().endswith(CAMERA_SUFFIXES)]
    return [f"{folder or beside}{name}" for name in sorted(found, key=lambda name: not name.lower().startswith(stem))]
