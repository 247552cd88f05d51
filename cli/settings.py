"""Flags that were not given take what settings files and the environment say; `engine.settings` has the layers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from keyscale.cli.options import GroupedCommand, batch_options, parameter, plan_options
from keyscale.cli.terminal import COMMAND_LINE_ERROR
from keyscale.engine.errors import KeyscaleError, UsageError
from keyscale.engine.options import Option
from keyscale.engine.run_options import MODAL_ENABLED
from keyscale.engine.wording import say

if TYPE_CHECKING:
    from keyscale.engine.settings import Given, Known, Setting

__all__ = [
    "OTHER_VARIABLES",
    "ConfiguredCommand",
    "Resolved",
    "RunCommand",
    "ignored_variables",
    "is_remote",
    "known_settings",
    "read_setting",
    "resolve",
    "settings_of",
]

_KEY = "keyscale.settings"
_PREFIX = "KEYSCALE_"
_YES, _NO = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off", ""})

_OTHERS = (
    "CACHE_DIR CONFIG CONFIG_DIR CONTAINERS DONE_CODE DONE_MESSAGE DONE_OUTPUT GPU STATE_DIR TIMEOUT WEIGHTS_DIR "
    "WEIGHTS_URL"
)
OTHER_VARIABLES = frozenset(_PREFIX + name for name in _OTHERS.split())
"""Variables of the program that are no settings of a flag."""


@dataclass(frozen=True)
class Resolved:
    """What files and the environment say, checked."""

    values: Mapping[str, Given]
    """By option; the highest layer that has it."""
    user: Path
    """The user's file, there or not."""
    preset: Path | None


