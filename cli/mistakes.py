"""What to do about a command line that cannot be read: the flag or the command that was meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

__all__ = ["REMEDIES", "check_values", "remedy_for"]

_SOURCE = "The video is the first argument: keyscale VIDEO KEYFRAMES.json."
_RESULT = "-o FILE names the result."
_PLAN = "'keyscale plan' with the same arguments shows what would be done."
_PLAN_OF_ONE = "'keyscale plan VIDEO KEYFRAMES.json' shows what would be done with one clip."
_SIZE = "--size is the size of the result: 1080x1920, 9:16, 2x for twice what the camera sees, or a name such as 4k."
_RATE = "--fps is the rate of the result."
_START = "--start is where the source begins, in seconds or as MM:SS."
_END = "--end is where the source ends, in seconds or as MM:SS; there is no flag for a length."
_QUALITY = "--crf sets the quality (lower is better), --mode quality takes the larger network."
_NO_SOUND = "--no-audio leaves the sound out."
_GPU = "--device gpu runs the network on a GPU of this machine, --device cpu on its CPU, --remote on Modal's GPUs."
_REPLACE = "--overwrite, or -y, replaces a result that is there."
_THREADS = "All cores that the process may use are used: limit them with taskset or the container."

_MEANT = {
    _SOURCE: "-i --input --in --video --source --keyframes -k --camera",
    _RESULT: "--out --outfile --output-file --dest",
    _PLAN: "--dry-run --dryrun -n --simulate --what-if --check",
    _SIZE: "-s --scale --upscale --outscale --width --height -w --resolution --res --target --aspect --ratio",
    _RATE: "--rate --framerate --frame-rate --frames-per-second",
    _START: "-ss --ss --from --begin --trim --seek",
    _END: "-to --to --until-time --stop -t --duration --length",
    _QUALITY: "--quality --bitrate -b -crf --cq --qp -q:v -b:v",
    _NO_SOUND: "-an --mute --no-sound --silent --without-audio",
    _GPU: "--gpu -g --cuda --gpu-id --use-gpu --cpu --mps",
    _REPLACE: "-f --force --replace --yes",
    _THREADS: "--threads --workers --num-threads --cores",
    "--codec h264, hevc, av1 or prores is the encoder.": "--encoder --vcodec -c -c:v --format --video-codec",
    "--model NAME is the network; 'keyscale models list' shows them.": "-m --network --weights",
    "Name the file of keyframes after the video; --fit says how another shape meets the size.": "--crop --pad --fill",
    "--still 12.5 makes one frame of the result, as a PNG.": "--frame --screenshot --snapshot --thumbnail --vframes",
    "'keyscale preview' with the same arguments shows the camera over the video.": "--preview --show --visualize",
    "'keyscale compare VIDEO RESULT KEYFRAMES.json' shows before and after.": "--compare --side-by-side --split",
    "-v tells more, -vv prints tracebacks, --progress json is for programs.": "--debug --log --loglevel --json",
    "'keyscale --version' prints it.": "-version",
}
"""By what to do: flags of FFmpeg, HandBrake, Real-ESRGAN and others that people type."""

REMEDIES = {flag: remedy for remedy, flags in _MEANT.items() for flag in flags.split()}
"""What to do about each of them."""


def remedy_for(error: Any, args: list[str]) -> str:
    """What to do about a parser's error, in a sentence.

    Args:
        error: what the parser raised.
        args: the command line.
    """
    context = getattr(error, "ctx", None)
    if context is None:
        return "'keyscale --help' lists what it takes."
    params = context.command.params
    flags = {flag for param in params for flag in param.opts}
    shown = f"'{context.command_path} --help' lists what it takes."
    remedy = shown
    if flag := getattr(error, "option_name", None):
        # The parser takes -ss for -s -s: what was typed tells more.
        typed = next((arg for arg in map(_bare, args) if arg in REMEDIES and arg.startswith(flag)), flag)
        remedy = _of_a_flag(typed, flags, context.info_name, shown)
    elif type(error).__name__ == "MissingParameter":
        words = [
            param.make_metavar(context).strip("{}")
            if param.param_type_name == "argument"
            else f"{param.opts[-1]} {param.metavar}"
            for param in params
            if param.param_type_name == "argument" or param.required
        ]
        remedy = f"Write {' '.join((context.command_path, *words))}; {shown}"
    elif found := re.search(r"unexpected extra argument(?:\(s\))? \((.*)\)", error.format_message()):
        from keyscale.engine.files import VIDEO_SUFFIXES

        if "--output" in flags and PurePath(found[1]).suffix.lower() in VIDEO_SUFFIXES:
            remedy = f"For the name of the result give -o {found[1]}; 'keyscale batch' makes several videos."
        elif "--output" in flags:
            remedy = f"A name with spaces goes in quotes, and -o names the result; {shown}"
    return remedy


def _of_a_flag(typed: str, flags: set[str], command: str, shown: str) -> str:
    """What to do about a flag that a command lacks; advice that names flags is for commands that have them."""
    from keyscale.cli.options import owners

    remedy = REMEDIES.get(typed)
    if remedy is None:
        names = " and ".join(f"'keyscale {name}'" for name in owners(typed))
        return f"It is a flag of {names}. {shown}" if names else shown
    if remedy is _PLAN and command != "upscale":
        return _PLAN_OF_ONE if command == "batch" else shown
    named = re.findall(r"(?<![\w'-])(?:--[a-z-]+|-[a-z]\b)", remedy)
    return remedy if flags.issuperset(named) else shown


def check_values(args: Sequence[str], params: Sequence[Any]) -> None:
    """Raise a `UsageError` where a flag stands in the place of another one's value.

    Args:
        args: a command's part of the command line.
        params: what the command takes, as the parser knows it.
    """
    from keyscale.engine.errors import UsageError

    flags = {flag: param for param in params for flag in (*param.opts, *param.secondary_opts) if flag.startswith("-")}
    due = iter(args)
    for arg in due:
        if arg == "--":
            return
        param = flags.get(arg)
        if param is None or param.is_flag or param.count:
            continue
        value = next(due, None)
        if value is not None and _bare(value) in flags:
            raise UsageError(
                f"{arg} needs a value, and {_bare(value)} stands in its place",
                remedy=f"Write {arg} {param.metavar or 'VALUE'}.",
            )


def _bare(arg: str) -> str:
    return arg.partition("=")[0]
