"""What the mirror keeps, and how it is kept: `DiskCache` and `NoCache` both are a `Cache`."""

import io
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from services.executor.egress.ecosystems.port import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What stands at one key: a blob, where it came from, and what it was held against.

    `sha256` (hex) and `size` (bytes) are the blob's own; `host` is the one that sent it; `etag` and `last_modified` are
    the registry's header values; `fetched` counts seconds since 1970.
    """

    key: str
    sha256: str
    size: int
    host: str
    digest: Digest | None = None
    etag: str | None = None
    last_modified: str | None = None
    fetched: float = 0.0


class Held:
    """An entry with its blob open, checked, and safe from eviction until closed."""

    def __init__(self, entry: Entry, file: io.FileIO) -> None:
        self.entry = entry
        self.file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.file.close()


class Partial(Protocol):
    """A file that is to become a blob."""

    def append(self, data: bytes) -> None:
        """Write at the end; this blocks. OSError: the disk refuses, and what was written last may be torn."""

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes; this blocks."""


class Cache(Protocol):
    """Blobs by key. What the disk refuses is logged and then simply not kept."""

    async def get(self, key: str) -> Held | None:
        """What is kept, with every byte as it was when it was put there; it counts as used. The caller closes it."""

    def fits(self, size: int) -> bool:
        """Whether something of `size` bytes can be kept at all."""

    def begin(self) -> Partial | None:
        """A file for something that is to be kept; None if it would not be."""

    def make_room(self, partial: Partial, count: int) -> bool:
        """Set `count` bytes more aside for `partial`, at the cost of what was not used for longest."""

    def commit(self, partial: Partial, entry: Entry) -> None:
        """Keep what was written, in place of what stands at the key. The file stays readable until `release`."""

    def abandon(self, partial: Partial) -> None:
        """Forget what was written; the file stays readable until `release`."""

    def release(self, partial: Partial) -> None:
        """Close a file that was committed or abandoned."""

    def refresh(self, entry: Entry) -> None:
        """Replace what is known of the blob at the entry's key; nothing if another one is there by now."""

    def forget(self, key: str) -> None:
        """Keep nothing at the key."""

    def close(self) -> None:
        """Write down what is not yet; this blocks."""


class NoCache:
    """Keeps nothing, and so begins nothing that could be committed."""

    async def get(self, key: str) -> Held | None:  # noqa: ARG002  # as Cache says
        """Nothing."""
        return None

    def fits(self, size: int) -> bool:  # noqa: ARG002  # as Cache says
        """Never."""
        return False

    def begin(self) -> Partial | None:
        """Nothing."""
        return None

    def make_room(self, partial: Partial, count: int) -> bool:  # noqa: ARG002  # as Cache says
        """Never."""
        return False

    def commit(self, partial: Partial, entry: Entry) -> None:
        """Nothing."""

    def abandon(self, partial: Partial) -> None:
        """Nothing."""

    def release(self, partial: Partial) -> None:
        """Nothing."""

    def refresh(self, entry: Entry) -> None:
        """Nothing."""

    def forget(self, key: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
