"""What several jobs of one process share: networks that stay loaded, and the lock to run one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from keyscale.engine.threads import NetworkLock

if TYPE_CHECKING:
    from keyscale.engine.models.enlarger import Enlarger

__all__ = ["Shared"]

KEPT = 2
"""Networks that stay loaded beside those in use: an x2 and an x4 one of a folder of mixed clips."""


class Shared:
    """For a process that does many jobs. Its methods may be called from any thread."""

    def __init__(self, *, gpu: str | None = None) -> None:
        """`gpu` is the one that is meant by `auto` and `cuda`: `cuda:N` or `mps`, or None for any."""
        self.gpu = gpu
        self.network_lock = NetworkLock()
        self._networks: OrderedDict[Hashable, Enlarger] = OrderedDict()
        self._loading = threading.Lock()

    def network(self, key: Hashable, load: Callable[[], Enlarger]) -> Enlarger:
        """The network of that key: the one that is loaded, or else what `load` gives.

        Args:
            key: all that the network depends on: weights, runtime, precision, device.
            load: called where it is not there; nothing is kept if it raises.
        """
        with self._loading:
            network = self._networks.pop(key, None)
            if network is None:
                network = load()
            self._networks[key] = network
            while len(self._networks) > KEPT:
                self._networks.popitem(last=False)
            return network
