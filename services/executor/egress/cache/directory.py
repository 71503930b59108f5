"""The cache's files, relative to one open directory, to which the doors have no path of their own.

`blobs/<sha256>` is complete and never changes; `partial/` holds what is being written or about to be removed, and is
emptied at the start; `journal` says which key leads to which blob.
"""

import fcntl
import io
import itertools
import os
import time
from collections.abc import Iterable
from contextlib import suppress

from services.executor.egress.cache import journal
from services.executor.egress.cache.journal import Row

# A process that was left behind drains for 5 s before it ends.
_LOCK_SECONDS = 8.0
_LOCK_PAUSE_SECONDS = 0.05
_MODE = 0o600
_JOURNAL = "journal"
_NEW_JOURNAL = "journal.new"


class DirectoryInUse(OSError):
    """Another process keeps its cache in this directory."""

    def __str__(self) -> str:
        return "another process uses the cache's directory"


class PartialFile:
    """A file that is to become a blob. `reserved` counts the bytes that are set aside for it."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.reserved = 0
        self._descriptor = descriptor

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset` on."""
        return os.pread(self._descriptor, count, offset)

    def identity(self) -> tuple[int, ...]:
        """What changes when the file does."""
        return identity(self._descriptor)

    def close(self) -> None:
        """Close it; if it has no name any more, its space is free now."""
        os.close(self._descriptor)


class CacheDirectory:
    """The files. Methods raise OSError where the disk refuses."""

    def __init__(self, root: int) -> None:
        """Take over `root`, a descriptor of the directory, lock it and clear away what a killed process left.

        Raises:
            DirectoryInUse: another process has it and keeps it for 8 s.
        """
        self._descriptors = [root]
        self._root = root
        self._journal = -1
        self._numbers = itertools.count()
        try:
            _lock(root)
            self._blobs = self._subdirectory("blobs")
            self._partial = self._subdirectory("partial")
            for name in os.listdir(self._partial):  # noqa: PTH208  # a directory that has no path
                os.unlink(name, dir_fd=self._partial)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every descriptor, and so unlock the directory."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def read_journal(self) -> bytes:
        """All of the journal; empty if there is none."""
        try:
            with _open(_JOURNAL, os.O_RDONLY, self._root) as file:
                return file.readall()
        except FileNotFoundError:
            return b""

    def rewrite_journal(self, rows: Iterable[Row]) -> None:
        """Replace the journal, and append to the new one from now on."""
        with _open(_NEW_JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, self._root) as file:
            buffered = io.BufferedWriter(file)
            buffered.writelines(journal.encode(row) for row in rows)
            buffered.flush()
        os.rename(_NEW_JOURNAL, _JOURNAL, src_dir_fd=self._root, dst_dir_fd=self._root)
        descriptor = os.open(_JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root)
        if self._journal >= 0:
            self._descriptors.remove(self._journal)
            os.close(self._journal)
        self._journal = descriptor
        self._descriptors.append(descriptor)

    def append_journal(self, line: bytes) -> None:
        """Write one line."""
        os.write(self._journal, line)

    def blobs(self) -> dict[str, int]:
        """The size of every blob, by its name."""
        with os.scandir(self._blobs) as entries:
            return {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}

    def open_blob(self, sha256: str) -> io.FileIO:
        """A blob, to be read."""
        return _open(sha256, os.O_RDONLY, self._blobs)

    def create(self) -> PartialFile:
        """A new file, empty."""
        name = self._unused_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return PartialFile(name, os.open(name, flags, _MODE, dir_fd=self._partial))

    def adopt(self, partial: PartialFile, sha256: str) -> None:
        """Make a file the blob of this name, in place of an earlier one."""
        os.rename(partial.name, sha256, src_dir_fd=self._partial, dst_dir_fd=self._blobs)

    def set_aside(self, sha256: str) -> str:
        """Take a blob away at once, under a name by which `remove` removes it in its own time."""
        name = self._unused_name()
        os.rename(sha256, name, src_dir_fd=self._blobs, dst_dir_fd=self._partial)
        return name

    def remove(self, name: str) -> None:
        """Remove a file that never became a blob, or was set aside."""
        os.unlink(name, dir_fd=self._partial)

    def _unused_name(self) -> str:
        return str(next(self._numbers))

    def _subdirectory(self, name: str) -> int:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._root)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self._root)
        self._descriptors.append(descriptor)
        return descriptor


def identity(descriptor: int) -> tuple[int, ...]:
    """What changes whenever somebody changes an open file: inode, size, and when it was changed last."""
    status = os.fstat(descriptor)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _open(name: str, flags: int, directory: int) -> io.FileIO:
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, _MODE, dir_fd=directory)
    return io.FileIO(descriptor, "r" if flags & os.O_ACCMODE == os.O_RDONLY else "w")


def _lock(root: int) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DirectoryInUse from None
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return
