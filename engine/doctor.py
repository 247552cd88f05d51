"""What of this machine and of what it reaches works: one finding after another, each with what to do about it.

Meant as the first attachment of a bug report: findings have no key, token or password, and the home folder is `~`.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from keyscale import __version__
from keyscale.engine.choices import Codec, Mode
from keyscale.engine.errors import DeviceError, EncoderError, EnvironmentFault, KeyscaleError, RemoteError
from keyscale.engine.files import cache_folder
from keyscale.engine.job import Encoding
from keyscale.engine.system import usable_cores
from keyscale.engine.threads import start_helper
from keyscale.engine.wording import say

__all__ = ["Finding", "examine"]

PATIENCE_S = 10.0
"""Seconds that one look at what is elsewhere may take."""

LIBRARIES = ("av", "numpy", "pillow", "openvino", "torch", "boto3", "modal")

ENCODERS = (
    *((codec, 8) for codec in (Codec.H264, Codec.HEVC, Codec.AV1)),
    *((codec, 10) for codec in (Codec.HEVC, Codec.AV1, Codec.PRORES)),
    *((codec, 8) for codec in (Codec.H264_NVENC, Codec.HEVC_NVENC, Codec.AV1_NVENC)),
)

TRIED_SIZE = (256, 256)
"""Width and height of the frame that each encoder is tried with; NVENC takes none below 145x49."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: Literal["ok", "off", "fault"]
    """`off`: not set up, or not there, and nothing needs it unless it is asked for."""
    found: str
    remedy: str | None = None
    exit_code: int = 0
    """Of the error that a job would end with; 0 unless it is a fault."""
    seconds: float = 0.0
    """How long the look took."""


def examine(environment: Mapping[str, str], *, ask_deployed: bool = False) -> Iterator[Finding]:
    """Look at everything in turn. Writes nothing but files that it removes at once.

    Args:
        environment: as of `os.environ`.
        ask_deployed: start a small container on Modal, which costs a fraction of a cent, to ask what is deployed.
    """
    looks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("libraries", _libraries),
        ("ffmpeg", _ffmpeg),
        *(
            (f"encoder {codec}, {depth} bit", lambda codec=codec, depth=depth: _encoder(codec, depth))
            for codec, depth in ENCODERS
        ),
        ("device", _device),
        ("networks", _networks),
        ("other weights", _other_weights),
        ("cache", lambda: _folder("KEYSCALE_CACHE_DIR", cache_folder())),
        ("state", _state),
        ("temporary files", lambda: _folder("TMPDIR", Path(tempfile.gettempdir()), weigh=False)),
        ("object storage", lambda: _storage(environment)),
        ("modal", lambda: _modal(environment, ask_deployed=ask_deployed)),
    ]
    for subject, look in looks:
        began = time.perf_counter()
        try:
            finding = look()
        except (KeyscaleError, ImportError, OSError) as error:
            finding = _fault(error)
        yield replace(finding, subject=subject, seconds=round(time.perf_counter() - began, 3))


def _ok(found: str) -> Finding:
    return Finding(subject="", state="ok", found=_shown(found))


def _off(found: str, remedy: str) -> Finding:
    return Finding(subject="", state="off", found=_shown(found), remedy=_shown(remedy))


def _fault(error: BaseException) -> Finding:
    code = error.exit_code if isinstance(error, KeyscaleError) else EnvironmentFault.exit_code
    remedy = getattr(error, "remedy", None) or "Report it with what this command prints."
    return Finding(subject="", state="fault", found=_shown(str(error)), remedy=_shown(remedy), exit_code=code)


def _shown(text: str) -> str:
    home = str(Path.home())
    return str.replace(text, home, "~") if len(home) > 1 else str(text)


def _python() -> Finding:
    cores = f"{usable_cores()} of {os.cpu_count()} cores"
    return _ok(f"{platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()}, {cores}")


def _libraries() -> Finding:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return _ok(f"keyscale {__version__}; {', '.join(found)}")


def _ffmpeg() -> Finding:
    import av

    parts = (f"{name} {'.'.join(map(str, number))}" for name, number in sorted(av.library_versions.items()))
    return _ok(f"{av.ffmpeg_version_info}: {', '.join(parts)}")


