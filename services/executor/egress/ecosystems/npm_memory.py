"""Packuments that were read a moment ago, so that a hundred tarballs do not cost a hundred readings."""

import hashlib
import threading
from collections import OrderedDict

from services.executor.egress.ecosystems.npm_packument import Packument


class PackumentMemory:
    """The last read packuments, by name and the bytes that they were read from; bounded by their releases.

    For packuments read for their releases alone, which are small. Threads may share it.
    """

    def __init__(self, *, max_releases: int) -> None:
        self._max_releases = max_releases
        self._releases = 0
        self._entries: OrderedDict[str, tuple[bytes, Packument]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, page: bytes) -> Packument | None:
        """What `put` was told of this page, unless it was forgotten."""
        digest = _digest(page)
        with self._lock:
            entry = self._entries.get(name)
            if entry is None or entry[0] != digest:
                return None
            self._entries.move_to_end(name)
            return entry[1]

    def put(self, page: bytes, packument: Packument) -> None:
        """Remember a packument in place of an earlier one of its name; the least recently used are forgotten."""
        digest = _digest(page)
        with self._lock:
            self._forget(packument.name)
            self._entries[packument.name] = (digest, packument)
            self._releases += _size(packument)
            while self._releases > self._max_releases:
                self._forget(next(iter(self._entries)))

    def _forget(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._releases -= _size(entry[1])


def _size(packument: Packument) -> int:
    return 1 + len(packument.releases) + len(packument.dropped)


def _digest(page: bytes) -> bytes:
    return hashlib.blake2b(page, digest_size=16).digest()
