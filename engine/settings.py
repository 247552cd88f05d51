"""Defaults from files and the environment: what may stand there, what it comes to, and where each value is from.

Layers, each over the one before: built-in, the user's file, a preset, the environment, the command line. What may stand
there is every option that does not say that it cannot.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any

import platformdirs

from keyscale.engine.errors import UsageError
from keyscale.engine.forms import ValueKind
from keyscale.engine.job import CHECKPOINT_SUFFIXES
from keyscale.engine.options import Document, Option
from keyscale.engine.wording import Named, as_flag, say

__all__ = [
    "CONFIG_DIR_VARIABLE",
    "MAX_BYTES",
    "PRESET_NAME",
    "Given",
    "Known",
    "Layer",
    "Origin",
    "Setting",
    "find_preset",
    "from_environment",
    "model_beside",
    "places_of",
    "read_given",
    "read_settings",
    "user_config",
]

CONFIG_DIR_VARIABLE = "KEYSCALE_CONFIG_DIR"
PRESET_NAME = "keyscale.toml"

MAX_BYTES = 2**20
"""Largest settings file in bytes."""

LARGEST = 10**18
"""Largest magnitude of a whole number; TOML sets no bound, and larger ones cannot even be printed quickly."""

BATCH_TABLE = "batch"
_PREFIX = "KEYSCALE_"

_SHOWN = 60


class Layer(Enum):
    """Where a value can come from; a later one wins."""

    BUILT_IN = "built-in"
    USER = "user config"
    PRESET = "preset"
    ENVIRONMENT = "environment"
    COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Origin:
    """Where a value comes from."""

    layer: Layer
    where: str = ""
    """The file's path or the variable's name; empty for the built-in ones and the command line."""

    def __str__(self) -> str:
        return self.where or self.layer.value


@dataclass(frozen=True)
class Given:
    """A value as it was found, and where."""

    value: Document
    origin: Origin


@dataclass(frozen=True)
class Setting:
    """What holds, and why."""

    name: str
    """The flag without the dashes before it; settings of the table [batch] begin with `batch.`."""
    value: Any
    """As a file would hold it; None is a default that depends on the job."""
    origin: Origin


@dataclass(frozen=True)
class Known:
    """An option that may be set, and in which table of a file."""

    option: Option
    batch: bool = False
    """It stands in the table [batch]."""

    @property
    def name(self) -> str:
        """As messages and tables call it: `size`, `batch.jobs`."""
        return f"{BATCH_TABLE}.{self.option.key}" if self.batch else self.option.key

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables that hold it; the first that is set and not empty counts."""
        return _PREFIX + self.option.key.upper().replace("-", "_"), *self.option.variables


def places_of(options: Iterable[Option], of_a_batch: Iterable[Option]) -> tuple[dict[str, Known], dict[str, str]]:
    """What may be set, by option, and what may not, by its key, with the reason.

    Args:
        options: of all commands; they stand at the top of a file.
        of_a_batch: of `keyscale batch` alone; they stand in a table of their own.
    """
    known: dict[str, Known] = {}
    refused = {"inputs": "they are named on the command line"}
    for batch, several in ((False, options), (True, of_a_batch)):
        for each in several:
            if each.no_setting:
                refused.setdefault(each.key, each.no_setting)
            else:
                known.setdefault(each.name, Known(each, batch))
    return known, refused


def user_config() -> Path:
    """The user's own file; it need not be there. `KEYSCALE_CONFIG_DIR` names another folder for it."""
    chosen = os.environ.get(CONFIG_DIR_VARIABLE)
    folder = Path(chosen).expanduser() if chosen else platformdirs.user_config_path("keyscale")
    return folder / "config.toml"


