"""Images as the client describes them: lines of a Dockerfile, recorded and never run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

# Options of pip and uv that take the next word.
WITH_VALUE = frozenset(
    {"-f", "--find-links", "-i", "--index-url", "--extra-index-url", "-r", "--requirement", "--requirements"}
    | {"-c", "--constraint", "--python", "--prerelease"}
)


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """An image layer that the client asked for. None is ever built: it is recorded, for tests to look at."""

    id: str
    bases: tuple[str, ...]
    """Ids of the layers below."""
    commands: tuple[str, ...]
    """Its lines of a Dockerfile."""
    context_files: dict[str, bytes]
    """Files that the lines refer to, by name, such as lists of requirements."""
    context_mount_id: str
    build_function: str
    """Source of the function that is run to build the layer; empty where there is none."""
    secret_ids: tuple[str, ...]
    gpu: str
    builder_version: str

    @property
    def pip_packages(self) -> tuple[str, ...]:
        """What its lines let pip or uv install by name, such as `numpy==2.4.6`; files of requirements are not read."""
        return tuple(package for command in self.commands for package in _packages(command))

    @property
    def variables(self) -> dict[str, str]:
        """The variables that its lines set for containers."""
        words = [word for line in self.commands if line.startswith("ENV ") for word in shlex.split(line[4:])]
        return {name: value for name, _, value in (word.partition("=") for word in words)}


def _packages(command: str) -> Iterator[str]:
    if not command.startswith("RUN ") or "pip install " not in command:
        return
    words = iter(shlex.split(command.split("pip install ", 1)[1].replace("$(command -v python)", "python")))
    for word in words:
        if word in {"&&", ";", "|"}:
            return
        if word in WITH_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            yield word
