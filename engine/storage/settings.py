"""What names things in object storage: the settings of a bucket, addresses, and the keys of a job.

No network, no boto3, and no file is opened.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from keyscale.engine.addresses import is_address, redacted
from keyscale.engine.errors import RemoteError, UsageError
from keyscale.engine.wording import say

__all__ = [
    "JOBS_PREFIX",
    "TRIALS_PREFIX",
    "StorageSettings",
    "is_publication",
    "is_trial",
    "job_of",
    "job_prefix",
    "key_fault",
    "new_job_id",
    "new_trial",
    "parse_address",
    "publication_id",
    "source_key",
    "split_output",
]

JOBS_PREFIX = "temp/upscale_"
"""What every key of a staged job begins with."""

TRIALS_PREFIX = "temp/keyscale-check-"
"""The same of objects by which a bucket is tried."""

PUBLICATION = "publish-"
"""What the id of a publication begins with, which has a folder as a job has; ids of jobs begin with a year."""

LONGEST_KEY = 1024
"""Bytes of a key in UTF-8, by S3's rules."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_JOB_KEY = re.compile(rf"{re.escape(JOBS_PREFIX)}({_JOB_ID.pattern})/")
_TRIAL = re.compile(rf"{re.escape(TRIALS_PREFIX)}[0-9a-f]{{16}}")
_ACCOUNT = re.compile(r"[0-9a-f]{32}")
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,16})?")
_HOST = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """One bucket at one S3-compatible endpoint, and the keys to it; neither key shows in its `repr`."""

    endpoint: str
    """`https://HOST` or `http://HOST:PORT`, without a path."""
    bucket: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    region: str = "auto"
    bucket_by: str = "R2_BUCKET_NAME"
    """What named the bucket, for messages."""

    def of_address(self, bucket: str) -> StorageSettings:
        """The same for the bucket of an address that was given as the output."""
        return replace(self, bucket=bucket, bucket_by=say("the bucket in {output}"))

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> StorageSettings:
        """Settings from the variables that R2's users know.

        `R2_ENDPOINT_URL`, or `R2_ACCOUNT_ID` where that is not set; `R2_BUCKET_NAME`; `R2_ACCESS_KEY_ID` and
        `R2_SECRET_ACCESS_KEY`. What is refused of any of them appears in no message: it may be another one's value.

        Raises:
            RemoteError: variables are missing, blank or not of their form; the message names all of them.
        """
        faults = [*_endpoint_faults(env)]
        for name in ("R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"):
            value = env.get(name, "")
            if not value.strip():
                faults.append(f"{name} is not set")
            elif not (value.isascii() and value.isprintable() and " " not in value):
                faults.append(f"{name} has white space or other odd characters in it")
        bucket = env.get("R2_BUCKET_NAME", "")
        if not bucket.strip():
            faults.append("R2_BUCKET_NAME is not set")
        elif not _BUCKET.fullmatch(bucket):
            faults.append("R2_BUCKET_NAME is not the name of a bucket (3 to 63 of a-z, 0-9, '-' and '.')")
        if faults:
            raise RemoteError(
                f"object storage is not set up: {'; '.join(faults)}",
                remedy="Set R2_ENDPOINT_URL (or R2_ACCOUNT_ID), R2_BUCKET_NAME, and R2_ACCESS_KEY_ID with "
                "R2_SECRET_ACCESS_KEY of an API token that may read and write objects in that bucket.",
            )
        endpoint = env.get("R2_ENDPOINT_URL", "") or f"https://{env['R2_ACCOUNT_ID']}.r2.cloudflarestorage.com"
        return cls(
            endpoint=endpoint.rstrip("/"),
            bucket=bucket,
            access_key=env["R2_ACCESS_KEY_ID"],
            secret_key=env["R2_SECRET_ACCESS_KEY"],
        )


def _endpoint_faults(env: Mapping[str, str]) -> list[str]:
    url, account = env.get("R2_ENDPOINT_URL", ""), env.get("R2_ACCOUNT_ID", "")
    if not url.strip():
        if not account.strip():
            return ["neither R2_ENDPOINT_URL nor R2_ACCOUNT_ID is set"]
        return [] if _ACCOUNT.fullmatch(account) else ["R2_ACCOUNT_ID is not 32 hexadecimal digits"]
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ["R2_ENDPOINT_URL is not an address"]
    named = f"[{host}]" if ":" in host else host
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(named):
        return ["R2_ENDPOINT_URL is not of the form https://HOST"]
    plain = f"{parts.scheme}://{named}" + (f":{port}" if port is not None else "")
    if url.rstrip("/").lower() != plain.lower():
        return [f"R2_ENDPOINT_URL has more in it than {plain} (leave out the name of the bucket and anything after it)"]
    return []