def find_preset(folders: Iterable[Path]) -> Path | None:
    """The `keyscale.toml` in `folders`; None where none has one.

    Raises:
        UsageError: two folders hold different ones, or one holds one and another none.
    """
    found: list[Path] = []
    without: list[Path] = []
    for folder in folders:
        path = folder / PRESET_NAME
        if not os.path.lexists(path):
            without.append(folder)
        elif not any(_same(path, other) for other in found):
            found.append(path)
    remedy = say("Say which one holds with {config}, or run them one after the other.")
    if len(found) > 1:
        raise UsageError(f"the inputs lie beside different presets: {found[0]} and {found[1]}", remedy=remedy)
    if found and without:
        raise UsageError(f"the preset {found[0]} lies beside one input, and {without[0]} has none", remedy=remedy)
    return found[0] if found else None


def read_settings(
    path: Path, layer: Layer, known: Sequence[Known], refused: Mapping[str, str], *, found: bool = False
) -> dict[str, Given]:
    """The values of a settings file by option, paths made absolute from its folder.

    Args:
        path: the file, TOML; the null device is an empty one.
        layer: which one it is.
        known: what may stand in it.
        refused: flags that may not, and why.
        found: nobody named the file: it lay beside the inputs.

    Raises:
        UsageError: it cannot be read, is too large or not TOML, or a key or a value's type is wrong; the message names
            file and key.
    """
    given: dict[str, Given] = {}
    by_place = {(each.batch, each.option.key): each for each in known}
    document = _document(path)
    tables = [(False, {name: value for name, value in document.items() if name != BATCH_TABLE})]
    if BATCH_TABLE in document:
        if not isinstance(document[BATCH_TABLE], dict):
            raise UsageError(f"{path}: {BATCH_TABLE} is not a table", remedy=f"Write [{BATCH_TABLE}] on a line.")
        tables.append((True, document[BATCH_TABLE]))
    for batch, table in tables:
        for written, value in table.items():
            name = written.replace("_", "-")
            key = f"{BATCH_TABLE}.{written}" if batch else written
            setting = by_place.get((batch, name))
            if setting is None:
                raise _unknown(f"{path}: {key}", name, batch, known, refused)
            option = setting.option
            if option.name in given:
                raise UsageError(f"{path}: {key} is there twice, with - and with _", remedy="Keep one of them.")
            if found and option.not_beside_inputs:
                raise UsageError(
                    f"{path}: {key} may not stand in a preset that is found beside the inputs: "
                    f"{option.not_beside_inputs}",
                    remedy=say("Give {} on the command line, or name the preset with {config}.", Named(option.name)),
                )
            given[option.name] = Given(_checked(option, value, f"{path}: {key}", path.parent), Origin(layer, str(path)))
    return given


def from_environment(known: Iterable[Known], environment: Mapping[str, str]) -> dict[str, Given]:
    """The values of the environment by option; an empty variable is one that is not set."""
    given: dict[str, Given] = {}
    for setting in known:
        for variable in setting.variables:
            if text := environment.get(variable, "").strip():
                given[setting.option.name] = Given(text, Origin(Layer.ENVIRONMENT, variable))
                break
    return given


def read_given(known: Known, given: Given) -> Any:
    """The value that a file or a variable holds.

    Raises:
        UsageError: it is wrong; the message names the file and its key, or the variable.
    """
    option, where = known.option, given.origin.where
    in_file = given.origin.layer is not Layer.ENVIRONMENT
    here = known.name if in_file else where

    def as_here(named: Named) -> str:
        return as_flag(named) if named.name != option.name else here if named.value is None else f"{here} {named.value}"

    try:
        return option.read(given.value)
    except UsageError as error:
        names_it = error.option == option.name
        error.word(as_here)
        place = [where] if in_file else []
        error.message = ": ".join([*place, *([] if names_it else [here]), error.message])
        error.args, error.option = (error.message,), option.name
        raise


