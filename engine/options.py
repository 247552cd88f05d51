"""What there is to know of an option, declared with the field that holds it, and read by every surface.

A data class whose fields are made by `option()` is a set of options: `engine.job.Job` with its parts is that of a job.
The flags of the command line, the keys of settings files, `KEYSCALE_*` variables, the columns of manifests, the
arguments of the Python API and the tables of the documentation are all made of `options_of(...)`. A new option is one
field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from keyscale.engine.errors import UsageError
from keyscale.engine.forms import Choice, Form, Number, Refused, Switch, Text, Whole, short

__all__ = ["PANELS", "Document", "Option", "build", "check_fields", "in_panels", "option", "options_of", "value_of"]

PANELS = ("Input", "Framing", "Output", "Model", "Running")
"""The headings beneath which help and documentation list options, in their order."""

T = TypeVar("T")

Document = str | bool | int | float
"""A value as a settings file or a manifest holds it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Option:
    """An option of a data class. Everything has a default but its help and its heading."""

    help: str
    """A sentence or two; other options in it are written `{size}`, as of `engine.wording.say`."""
    panel: str
    """Its heading, one of `PANELS`; empty for arguments without a flag."""
    name: str = ""
    """As of the Python API: `bit_depth`."""
    fields: tuple[str, ...] = ()
    """The field that holds it, `encoding.crf`; more than one for a value of several parts."""
    form: Form = field(default_factory=Text)
    default: Any = None
    required: bool = False
    docs: str = ""
    """What the documentation says instead of `help`, in Markdown, without a full stop."""
    python: str = ""
    """What the Python API says instead of `help`, where that isn't true of its values."""
    default_docs: str = ""
    """What the documentation says of the default, where the value does not tell it."""
    metavar: str = ""
    short: str = ""
    """A flag of one letter, without its dash."""
    flag: str = ""
    """The flag without its dashes, where it isn't the name with `-` for `_`."""
    opposite: str | None = None
    """The flag without dashes that says a switch's contrary; empty where there is none."""
    between: tuple[float, float] | None = None
    """The smallest and the largest value."""
    remedy: str | None = None
    """What to do where a value is wrong, where it isn't clear from the bounds."""
    together: tuple[str, ...] = ()
    """Fields beside the declaring one that hold the rest of the same value; one that is None stands for none of it."""
    per_clip: bool = True
    """Whether a manifest may give it for one clip."""
    no_setting: str = ""
    """Why it can stand neither in a settings file nor in a variable; empty where it can."""
    not_beside_inputs: str = ""
    """Why a preset that was found beside the inputs may not hold it; empty where it may."""
    variables: tuple[str, ...] = ()
    """Further environment variables that hold it."""

    @property
    def key(self) -> str:
        """The flag's name without dashes, which is its key in files and its column in manifests: `no-audio`."""
        return self.flag or self.name.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Whether it is yes or no."""
        return isinstance(self.form, Switch)

    @property
    def is_negated(self) -> bool:
        """Whether the key says the contrary of the name, as `no-audio` of `audio`."""
        return self.is_switch and self.key == f"no-{self.name}"

    @property
    def contrary(self) -> str:
        """The flag without dashes that switches it the other way than its key; empty where there is none."""
        if not self.is_switch:
            return ""
        if self.opposite is not None:
            return self.opposite
        return self.name if self.is_negated else f"no-{self.key}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it can be."""
        return self.form.words if isinstance(self.form, Choice) else ()

    @property
    def is_optional(self) -> bool:
        """Whether a program may give None, for what depends on the job."""
        return self.default is None and not self.required and self.form.none is None

    def read(self, given: Document) -> Any:
        """The value that a text, or what a settings file or a manifest holds, stands for, checked.

        Raises:
            UsageError: it is wrong; the message begins with the option.
        """
        if isinstance(given, bool):
            if not self.is_switch:
                raise UsageError(f"must be text or a number, not {given!r}", option=self.name)
            return given is not self.is_negated
        if self.is_switch and not isinstance(given, str):
            raise UsageError(f"must be true or false, not {given!r}", option=self.name)
        # Numbers that JSON writes as 30.0 are whole ones all the same.
        whole = isinstance(given, float) and given.is_integer()
        try:
            value = self.form.read(str(int(given) if whole else given))
        except Refused as error:
            raise self._wrong(error) from error
        self.check(value)
        return value is not self.is_negated if self.is_switch else value

    def take(self, given: object) -> Any:
        """The value that a program gives as an argument, checked.

        Raises:
            UsageError: it is wrong; the message begins with the option.
        """
        if given is None and self.is_optional:
            return None
        try:
            value = self.form.take(given)
        except Refused as error:
            raise self._wrong(error) from error
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raise a `UsageError` where no job can have this value."""
        if value is None:
            return
        if self.between is not None and not self.between[0] <= value <= self.between[1]:
            remedy = self.remedy or f"Give {self.between[0]:g} to {self.between[1]:g}."
            raise UsageError(f"{short(value)} is out of range", option=self.name, remedy=remedy)
        try:
            self.form.check(value)
        except Refused as error:
            raise self._wrong(error) from error

    def written(self, value: Any) -> Any:
        """The value as a settings file would hold it beneath the option's key; None where that is left to the job."""
        if self.is_negated:
            return not value
        return None if value is None and self.form.none is None else self.form.written(value)

    def given_as(self, value: Any) -> Any:
        """The value as a program would give it."""
        return self.form.given_as(value)

    def _wrong(self, error: Refused) -> UsageError:
        return UsageError(error.why, option=self.name, remedy=error.remedy or self.remedy)