class ConfiguredCommand(GroupedCommand):
    """A command whose flags are declared options, which take settings where they are not given.

    Its argument `video` or `inputs` says where a preset may lie, its option `config` names one. What it is called with
    is the value of every option, by name.
    """

    def __init__(
        self,
        name: str,
        run: Callable[..., object],
        options: Mapping[str, Option],
        *,
        arguments: Sequence[Any] = (),
        epilog: str | None = None,
    ) -> None:
        """`run` does it, and its docstring is the help; `arguments` stand before the options and are none."""
        parameters = [*arguments, *map(parameter, options.values())]
        super().__init__(name, callback=run, params=parameters, help=run.__doc__, epilog=epilog, rich_markup_mode=None)
        self.options = options

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, then apply the settings; `settings_of` tells the result.

        Raises:
            UsageError: a flag, a settings file or a variable is wrong.
            EnvironmentFault: there is too little address space for what the command will load.
        """
        from keyscale.cli.mistakes import check_values
        from keyscale.engine.machine import check_address_space

        if not ctx.resilient_parsing:
            check_values(args, self.params)
        rest: list[str] = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            check_address_space()
            self._configure(ctx)
        return rest

    def _configure(self, ctx: Any) -> None:
        from keyscale.engine.settings import Layer, Origin, Setting

        known, _ = known_settings(self.options.values())
        # By name, since the class of the source belongs to the Click that this Typer uses.
        given = {name: ctx.params[name] for name in self.options if ctx.get_parameter_source(name).name != "DEFAULT"}
        inputs = ctx.params.get("inputs") or [ctx.params.get("video")]
        resolved = resolve(
            config=given.get("config"),
            inputs=[path for path in inputs if path is not None],
            environment=os.environ,
            options=self.options.values(),
        )
        settings: dict[str, Setting] = {}
        # Progress first: whatever is wrong with another option is told in its form.
        for name, each in sorted(self.options.items(), key=lambda item: item[0] != "progress"):
            origin = Origin(Layer.COMMAND_LINE)
            if name in given:
                value = _read_flag(each, given[name], ctx)
            elif name in resolved.values and name in known:
                value, origin = read_setting(known[name], resolved.values[name]), resolved.values[name].origin
            else:
                value, origin = each.default, Origin(Layer.BUILT_IN)
            ctx.params[name] = value
            if name in known:
                settings[each.key] = Setting(known[name].name, each.written(value), origin)
        if "remote" in self.options:
            from keyscale.engine.request import check_remote_options

            check_remote_options(given, remote=ctx.params["remote"])
        ctx.meta[_KEY] = settings


class RunCommand(ConfiguredCommand):
    """One that tells its progress in events: with `--progress json` a wrong setting is the last of them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of `ConfiguredCommand`."""
        # The parser takes what it is given.
        given = list(args)
        asked = " ".join(args[: args.index("--")] if "--" in args else args)
        try:
            return super().parse_args(ctx, args)
        except (KeyscaleError, COMMAND_LINE_ERROR) as error:
            if str(ctx.params.get("progress")).lower() == "json" or re.search(r"(^| )--progress[ =]json( |$)", asked):
                from keyscale.cli.progress import renderer
                from keyscale.engine.events import failure

                told = error
                if not isinstance(error, KeyscaleError):
                    from keyscale.cli.mistakes import remedy_for

                    told = UsageError(cast(Any, error).format_message().strip(), remedy=remedy_for(error, given))
                with renderer("json") as view:
                    view.handle(failure(told))
            raise


def settings_of(ctx: Any) -> Mapping[str, Setting]:
    """What holds in a configured command's run and where it came from, by the flag's name without dashes."""
    found: Mapping[str, Setting] = ctx.meta.get(_KEY, {})
    return found


def known_settings(options: Iterable[Option] = ()) -> tuple[dict[str, Known], dict[str, str]]:
    """What may be set, by option, and what may not, by its key, with the reason.

    A file is right or wrong as a whole, whichever command reads it: those of all commands are known, and `options` too,
    where a command has others.
    """
    from keyscale.engine.settings import places_of

    of_batches = batch_options().values()
    others = [each for each in options if each not in of_batches]
    return places_of([*plan_options().values(), *others], of_batches)


def resolve(
    *,
    config: str | None,
    inputs: Iterable[str | Path],
    environment: Mapping[str, str],
    options: Iterable[Option] = (),
) -> Resolved:
    """What files and `environment` say.

    Args:
        config: the preset that was named; None looks beside the inputs.
        inputs: videos, folders, manifests and patterns.
        environment: as of `os.environ`.
        options: what may be set beside the options of all commands.

    Raises:
        UsageError: a file is wrong, or it was named and is not there.
    """
    from keyscale.engine.batch.inputs import folder_of
    from keyscale.engine.settings import Layer, find_preset, from_environment, read_settings, user_config

    by_option, refused = known_settings(options)
    known = list(by_option.values())
    values: dict[str, Given] = {}
    user = user_config()
    if os.path.lexists(user):
        values |= read_settings(user, Layer.USER, known, refused)
    if config is not None and not config.strip():
        raise UsageError("is empty", option="config", remedy=say("Name a settings file, or leave {config} out."))
    preset = Path(config) if config is not None else find_preset(folder_of(path) for path in inputs)
    if preset is not None:
        values |= read_settings(preset, Layer.PRESET, known, refused, found=config is None)
    for name, given in values.items():
        read_setting(by_option[name], given)
    return Resolved(values | from_environment(known, environment), user, preset)


def read_setting(known: Known, given: Given) -> Any:
    """The value that a file or a variable holds.

    Raises:
        UsageError: it is wrong; the message names file or variable.
    """
    from keyscale.engine.settings import read_given

    if given.origin.where == MODAL_ENABLED:
        return is_remote(str(given.value))
    return read_given(known, given)


def is_remote(text: str) -> bool:
    """What `MODAL_ENABLED` says.

    Raises:
        UsageError: it is neither yes nor no.
    """
    word = text.strip().lower()
    if word not in _YES | _NO:
        raise UsageError(
            f"{MODAL_ENABLED}={text!r} is neither yes nor no",
            remedy=say("Set {} to true or false, or give {remote=True} or {remote=False}.", MODAL_ENABLED),
        )
    return word in _YES


def ignored_variables(environment: Mapping[str, str]) -> Sequence[str]:
    """Variables that are named like settings and mean nothing."""
    known, _ = known_settings()
    meant = OTHER_VARIABLES | {variable for each in known.values() for variable in each.variables}
    return sorted(name for name in environment if name.startswith(_PREFIX) and name not in meant)


def _read_flag(each: Option, given: Any, ctx: Any) -> Any:
    """What a flag means; a number is how often it was given, several texts are the same as one with commas."""
    given = ",".join(given) if isinstance(given, tuple | list) else given
    if not isinstance(given, bool | str):
        return given
    try:
        return each.read(given)
    except UsageError as error:
        error.remedy = error.remedy or f"'{ctx.command_path} --help' lists what it takes."
        raise
