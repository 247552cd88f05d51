"""Flags that were not given take what settings files and the environment say; `engine.settings` has the layers."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from keyscale.cli import options as opt
from keyscale.cli import remote_options as remote_opt
from keyscale.cli.options import GroupedCommand

if TYPE_CHECKING:
    from pathlib import Path

    from keyscale.engine.errors import KeyscaleError
    from keyscale.engine.settings import Given, Kind, Known, Setting

__all__ = [
    "COMMAND_LINE_ERROR",
    "ConfiguredCommand",
    "Flag",
    "Resolved",
    "RunCommand",
    "cast",
    "cast_text",
    "check",
    "flag_name",
    "flags_of",
    "ignored_variables",
    "in_plain_words",
    "resolve",
    "settings_of",
]

# Older releases of Typer use the Click that is installed, newer ones carry their own: the base class of its
# errors has no public name that holds for both.
COMMAND_LINE_ERROR: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""What the parser raises for a command line that it cannot read."""

_KEY = "keyscale.settings"
_PREFIX = "KEYSCALE_"
BATCH = "batch"

REFUSED = {
    "video": "inputs are named on the command line",
    "keyframes": "inputs are named on the command line, or by a manifest",
    "inputs": "they are named on the command line",
    "output": "it names the result of a single run",
    "overwrite": "results would be replaced that nobody meant in that run",
    "update": "results would be replaced that nobody meant in that run",
    "config": "a settings file does not name another one",
    "json": "whoever reads the output has to ask for its form",
    "verbose": "it is for looking into a single run",
    "watch": "a command would not end that is expected to",
}
"""Flags that no settings file and no variable holds."""

_WRITES = "it names a file that is written, and a folder of clips may be anyone's"

OTHER_VARIABLES = frozenset(
    _PREFIX + name
    for name in (
        "CACHE_DIR",
        "CONFIG",
        "CONFIG_DIR",
        "CONTAINERS",
        "GPU",
        "STATE_DIR",
        "TIMEOUT",
        "WEIGHTS_DIR",
        "WEIGHTS_URL",
    )
)
"""Variables of the program that are no settings of a flag."""


@dataclass(frozen=True)
class Flag:
    """A flag that may be set by files and the environment."""

    known: Known
    param: Any
    """The command's parameter."""

    @property
    def name(self) -> str:
        """As messages and tables call it: `size`, `batch.jobs`."""
        return f"{BATCH}.{self.known.name}" if self.known.batch else self.known.name


@dataclass(frozen=True)
class Resolved:
    """What files and the environment say, checked."""

    values: Mapping[str, Given]
    """By flag; the highest layer that has it."""
    user: Path
    """The user's file, there or not."""
    preset: Path | None


class ConfiguredCommand(GroupedCommand):
    """A command whose flags take settings where they are not given.

    Its argument `video` or `inputs` says where a preset may lie, its parameter `config` names one.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, then apply the settings; `settings_of` tells what came of it.

        Raises:
            UsageError: a settings file or a variable is wrong.
            EnvironmentFault: there is too little address space for what the command will load.
        """
        from keyscale.engine.machine import check_address_space

        rest: list[str] = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            check_address_space()
            _configure(ctx)
        return rest


class RunCommand(ConfiguredCommand):
    """One that tells its progress in events: with `--progress json` a wrong setting is the last of them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of `ConfiguredCommand`."""
        from keyscale.engine.errors import KeyscaleError

        # The parser takes what it is given.
        asked = " ".join(args[: args.index("--")] if "--" in args else args)
        try:
            return super().parse_args(ctx, args)
        except (KeyscaleError, COMMAND_LINE_ERROR) as error:
            if ctx.params.get("progress") == "json" or re.search(r"(^| )--progress[ =]json( |$)", asked):
                from keyscale.cli.progress import renderer
                from keyscale.engine.events import failure

                told = error if isinstance(error, KeyscaleError) else _as_usage_error(error, ctx.command_path)
                with renderer("json") as view:
                    view.handle(failure(told))
            raise


