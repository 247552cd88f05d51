"""Every failure the engine reports on purpose.

    KeyscaleError               1   anything else
    ├── UsageError              2   a flag, or flags that contradict each other
    │   └── FramingError        2   the keyframes file
    ├── InputError              3   the source cannot be read as a video
    │   └── DecodeError         3   the source stops being readable in mid-stream
    ├── EnvironmentFault        4   this machine lacks what the job needs
    │   ├── DeviceError         4   device absent, unfit, or out of memory at the smallest tile
    │   │   └── DeviceLost      4   device failed, and this process cannot use it any more
    │   ├── ModelError          4   model unknown, weights absent or wrong, network not reachable
    │   ├── EncoderError        4   encoder absent, or it refuses the settings
    │   └── StorageError        4   rights, disk space, an existing output
    │       └── OutputBusy      4   another process is working on the output
    ├── RemoteError             5   staging or the remote runner
    ├── VerificationError       6   the finished file is not what was planned
    └── Interrupted   130/143/129   SIGINT / SIGTERM / SIGHUP

A message says what is wrong and where; `remedy` says what to do next. `cli/app.py` is the one place that turns
an error into an exit code.
"""

from __future__ import annotations

from keyscale.engine.wording import Named, Said, Surface, say, worded

__all__ = [
    "DecodeError",
    "DeviceError",
    "DeviceLost",
    "EncoderError",
    "EnvironmentFault",
    "FramingError",
    "InputError",
    "Interrupted",
    "KeyscaleError",
    "ModelError",
    "OutputBusy",
    "RemoteError",
    "StorageError",
    "UsageError",
    "VerificationError",
]


class KeyscaleError(Exception):
    """A failure with a message for people, a remedy, and the exit code of its kind."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None, option: str | None = None) -> None:
        """`option` is the one whose value is wrong, and then the subject of the message: `"60 is out of range"`."""
        if option is not None:
            message = say("{} {}", Named(option), message)
        super().__init__(str(message))
        self.message = message
        """What is wrong and where (file, index, field, time)."""
        self.remedy = remedy
        """What to do next, as a sentence; None where the message already says it."""
        first = message.parts[0] if isinstance(message, Said) and message.parts else None
        self.option = first.name if isinstance(first, Named) else None
        """The option whose value is wrong, as of the Python API (`"crf"`), where the message begins with one."""

    def word(self, surface: Surface) -> None:
        """Let the error speak of options as that surface does."""
        self.message = worded(self.message, surface)
        self.args = (self.message,)
        self.remedy = None if self.remedy is None else worded(self.remedy, surface)


class UsageError(KeyscaleError):
    """A flag has a wrong value, or flags contradict each other."""

    exit_code = 2


class FramingError(UsageError):
    """The keyframes file is wrong; the message names line and column, or index and field."""


class InputError(KeyscaleError):
    """The source is missing, not a video, truncated, or without a video stream."""

    exit_code = 3


class DecodeError(InputError):
    """A frame in mid-stream cannot be decoded; the message names its time."""


class EnvironmentFault(KeyscaleError):
    """This machine lacks something that the job needs."""

    exit_code = 4


class DeviceError(EnvironmentFault):
    """The asked-for device is absent or unfit, or its memory does not hold the smallest tile."""


class DeviceLost(DeviceError):
    """The device failed in a way after which this process cannot use it any more; another one may."""


class ModelError(EnvironmentFault):
    """A model is unknown, its weights are absent or wrong, or they cannot be downloaded."""


class EncoderError(EnvironmentFault):
    """An encoder is absent or refuses the settings."""


class StorageError(EnvironmentFault):
    """The output cannot be written: rights, space, a lock, or a file that already exists."""


class OutputBusy(StorageError):
    """Another process holds the output's lock; it will be free once that ends."""


class RemoteError(KeyscaleError):
    """Staging to object storage or the remote runner failed."""

    exit_code = 5


class VerificationError(KeyscaleError):
    """The finished file differs from the plan; it was not published."""

    exit_code = 6


class Interrupted(KeyscaleError):
    """The job was stopped by a signal; finished chunks are kept."""

    exit_code = 130

    def __init__(self, message: str, *, remedy: str | None = None, exit_code: int = 130) -> None:
        super().__init__(message, remedy=remedy)
        self.exit_code = exit_code