def model_beside(value: str, folder: Path) -> str:
    """A model as a file in `folder` gives it: a path is one from there, a registry's name stays."""
    path = Path(value).expanduser()
    if path.suffix.lower() in CHECKPOINT_SUFFIXES or len(path.parts) > 1:
        return str(folder / path)
    return value


def _same(path: Path, other: Path) -> bool:
    try:
        return path.absolute() == other.absolute() or path.samefile(other)
    except OSError:
        return False


def _document(path: Path) -> dict[str, Any]:
    try:
        mode = path.stat().st_mode
        # A pipe would be waited for, and some devices never end.
        if not (stat.S_ISREG(mode) or path.samefile(os.devnull)):
            raise UsageError(f"{path} is no file", remedy="Name a settings file in TOML.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read the settings file {path}: {getattr(error, 'strerror', None) or error}",
            remedy="Check the path and its rights.",
        ) from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"the settings file {path} is larger than {MAX_BYTES // 2**20} MiB")
    try:
        return tomllib.loads(data.removeprefix(b"\xef\xbb\xbf").decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8 text", remedy="Save the file as UTF-8.") from error
    except RecursionError as error:
        raise UsageError(f"{path}: values are nested too deeply", remedy="A setting is a single value.") from error
    except ValueError as error:
        raise UsageError(
            f"{path}: not TOML: {error}", remedy="Text stands in quotation marks: size = '1080x1920'."
        ) from error


def _unknown(what: str, name: str, batch: bool, known: Sequence[Known], refused: Mapping[str, str]) -> UsageError:
    if name in refused:
        return UsageError(f"{what} cannot be a setting: {refused[name]}", remedy=f"Remove {name} from the file.")
    here = [each for each in known if each.batch is batch]
    if any(each.option.key == name for each in known):
        where = "before the first table, at the top" if batch else f"beneath [{BATCH_TABLE}]"
        return UsageError(f"{what} does not belong here", remedy=f"Write it {where}.")
    for each in here:
        if name == each.option.contrary:
            return UsageError(f"{what} is not a setting", remedy=f"Write {each.option.key} = false.")
    near = get_close_matches(name, [each.option.key for each in here], n=1, cutoff=0.6)
    listed = f"Known: {', '.join(sorted(each.option.key for each in here))}."
    return UsageError(f"{what} is not a setting", remedy=f"Did you mean {near[0]}?" if near else listed)


def _checked(option: Option, value: Any, what: str, folder: Path) -> Document:
    """The value, of the type that the option has; numbers may stand for text (`fps = 30`)."""
    kind = option.form.kind
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and isinstance(value, int) and abs(value) > LARGEST:
        raise UsageError(f"{what} is out of range", remedy="No setting needs a number that large.")
    if kind is ValueKind.YES_NO:
        fits = isinstance(value, bool)
    elif kind is ValueKind.WHOLE:
        fits = number and isinstance(value, int)
    elif kind is ValueKind.NUMBER:
        fits = number
    else:
        fits = isinstance(value, str) or (number and kind is ValueKind.TEXT)
    if not fits:
        must = f"one of {', '.join(option.choices)}" if kind is ValueKind.CHOICE else kind.value
        quoted = isinstance(value, str) and kind not in {ValueKind.CHOICE, ValueKind.PATH}
        remedy = "Write it without quotation marks." if quoted else None
        raise UsageError(f"{what} is {_shown(value)}, it must be {must}", remedy=remedy)
    if not isinstance(value, str):
        return str(value) if kind is ValueKind.TEXT else value
    if "\0" in value or not value.strip():
        raise UsageError(f"{what} is {_shown(value)}", remedy="Give a value, or remove the line.")
    if kind is ValueKind.PATH:
        return str(folder.absolute() / Path(value).expanduser())
    return model_beside(value, folder.absolute()) if kind is ValueKind.MODEL else value


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")
        case dict():
            return "a table"
        case list():
            return "a list"
        case int() | float():
            return str(value)[:_SHOWN]
        case _:
            return "a date or a time"
