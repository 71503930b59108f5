"""What has come of a download so far: in a file that is to be cached, or in a little memory where there is none."""

import hashlib
from collections import deque

import structlog

from services.executor.egress.cache.port import Cache, Entry
from services.executor.egress.ecosystems.port import Digest
from services.executor.egress.workers import Workers

_log = structlog.get_logger()

# More than a download holds back together with one piece, or nobody could go on.
_MEMORY_BYTES = 2 * 1024**2


class Spool:
    """Bytes that are appended once and read by several, each at its own pace.

    In a file all of them stay. Once the disk refuses, or no room can be made, what follows is held in memory until
    everybody has read it: then the slowest reader holds up the rest.
    """

    def __init__(self, *, cache: Cache, workers: Workers, digest: Digest | None) -> None:
        self._cache = cache
        self._workers = workers
        self._file = cache.begin()
        self._is_filing = self._file is not None
        self._filed = 0
        self._memory: deque[bytes] = deque()
        self._memory_start = 0
        self._sha256 = hashlib.sha256()
        self._other = hashlib.new(digest.algorithm) if digest is not None and digest.algorithm != "sha256" else None
        self.size = 0

    @property
    def is_joinable(self) -> bool:
        """Whether somebody new could still read all of it, at a pace of its own."""
        return self._is_filing

    @property
    def is_full(self) -> bool:
        """Whether memory holds as much as it may."""
        return bool(self._memory) and self.size - self._memory_start >= _MEMORY_BYTES

    @property
    def sha256(self) -> str:
        """Of everything so far, hex."""
        return self._sha256.hexdigest()

    def matches(self, digest: Digest) -> bool:
        """Whether everything so far hashes to the digest that was announced."""
        return (self._other or self._sha256).hexdigest() == digest.hex

    def expect(self, size: int) -> None:
        """Begin no file that cannot be kept."""
        if self._is_filing and not self._cache.fits(size):
            self._leave_file("larger than the cache")

    async def append(self, piece: bytes) -> None:
        """Take in what comes next."""
        if self._is_filing and not self._has_room(len(piece)):
            self._leave_file("no room")
        try:
            await self._workers.run(self._take, piece)
        except OSError as error:
            self._leave_file(str(error))
        if self._is_filing:
            self._filed += len(piece)
        else:
            self._memory.append(piece)
        self.size += len(piece)

    async def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes at `offset`, which must be below `size` and not forgotten; OSError: the disk fails."""
        if offset < self._filed:
            assert self._file is not None
            return await self._workers.run(self._file.read, offset, min(count, self._filed - offset))
        start = self._memory_start
        for piece in self._memory:
            if offset < start + len(piece):
                return piece[offset - start : offset - start + count]
            start += len(piece)
        raise IndexError(offset)

    def forget_before(self, offset: int) -> None:
        """Let go of what is in memory and nobody will read any more."""
        while self._memory and self._memory_start + len(self._memory[0]) <= offset:
            self._memory_start += len(self._memory.popleft())

    def commit(self, entry: Entry) -> None:
        """Keep it all in the cache, if it is all in the file."""
        if self._is_filing:
            assert self._file is not None
            self._is_filing = False
            self._cache.commit(self._file, entry)

    def close(self) -> None:
        """Nobody reads or appends any more. Closing again does nothing."""
        file, self._file = self._file, None
        if file is not None:
            if self._is_filing:
                self._cache.abandon(file)
            self._cache.release(file)

    def _has_room(self, count: int) -> bool:
        assert self._file is not None
        return self._cache.make_room(self._file, count)

    def _leave_file(self, reason: str) -> None:
        assert self._file is not None
        _log.error("download not cached", bytes=self.size, reason=reason)
        self._is_filing = False
        self._memory_start = self._filed
        self._cache.abandon(self._file)

    def _take(self, piece: bytes) -> None:
        self._sha256.update(piece)
        if self._other is not None:
            self._other.update(piece)
        if self._is_filing:
            assert self._file is not None
            self._file.append(piece)
