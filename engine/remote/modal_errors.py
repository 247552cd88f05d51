"""What an exception of Modal's client means: how a call ended, or that nobody can say."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from keyscale.engine.errors import KeyscaleError, RemoteError, StorageError

__all__ = [
    "DEPLOY",
    "LOGS",
    "CallEnd",
    "Outcome",
    "Unanswered",
    "is_about_money",
    "is_cancelled",
    "is_waiting",
    "judged",
    "never_arrived",
    "outcome_of",
    "passing",
    "short",
    "told_by",
    "unreachable",
    "without_links",
]

LONGEST_TOLD = 300

PAY = "Look at the workspace's billing and its budget, on modal.com under Settings."
LOG_IN = "Set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal setup`."
LOGS = "Look at `modal app logs keyscale`."
DEPLOY = "Run `keyscale remote deploy`."


class Unanswered(RemoteError):
    """Modal did not answer. What was asked for may have been done all the same."""


class CallEnd(Enum):
    """How a call ended."""

    ANSWERED = "answered"
    """The function returned: `Outcome.answer`."""
    TIMEOUT = "timeout"
    """It took longer than the function may."""
    CRASHED = "crashed"
    """The container died, or the function raised what may pass."""
    GONE = "gone"
    """Its result is not kept any more, or it was cancelled elsewhere."""
    FAILED = "failed"
    """The same call would fail again: `Outcome.error`."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a call."""

    kind: CallEnd
    answer: dict[str, Any] | None = None
    error: RemoteError | None = None
    """What to tell people, for all kinds but `ANSWERED`."""
    ended: bool = True
    """Whether Modal said that the call ended. Where it did not, the call may run on, and is paid for."""


def passing(modal: Any) -> tuple[type[BaseException], ...]:
    """Faults of the way to the server, or of the server itself, that may pass."""
    e = modal.exception
    return (
        e.ConnectionError,
        e.ServiceError,
        e.InternalError,
        e.InternalFailure,
        e.ResourceExhaustedError,
        ConnectionError,
        socket.gaierror,
    )


def is_waiting(modal: Any, error: Exception) -> bool:
    """Whether `get` only says that there is no result yet."""
    e = modal.exception
    return isinstance(error, TimeoutError) and not isinstance(error, e.FunctionTimeoutError | e.OutputExpiredError)


def is_cancelled(modal: Any, error: Exception) -> bool:
    """Whether the call was cancelled: Modal says so in words alone where its container had begun to work."""
    return isinstance(error, modal.exception.RemoteError) and "cancelled by user" in str(error)


def judged(modal: Any, error: Exception) -> Outcome | None:
    """What an exception of `get` says of the call; None where it says something of the way to the server alone.

    How a call ended is in the server's answer. A request that was refused says nothing of it.
    """
    e = modal.exception
    if is_waiting(modal, error):
        return None
    is_money = is_about_money(modal, error)
    if isinstance(error, passing(modal)) and not isinstance(error, KeyscaleError) and not is_money:
        return None
    if is_cancelled(modal, error):
        return outcome_of(CallEnd.GONE, "a call was cancelled elsewhere")
    refusals = (
        e.InvalidError,  # ConflictError is one: FAILED_PRECONDITION, ABORTED
        e.PermissionDeniedError,
        e.VersionError,
        e.UnimplementedError,
        e.AlreadyExistsError,
    )
    ends: tuple[tuple[Any, bool, CallEnd, str, str], ...] = (
        # Raised by the function, as something that may pass.
        (KeyscaleError, True, CallEnd.CRASHED, without_links(str(error)) or short(error), LOGS),
        (e.FunctionTimeoutError, True, CallEnd.TIMEOUT, "a chunk took longer than the function may", LOGS),
        (e.OutputExpiredError, True, CallEnd.GONE, "the result of a call is not kept any more", LOGS),
        ((e.NotFoundError, e.DataLossError), False, CallEnd.GONE, "Modal does not know a call any more", LOGS),
        (e.AuthError, False, CallEnd.FAILED, "Modal does not accept the token", LOG_IN),
        (
            refusals,
            False,
            CallEnd.FAILED,
            f"Modal refuses to tell of a call ({short(error)})",
            PAY if is_money else DEPLOY,
        ),
        (e.RemoteError if is_money else (), True, CallEnd.FAILED, f"Modal ended a call ({short(error)})", PAY),
        (e.Error if is_money else (), False, CallEnd.FAILED, f"Modal does not tell of a call ({short(error)})", PAY),
        # Of this machine or of the container's, nobody can say: Modal's client needs room for temporary files.
        (OSError, False, CallEnd.GONE, f"a container failed, or cannot be followed ({short(error)})", LOGS),
        (Exception, True, CallEnd.CRASHED, f"a container failed ({short(error)})", LOGS),
    )
    return next(
        outcome_of(kind, text, remedy, ended=ended)
        for wanted, ended, kind, text, remedy in ends
        if isinstance(error, wanted)
    )