def _encoder(codec: Codec, depth: int) -> Finding:
    import numpy as np

    from keyscale.engine.pipeline.encoder import ChunkWriter, chunk_suffix
    from keyscale.engine.plan.encoding import resolve_encoding
    from keyscale.engine.source.tone import SDR

    encoding = Encoding(codec=codec, bit_depth=10 if depth == 10 else 8)
    settings = resolve_encoding(encoding, Mode.FAST, SDR, "mov" if codec is Codec.PRORES else "mp4", Fraction(30))
    kind = np.uint16 if depth > 8 else np.uint8
    frame = np.full((TRIED_SIZE[1], TRIED_SIZE[0], 3), np.iinfo(kind).max // 2, kind)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"frame{chunk_suffix(settings)}"
            with ChunkWriter(path, settings, SDR.encoded(settings.codec), TRIED_SIZE, Fraction(30)) as writer:
                writer.write(frame)
            return _ok(f"{settings.encoder} made {path.stat().st_size} bytes of a frame")
    except EncoderError as error:
        if codec.value.endswith("_nvenc"):
            return _off(
                f"{settings.encoder} does not run here", "Nothing needs it; it takes an NVIDIA GPU with an encoder."
            )
        return _fault(error)


def _device() -> Finding:
    """Where `auto` leads, what runs there, and what does not run."""
    from keyscale.engine.models.devices import MODEL, look_at_devices

    reports = look_at_devices(measure=False)
    problems = "; ".join(f"{each.device}: {problem}" for each in reports for problem in each.problems)
    auto = next((each for each in reports if each.auto), None)
    if auto is None:
        return _fault(DeviceError(problems, remedy=say("{model=lanczos} needs no device.")))
    found = f"auto is {auto.description}: {MODEL.name} runs in {auto.runtime} {auto.precision}"
    if problems:
        return _off(f"{found}; {problems}", "Install a torch or a driver that fits, or go on with what auto takes.")
    return _ok(found)


def _networks() -> Finding:
    from keyscale.engine.models import all_models, weights

    files = [(path, file) for spec in all_models() if spec.shipped for path, file in weights.known_files(spec)]
    for path, file in files:
        weights.check(path, file)
    return _ok(f"all {len(files)} files of the package have their SHA-256")


def _other_weights() -> Finding:
    from keyscale.engine.models import all_models, weights

    found = [(path, file) for spec in all_models() if not spec.shipped for path, file in weights.known_files(spec)]
    for path, file in found:
        weights.check(path, file)
    places = " or ".join(map(str, weights.search_dirs()))
    if not found:
        return _off(
            f"none in {places}", "`keyscale models fetch NAME` downloads one; it is done where a job needs it, too."
        )
    return _ok(f"{', '.join(sorted({path.name for path, _ in found}))} in {places}")


def _state() -> Finding:
    from keyscale.engine.remote.state import all_notes, state_folder

    found = _folder("KEYSCALE_STATE_DIR", state_folder())
    if found.state == "ok" and (notes := all_notes()):
        return _off(f"{found.found}; {len(notes)} remote jobs are unfinished", "`keyscale remote status` shows them.")
    return found


def _folder(variable: str, folder: Path, *, weigh: bool = True) -> Finding:
    """Whether files can be made in a folder, what is in it, and what room is left."""
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".keyscale-"):
            pass
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be written: {error.strerror}",
            remedy=f"Give rights to it, or name another with {variable}.",
        ) from error
    free = shutil.disk_usage(there).free / 2**30
    if there != folder:
        return _ok(f"{folder} is made when it is needed; {free:.1f} GiB free")
    held = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20 if weigh else 0.0
    return _ok(f"{folder}{f' holds {held:.1f} MiB' if weigh else ''}; {free:.1f} GiB free")


def _storage(environment: Mapping[str, str]) -> Finding:
    from keyscale.engine.storage.settings import StorageSettings

    if not any(value for name, value in environment.items() if name.startswith("R2_")):
        return _off(
            "no R2_* variable is set", say("Nothing needs it without {remote=True} or an r2:// output; docs/remote.md.")
        )
    settings = StorageSettings.from_environment(environment)

    def look() -> Finding:
        from keyscale.engine.storage.bucket import Storage

        with Storage(settings) as storage:
            storage.check()
        return _ok("the bucket takes, gives and deletes an object")

    return _in_time(look, "object storage")


def _modal(environment: Mapping[str, str], *, ask_deployed: bool) -> Finding:
    if (
        not environment.get("MODAL_TOKEN_ID")
        and not Path(environment.get("MODAL_CONFIG_PATH", "~/.modal.toml")).expanduser().exists()
    ):
        return _off(
            "neither MODAL_TOKEN_ID nor ~/.modal.toml is there",
            say("Nothing needs it without {remote=True}; `modal setup` makes a token, docs/remote.md tells the rest."),
        )

    def look() -> Finding:
        from keyscale.engine.remote.modal_client import Calls
        from keyscale.engine.remote.modal_errors import DEPLOY

        calls = Calls()
        if not ask_deployed:
            calls.check_deployed()
            return _ok("the token is taken and the functions are deployed; their version only a container tells")
        found = calls.connect()
        calls.close()
        if found.version != __version__:
            raise RemoteError(f"keyscale {found.version} is deployed, this is {__version__}", remedy=DEPLOY)
        gpus = ", ".join(found.gpus) or "CPUs"
        return _ok(f"keyscale {found.version} is deployed, for {gpus}, {found.containers} containers at most")

    return look() if ask_deployed else _in_time(look, "Modal")


def _in_time(look: Callable[[], Finding], what: str) -> Finding:
    """What a look finds or raises; a `RemoteError` where it takes longer than `PATIENCE_S`."""
    answers: list[Finding | Exception] = []

    def act() -> None:
        try:
            answers.append(look())
        except Exception as error:
            answers.append(error)

    start_helper("keyscale-doctor", act).join(PATIENCE_S)
    if not answers:
        raise RemoteError(
            f"{what} did not answer within {PATIENCE_S:.0f} s", remedy="Check the network, proxies included."
        )
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]