def parse_address(text: str) -> tuple[str, str]:
    """`"r2://bucket/some/key with spaces.mp4"` -> `("bucket", "some/key with spaces.mp4")`.

    The key is taken as it stands: nothing in it is unquoted, and `?` and `#` are part of it.

    Raises:
        UsageError: any other form, or a key below the prefixes of what is removed by and by.
    """

    shown = redacted(text)

    def refused(why: str) -> UsageError:
        return UsageError(f"{shown!r} {why}", remedy="Write r2://BUCKET/KEY, such as r2://videos/clips/talk.mp4.")

    scheme, colon, rest = text.partition("://")
    if not colon or scheme.lower() != "r2":
        raise refused("is not an address in object storage")
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise refused(f"names no bucket: {bucket!r}" if bucket else "names no bucket")
    if why := key_fault(key):
        raise refused(why)
    if key.startswith((JOBS_PREFIX, TRIALS_PREFIX)):
        raise UsageError(
            f"{text!r} lies where jobs are staged, and would be removed with what they leave",
            remedy=f"Give a key that begins with neither {JOBS_PREFIX} nor {TRIALS_PREFIX}.",
        )
    return bucket, key


def key_fault(key: str) -> str | None:
    """Why a key is not one that a finished file should have, as the predicate of a sentence; None where it is."""
    if not key or key.endswith("/"):
        return "names no object" if not key else "names a folder, not an object"
    if any(part in {"", ".", ".."} for part in key.split("/")):
        return "has an empty part, '.' or '..' in its key"
    if not key.isprintable():
        return "has control characters in its key"
    if len(key.encode()) > LONGEST_KEY:
        return f"has a key of more than {LONGEST_KEY} bytes"
    return None


def new_job_id() -> str:
    """A name for a job: sorts by time, unique, of `a-z`, `0-9` and `-` alone."""
    return f"{datetime.now(UTC):%Y%m%dt%H%M%S}-{secrets.token_hex(6)}"


def job_prefix(job_id: str) -> str:
    """`temp/upscale_{job_id}/`, below which everything of a job lies.

    Raises:
        UsageError: not the form of a job's name.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise UsageError(
            f"{job_id!r} is no job", remedy="A job's name has the letters a-z, digits and '-' alone, 64 at most."
        )
    return f"{JOBS_PREFIX}{job_id}/"


def source_key(job_id: str, suffix: str) -> str:
    """Where a job's source is staged; `suffix` such as `.mp4`, or empty. An odd one is left out.

    Raises:
        UsageError: not the form of a job's name.
    """
    return f"{job_prefix(job_id)}source{suffix.lower() if _SUFFIX.fullmatch(suffix) else ''}"


def job_of(key: str) -> str | None:
    """The job that a key or prefix belongs to; None where it is of no job."""
    found = _JOB_KEY.match(key)
    return found.group(1) if found else None


def publication_id(key: str) -> str:
    """By what name it is noted that a finished file is on its way to `key`: one for each key, in place of a job's."""
    return f"{PUBLICATION}{hashlib.sha256(key.encode()).hexdigest()[:40]}"


def is_publication(job_id: str) -> bool:
    """Whether an id is one of `publication_id`."""
    return job_id.startswith(PUBLICATION)


def new_trial() -> str:
    """A key for an object by which a bucket is tried."""
    return f"{TRIALS_PREFIX}{secrets.token_hex(8)}"


def is_trial(key: str) -> bool:
    """Whether a key is one of `new_trial`."""
    return _TRIAL.fullmatch(key) is not None


def split_output(output: str | None, video: str | None = None) -> tuple[str | None, str | None]:
    """An output as a local name and, where it is an address in storage, that address.

    The file of `r2://bucket/path/name.mp4` is kept here as `name.mp4` in the current folder, or as `name.keyscale.mp4`
    where that is the video itself.

    Args:
        output: as given.
        video: the source.

    Raises:
        UsageError: it is an address of another form.
    """
    if output is None or not is_address(output):
        return output, None
    _, key = parse_address(output)
    here = Path(key.rpartition("/")[2])
    if video is not None and _is_same(here, Path(video)):
        here = here.with_stem(f"{here.stem}.keyscale")
    return str(here), output


def _is_same(output: Path, video: Path) -> bool:
    try:
        return output.absolute() == video.absolute() or output.samefile(video)
    except (OSError, ValueError):
        return False  # one of them is not there, or has no usable name, which others tell
