"""Flags of where a job runs, and what they and `MODAL_ENABLED` come to."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from keyscale.engine.job import RemoteOptions

__all__ = [
    "ContainersOption",
    "FallbackChoice",
    "FallbackOption",
    "MaxCostOption",
    "RemoteOption",
    "build_remote_options",
    "is_remote",
    "split_output",
]

_RUNNING = "Running"
ENABLED = "MODAL_ENABLED"
_YES, _NO = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off", ""})


class FallbackChoice(StrEnum):
    """What becomes of chunks that cannot be made remotely."""

    NONE = "none"
    LOCAL = "local"


RemoteOption = Annotated[
    bool | None,
    typer.Option(
        "--remote/--local",
        help="Run on Modal GPUs, staged through object storage, or on this machine. "
        f"Without either {ENABLED} decides, else this machine.",
        show_default=False,
        rich_help_panel=_RUNNING,
    ),
]
ContainersOption = Annotated[
    int | None,
    typer.Option(
        "--remote-containers",
        metavar="N",
        help="With --remote: containers at once at most. Without it what the deployment allows.",
        show_default=False,
        rich_help_panel=_RUNNING,
    ),
]
FallbackOption = Annotated[
    FallbackChoice,
    typer.Option(
        "--remote-fallback",
        case_sensitive=False,
        help="With --remote: make here what cannot be made there, or fail.",
        rich_help_panel=_RUNNING,
    ),
]
MaxCostOption = Annotated[
    float | None,
    typer.Option(
        "--max-cost",
        metavar="DOLLARS",
        help="With --remote: begin nothing that is estimated to cost more.",
        show_default=False,
        rich_help_panel=_RUNNING,
    ),
]


def is_remote(flag: bool | None, environment: Mapping[str, str]) -> bool:
    """Where a job runs: the flag wins over `MODAL_ENABLED`.

    Raises:
        UsageError: the variable holds neither yes nor no, and no flag was given.
    """
    if flag is not None:
        return flag
    text = environment.get(ENABLED, "").strip().lower()
    if text in _YES:
        return True
    if text in _NO:
        return False
    from keyscale.engine.errors import UsageError

    raise UsageError(
        f"{ENABLED}={environment[ENABLED]!r} is neither yes nor no",
        remedy=f"Set {ENABLED} to true or false, or give --remote or --local.",
    )


def build_remote_options(*, containers: int | None, fallback: FallbackChoice, max_cost: float | None) -> RemoteOptions:
    """The flags as `RemoteOptions`.

    Raises:
        UsageError: a value is out of range.
    """
    from keyscale.engine.job import remote_options

    return remote_options(containers=containers, fallback_local=fallback is FallbackChoice.LOCAL, max_cost=max_cost)


def split_output(output: str | None, video: str | None = None) -> tuple[str | None, str | None]:
    """`--output` as a local name and an address in storage, as `engine.storage.settings.split_output` has them."""
    from keyscale.engine.storage import settings

    return settings.split_output(output, video)