def outcome_of(kind: CallEnd, text: str, remedy: str = LOGS, *, ended: bool = True) -> Outcome:
    """An outcome with its error."""
    return Outcome(kind=kind, error=RemoteError(text, remedy=remedy), ended=ended)


def without_links(told: object) -> str:
    """What a server or a container says, as one line of at most 300 characters without what may be a link."""
    if not isinstance(told, str):
        return ""
    words = ("(a link)" if re.search("://|X-Amz-", word, re.IGNORECASE) else word for word in told[:10_000].split())
    line = " ".join(words)
    return line if len(line) <= LONGEST_TOLD else f"{line[: LONGEST_TOLD - 4]} ..."


def short(error: BaseException) -> str:
    """An exception's kind and the first line of its text."""
    line = without_links(next(iter(str(error).strip().splitlines()), ""))
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def unreachable(action: str, kind: type[RemoteError] = Unanswered, *, has_begun: bool = True) -> RemoteError:
    """The error where Modal did not answer what `action` asked for, of a job that has begun or has not."""
    then = "then `keyscale remote resume` the job" if has_begun else "then run the command again"
    return kind(f"cannot {action}: Modal cannot be reached", remedy=f"Check the network, {then}.")


@contextlib.contextmanager
def told_by(modal: Any, action: str, *, has_begun: bool = True) -> Iterator[None]:
    """Modal's exceptions as ours, and those of its client; `has_begun` as of `unreachable`."""
    e = modal.exception
    try:
        yield
    except KeyscaleError:
        raise
    except e.AuthError as error:
        raise RemoteError(f"Modal does not accept the token ({short(error)})", remedy=LOG_IN) from None
    except e.VersionError as error:
        raise RemoteError(f"Modal does not take this client ({short(error)})", remedy="pip install -U modal") from None
    except passing(modal) as error:
        if is_about_money(modal, error):
            raise RemoteError(f"cannot {action} ({short(error)})", remedy=PAY) from None
        kind = RemoteError if never_arrived(modal, error) else Unanswered
        raise unreachable(action, kind, has_begun=has_begun) from None
    except e.Error as error:
        remedy = PAY if is_about_money(modal, error) else DEPLOY
        raise RemoteError(f"cannot {action} ({short(error)})", remedy=remedy) from None
    except TimeoutError:
        raise unreachable(action, has_begun=has_begun) from None
    except OSError as error:
        remedy = "Free some space, or let TMPDIR name a folder that can be written: Modal's client needs one."
        raise StorageError(f"cannot {action} ({short(error)})", remedy=remedy) from None


def never_arrived(modal: Any, error: BaseException) -> bool:
    """Whether what was asked for was certainly not done."""
    return isinstance(error, modal.exception.ResourceExhaustedError | socket.gaierror | ConnectionRefusedError)


def is_about_money(modal: Any, error: BaseException) -> bool:
    """Whether Modal refuses for the workspace's bill: its own word for it is "billing cycle spend limit reached"."""
    words = r"\b(?:billing|budget|spend(?:ing)? limit|payment|out of credits?|insufficient funds)\b"
    return isinstance(error, modal.exception.Error) and re.search(words, str(error)[:10_000], re.IGNORECASE) is not None