def settings_of(ctx: Any) -> Mapping[str, Setting]:
    """What holds in a configured command's run and where it came from, by the flag's name without dashes."""
    found: Mapping[str, Setting] = ctx.meta.get(_KEY, {})
    return found


def flags_of(ctx: Any) -> dict[str, Flag]:
    """All flags of the program's configured commands that may be set, by name without dashes."""
    from keyscale.engine.settings import Known

    root = ctx.find_root().command
    commands = getattr(root, "commands", {ctx.command.name: ctx.command})
    configured = {name: each for name, each in commands.items() if isinstance(each, ConfiguredCommand)}
    flags: dict[str, Flag] = {}
    # What upscale has stands at the top of a file, also where batch has it too.
    for command, each in sorted(configured.items(), key=lambda item: item[0] == BATCH):
        for param in each.params:
            name = flag_name(param)
            if name is None or name in REFUSED or name in flags:
                continue
            variable = _PREFIX + name.upper().replace("-", "_")
            known = Known(
                name=name,
                kind=_kind(param, name),
                choices=_choices(param),
                batch=command == BATCH,
                variables=(variable, remote_opt.ENABLED) if name == "remote" else (variable,),
                opposites=tuple(text.lstrip("-") for text in param.secondary_opts),
                keep_out_of_found=_WRITES if name == "report" else None,
            )
            flags[name] = Flag(known, param)
    return flags


def flag_name(param: Any) -> str | None:
    """The longest name of an option without its dashes; None for an argument."""
    return None if param.param_type_name == "argument" else max(param.opts, key=len).lstrip("-")


def _kind(param: Any, name: str) -> Kind:
    from keyscale.engine.settings import Kind

    if param.is_flag:
        return Kind.YES_NO
    if name in {"keyframes-dir", "report"}:
        return Kind.PATH
    if name == "model":
        return Kind.MODEL
    told = str(param.type.name)
    if told.startswith("int"):
        return Kind.WHOLE
    if told.startswith("float"):
        return Kind.NUMBER
    return Kind.CHOICE if told == "choice" else Kind.TEXT


def _choices(param: Any) -> tuple[str, ...]:
    return tuple(str(getattr(choice, "value", choice)) for choice in getattr(param.type, "choices", ()))


def resolve(
    flags: Mapping[str, Flag],
    *,
    config: str | None,
    inputs: Iterable[str | Path],
    environment: Mapping[str, str],
) -> Resolved:
    """What files and `environment` say of `flags`.

    Args:
        flags: what may be set.
        config: the preset that was named; None looks beside the inputs.
        inputs: videos, folders, manifests and patterns.
        environment: as of `os.environ`.

    Raises:
        UsageError: a file is wrong, or it was named and is not there.
    """
    from pathlib import Path

    from keyscale.engine.batch.inputs import folder_of
    from keyscale.engine.errors import UsageError
    from keyscale.engine.settings import Layer, find_preset, from_environment, read_settings, user_config

    known = [flag.known for flag in flags.values()]
    values: dict[str, Given] = {}
    user = user_config()
    if os.path.lexists(user):
        values |= read_settings(user, Layer.USER, known, REFUSED)
    if config is not None and not config.strip():
        raise UsageError("--config is empty", remedy="Name a settings file, or leave --config out.")
    preset = Path(config) if config is not None else find_preset(folder_of(path) for path in inputs)
    if preset is not None:
        values |= read_settings(preset, Layer.PRESET, known, REFUSED, found=config is None)
    for name, given in values.items():
        cast(flags[name], given)
    return Resolved(values | from_environment(known, environment), user, preset)


