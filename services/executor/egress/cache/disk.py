"""The cache on disk: shared by all sandboxes, filled by the doors alone, bounded, and safe to be killed at any time."""

import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec

import structlog

from services.executor.egress.cache import journal
from services.executor.egress.cache.directory import CacheDirectory, PartialFile, identity
from services.executor.egress.cache.index import Index
from services.executor.egress.cache.journal import Row
from services.executor.egress.cache.port import Cache, Entry, Held, NoCache, Partial
from services.executor.egress.workers import Workers

_log = structlog.get_logger()

_Parameters = ParamSpec("_Parameters")

_HASHED_AT_ONCE_BYTES = 4 * 1024**2
# The journal is written anew when it has this many lines more than twice what it needs.
_SPARE_LINES = 20_000


class _Damaged(Exception):
    """A blob's bytes are not those that were put there."""

    def __str__(self) -> str:
        return "its bytes have changed"


def open_cache(root: int | None, *, limit: int, workers: Workers) -> Cache:
    """The cache in the directory that `root` has open, of at most `limit` bytes; this blocks.

    Without a directory, or if it cannot be used, nothing is kept: the mirror works, only slower.
    """
    if root is None:
        return NoCache()
    try:
        return DiskCache(CacheDirectory(root), limit=limit, workers=workers)
    except OSError as error:
        _log.error("mirror cache not used", error=str(error))
        return NoCache()


class DiskCache:
    """A `Cache` in a directory.

    Opening and renaming happens in the event loop, so that index and directory never disagree; what can take long
    (writing, hashing, removing) happens in threads. One of them, the scribe, does everything in the order it was told.
    """

    def __init__(self, directory: CacheDirectory, *, limit: int, workers: Workers) -> None:
        """Bring back what the directory holds; this blocks."""
        self._directory = directory
        self._limit = limit
        self._workers = workers
        self._reserved = 0
        self._lines = 0
        self._is_closed = False
        # What blobs looked like when their bytes were last known to be right.
        self._sound: dict[str, tuple[int, ...]] = {}
        self._scribe = ThreadPoolExecutor(1, thread_name_prefix="scribe")
        rows = _recover(directory, limit)
        directory.rewrite_journal(rows)
        self._index = Index(self._note)
        self._index.replay(rows)

    async def get(self, key: str) -> Held | None:
        """What is kept at a key; its bytes are checked when they are used first, and whenever the file has changed."""
        entry = None if self._is_closed else self._index.find(key)
        if entry is None:
            return None
        try:
            file = self._directory.open_blob(entry.sha256)
            try:
                await self._check(file, entry)
            except BaseException:
                file.close()
                raise
        except (OSError, _Damaged) as error:
            _log.error("cached blob damaged", key=key, sha256=entry.sha256, error=str(error))
            self._remove(self._index.discard(entry.sha256))
            return None
        self._index.use(entry.sha256)
        return Held(entry, file)

    def fits(self, size: int) -> bool:
        """Whether it is not larger than all of the cache."""
        return size <= self._limit

    def begin(self) -> Partial | None:
        """A new file."""
        if self._is_closed:
            return None
        try:
            return self._directory.create()
        except OSError as error:
            _log.error("cache not written", error=str(error))
            return None

    def make_room(self, partial: Partial, count: int) -> bool:
        """Evict until `count` bytes more fit; False if what is being written leaves no room for them."""
        assert isinstance(partial, PartialFile)
        if self._reserved + count > self._limit:
            return False
        while self._index.bytes + self._reserved + count > self._limit:
            oldest = self._index.oldest()
            assert oldest is not None
            self._remove(self._index.discard(oldest))
        self._reserved += count
        partial.reserved += count
        return True

    def commit(self, partial: Partial, entry: Entry) -> None:
        """Make a file the blob of `entry`."""
        assert isinstance(partial, PartialFile)
        if self._is_closed:
            return
        try:
            self._directory.adopt(partial, entry.sha256)
        except OSError as error:
            _log.error("cache not written", key=entry.key, error=str(error))
            self.abandon(partial)
            return
        self._give_back(partial)
        self._sound[entry.sha256] = partial.identity()
        self._remove(self._index.put(entry))

    def abandon(self, partial: Partial) -> None:
        """Remove a file."""
        assert isinstance(partial, PartialFile)
        self._give_back(partial)
        self._tell(self._directory.remove, partial.name)

    def release(self, partial: Partial) -> None:
        """Close a file."""
        assert isinstance(partial, PartialFile)
        self._tell(partial.close)

    def refresh(self, entry: Entry) -> None:
        """Replace an entry if it leads to the same blob."""
        earlier = self._index.find(entry.key)
        if earlier is not None and earlier.sha256 == entry.sha256:
            self._remove(self._index.put(entry))

    def forget(self, key: str) -> None:
        """Remove an entry."""
        self._remove(self._index.drop(key))

    def close(self) -> None:
        """Let the scribe finish. Who comes later finds nothing, and leaves what the next start clears away."""
        self._is_closed = True
        self._scribe.shutdown()
        self._directory.close()

    async def _check(self, file: io.FileIO, entry: Entry) -> None:
        seen = identity(file.fileno())
        if os.fstat(file.fileno()).st_size != entry.size:
            raise _Damaged
        if seen == self._sound.get(entry.sha256):
            return
        digest = hashlib.sha256()
        offset = 0
        while count := await self._workers.run(_hash_piece, digest, file.fileno(), offset):
            offset += count
        if digest.hexdigest() != entry.sha256:
            raise _Damaged
        self._sound[entry.sha256] = seen

    def _give_back(self, partial: PartialFile) -> None:
        self._reserved -= partial.reserved
        partial.reserved = 0

    def _remove(self, blobs: list[str]) -> None:
        for sha256 in [] if self._is_closed else blobs:
            self._sound.pop(sha256, None)
            try:
                name = self._directory.set_aside(sha256)
            except OSError as error:
                _log.warning("cached blob not removed", sha256=sha256, error=str(error))
            else:
                self._tell(self._directory.remove, name)

    def _note(self, line: bytes) -> None:
        self._tell(self._directory.append_journal, line)
        self._lines += 1
        if self._lines > len(self._index) + _SPARE_LINES:
            self._lines = 0
            self._tell(self._directory.rewrite_journal, list(self._index.rows()))

    def _tell(
        self, work: Callable[_Parameters, None], *arguments: _Parameters.args, **named: _Parameters.kwargs
    ) -> None:
        if not self._is_closed:
            self._scribe.submit(work, *arguments, **named).add_done_callback(_log_failure)


def _recover(directory: CacheDirectory, limit: int) -> list[Row]:
    """The rows of what is really there, after removing what no row leads to and what is over the limit."""
    index = Index(lambda _line: None)
    index.replay(journal.decode(directory.read_journal()))
    files = directory.blobs()
    for sha256, size in index.blobs().items():
        if files.get(sha256) != size:
            index.discard(sha256)
    while index.bytes > limit:
        index.discard(index.oldest() or "")
    for name in files.keys() - index.blobs().keys():
        directory.remove(directory.set_aside(name))
    _log.info(
        "mirror cache", entries=len(index), bytes=index.bytes, limit=limit, removed=len(files) - len(index.blobs())
    )
    return list(index.rows())


def _hash_piece(digest: "hashlib._Hash", descriptor: int, offset: int) -> int:
    piece = os.pread(descriptor, _HASHED_AT_ONCE_BYTES, offset)
    digest.update(piece)
    return len(piece)


def _log_failure(done: Future[None]) -> None:
    error = done.exception()
    if error is not None:
        _log.error("cache not written", error=str(error))
