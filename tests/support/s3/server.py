"""What all S3 servers of the tests have in common."""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod

from keyscale.engine.storage.bucket import Storage, StorageSettings


class S3Server(ABC):
    """A real S3 server on 127.0.0.1, with its own keys and buckets."""

    name: str
    access_key: str
    secret_key: str
    port: int

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._settings: StorageSettings | None = None
        self._admin: Storage | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> StorageSettings:
        """A bucket that all tests share."""
        if self._settings is None:
            self._settings = self.new_bucket()
        return self._settings

    def new_bucket(self) -> StorageSettings:
        """An empty bucket of its own."""
        settings = StorageSettings(
            endpoint=self.endpoint,
            bucket=f"keyscale-{next(self._numbers):04}",
            access_key=self.access_key,
            secret_key=self.secret_key,
        )
        if self._admin is None:
            self._admin = Storage(settings)
        self._admin.client.create_bucket(Bucket=settings.bucket)
        return settings

    def environment(self, settings: StorageSettings | None = None) -> dict[str, str]:
        """The variables that name a bucket, by default the shared one."""
        chosen = settings or self.settings
        return {
            "R2_ENDPOINT_URL": chosen.endpoint,
            "R2_ACCESS_KEY_ID": chosen.access_key,
            "R2_SECRET_ACCESS_KEY": chosen.secret_key,
            "R2_BUCKET_NAME": chosen.bucket,
        }

    @abstractmethod
    def start(self) -> None:
        """Answer, with everything that was stored before."""

    @abstractmethod
    def stop(self) -> None:
        """Refuse connections."""

    def close(self) -> None:
        """End every process."""
        if self._admin is not None:
            self._admin.close()

    @abstractmethod
    def log(self) -> str:
        """The end of what the server logged."""


def via(settings: StorageSettings, endpoint: str) -> StorageSettings:
    """The same bucket by way of another endpoint, such as a proxy's."""
    return dataclasses.replace(settings, endpoint=endpoint)