def cast(flag: Flag, given: Given) -> Any:
    """The value as the command line would have made it, checked.

    Raises:
        UsageError: it is wrong; the message names file or variable.
    """
    from keyscale.engine.errors import UsageError

    if given.origin.where == remote_opt.ENABLED:
        return remote_opt.is_remote(None, {remote_opt.ENABLED: str(given.value)})
    where = given.origin.where
    if not where.startswith(_PREFIX):
        where = f"{where}: {flag.name}"
    try:
        value = cast_text(flag.param, given.value)
        check(flag.param.name, value)
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", remedy=error.remedy) from error
    return value


def cast_text(param: Any, value: Any) -> Any:
    """What the command line would make of `value`; the message of an error does not say whose it is.

    Raises:
        UsageError: the parameter's type does not take it.
    """
    from keyscale.engine.errors import UsageError

    nowhere: Any = TyperCommand("keyscale")
    with typer.Context(nowhere) as ctx:
        try:
            return param.process_value(ctx, value)
        except typer.BadParameter as error:
            message = in_plain_words(error.message).rstrip(".")
            # A boolean's message lists its words, an empty one among them.
            message, _, words = message.partition(". Recognized values")
            raise UsageError(message, remedy="Give true or false." if words else None) from error


def _as_usage_error(error: Any, command: str) -> KeyscaleError:
    from keyscale.engine.errors import UsageError

    message = in_plain_words(error.format_message().strip())
    return UsageError(message, remedy=f"'{command} --help' shows what it takes.")


def in_plain_words(message: str) -> str:
    """What a parameter's type says of a wrong value, without the names of types."""
    message = re.sub(r"is not a valid (integer|int)( range)?\b", "is not a whole number", message)
    message = re.sub(r"is not a valid float( range)?\b", "is not a number", message)
    return message.replace("is not a valid boolean", "is neither true nor false")


def check(name: str, value: Any) -> None:
    """Raise a `UsageError` where a value of the parameter `name` would be refused in any job."""
    if isinstance(value, bool | None):
        return
    if name in {"remote_containers", "max_cost"}:
        given = {name.removeprefix("remote_"): value}
        remote_opt.build_remote_options(
            **{"containers": None, "max_cost": None, "fallback": remote_opt.FallbackChoice.NONE} | given
        )
    annotation = inspect.signature(opt.build_job).parameters.get(name)
    # Choices were checked by their type.
    if annotation is not None and "Choice" not in str(annotation.annotation):
        opt.build_job(**{"video": "video"} | {name: value})


def _configure(ctx: Any) -> None:
    from keyscale.engine.settings import Layer, Origin, Setting

    flags = flags_of(ctx)
    inputs = ctx.params.get("inputs") or [ctx.params.get("video")]
    resolved = resolve(
        flags,
        config=ctx.params.get("config"),
        inputs=[path for path in inputs if path is not None],
        environment=os.environ,
    )
    settings: dict[str, Setting] = {}
    for param in ctx.command.params:
        name = flag_name(param)
        if name is None or name not in flags:
            continue
        flag, source = flags[name], ctx.get_parameter_source(param.name)
        origin = Origin(Layer.COMMAND_LINE)
        # By name, since the class belongs to the Click that this Typer uses.
        if source.name == "DEFAULT":
            origin = Origin(Layer.BUILT_IN)
            if given := resolved.values.get(name):
                origin = given.origin
                ctx.params[param.name] = cast(Flag(flag.known, param), given)
                in_environment = origin.layer is Layer.ENVIRONMENT
                ctx.set_parameter_source(param.name, type(source)["ENVIRONMENT" if in_environment else "DEFAULT_MAP"])
        settings[name] = Setting(flag.name, ctx.params[param.name], origin)
    ctx.meta[_KEY] = settings


def ignored_variables(flags: Mapping[str, Flag], environment: Mapping[str, str]) -> Sequence[str]:
    """Variables that are named like settings and mean nothing."""
    meant = OTHER_VARIABLES | {variable for flag in flags.values() for variable in flag.known.variables}
    return sorted(name for name in environment if name.startswith(_PREFIX) and name not in meant)