def option(default: Any, help: str, panel: str, **more: Any) -> Any:  # noqa: A002 - the word of every command line
    """A field that is an option; `dataclasses.MISSING` as its default means that there is none.

    Args:
        default: the field's default.
        help: as of `Option`.
        panel: as of `Option`.
        more: anything else that `Option` knows.
    """
    return field(default=default, metadata={"option": more | {"help": help, "panel": panel}})


def options_of(*kinds: type) -> dict[str, Option]:
    """The options of data classes and of their parts, by name, as `in_panels` sorts them."""
    return {each.name: each for each in _declared(kinds)}


@cache
def _declared(kinds: tuple[type, ...]) -> list[Option]:
    return in_panels(each for kind in kinds for each in _walk(kind, ""))


def in_panels(options: Iterable[Option]) -> list[Option]:
    """Arguments first, then by heading, each in the order of declaration."""
    order = ("", *PANELS)
    return sorted(options, key=lambda each: order.index(each.panel))


def _walk(kind: type, prefix: str) -> Iterable[Option]:
    hints = get_type_hints(kind)
    defaults = {each.name: None if each.default is MISSING else each.default for each in fields(kind)}
    for each in fields(kind):
        if declared := each.metadata.get("option"):
            names = (each.name, *declared.get("together", ()))
            values = [value for value in (defaults[name] for name in names) if len(names) == 1 or value is not None]
            yield Option(
                **{"name": each.name, "form": _form(hints[each.name])} | declared,
                fields=tuple(prefix + name for name in names),
                default=tuple(values) if len(values) > 1 else values[0],
            )
        elif is_dataclass(hints[each.name]):
            yield from _walk(hints[each.name], f"{prefix}{each.name}.")


def build(kind: type[T], values: Mapping[str, Any], **more: Any) -> T:
    """The data class with these values of its options, its parts included.

    Args:
        kind: the data class.
        values: by option; those that it lacks are as declared, those of other data classes are passed over.
        more: fields that are no options.
    """
    options = options_of(kind)
    given: dict[str, Any] = {}
    for name in options.keys() & values.keys():
        held = options[name].fields
        given |= dict(zip(held, values[name] if len(held) > 1 else (values[name],), strict=False))
    return _assemble(kind, given, "", more)


def _assemble(kind: type[T], given: Mapping[str, Any], prefix: str, more: Mapping[str, Any]) -> T:
    held: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if prefix + name in given:
            held[name] = given[prefix + name]
        elif any(path.startswith(f"{prefix}{name}.") for path in given):
            held[name] = _assemble(hint, given, f"{prefix}{name}.", {})
    return kind(**held, **more)


def check_fields(holder: Any) -> None:
    """Raise a `UsageError` where a value of this data class is wrong in any job; its parts check themselves.

    Texts aren't looked at: what is wrong with a name is better told by what opens it, if nobody has told it before.
    """
    for each in options_of(type(holder)).values():
        if "." not in each.fields[0] and not isinstance(each.form, Text):
            each.check(value_of(holder, each))


def value_of(holder: Any, each: Option) -> Any:
    """The value of an option in a data class or its parts."""
    values = []
    for path in each.fields:
        value = holder
        for name in path.split("."):
            value = getattr(value, name)
        if value is not None or len(each.fields) == 1:
            values.append(value)
    return tuple(values) if len(values) > 1 else values[0]


def _form(hint: Any) -> Form:
    """The form of a field's type."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] if NoneType in get_args(hint) else [hint]
    if get_origin(kinds[0]) is Literal:
        return Whole(get_args(kinds[0]))
    if issubclass(kinds[0], StrEnum):
        return Choice(kinds[0])
    plain: dict[Any, type[Form]] = {bool: Switch, int: Whole, float: Number}
    return plain.get(kinds[0], Text)()
