"""The low-water mark: new work is refused while the host's disk is nearly full, before everything breaks at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.executor.errors import DiskLowError

# Looking costs a system call, which a burst of small uploads need not make each time.
FRESH_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class LowWater:
    """How much must be free: bytes, and a share of the file system; the larger one counts."""

    size: int = 0
    percent: int = 0

    def of(self, total: int) -> int:
        """The mark in bytes on a file system of so many."""
        return max(self.size, total * self.percent // 100)


@dataclass(frozen=True, kw_only=True)
class FileSystem:
    """A host file system as it was seen last. Bytes."""

    path: Path
    free: int
    mark: int


class HostSpace:
    """The file systems that hold workspaces and state."""

    def __init__(
        self,
        paths: Sequence[Path],
        mark: LowWater,
        *,
        look: Callable[[Path], os.statvfs_result] = os.statvfs,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Of paths that share a file system the first is kept."""
        first: dict[int, Path] = {}
        for path in paths:
            first.setdefault(path.stat().st_dev, path)
        self._paths = list(first.values())
        self._mark = mark
        self._look = look
        self._now = now
        self._seen: Sequence[FileSystem] = ()
        self._seen_at = -FRESH_S

    def file_systems(self) -> Sequence[FileSystem]:
        """Each, seen a second ago at most."""
        if self._now() - self._seen_at >= FRESH_S:
            self._seen = [self._see(path) for path in self._paths]
            self._seen_at = self._now()
        return self._seen

    def check(self) -> None:
        """DiskLowError if one has less free than the mark."""
        for system in self.file_systems():
            if system.free < system.mark:
                raise DiskLowError(str(system.path), system.free, system.mark)

    def _see(self, path: Path) -> FileSystem:
        status = self._look(path)
        return FileSystem(
            path=path,
            free=status.f_bavail * status.f_frsize,
            mark=self._mark.of(status.f_blocks * status.f_frsize),
        )


# No file system is looked at.
UNWATCHED: Final = HostSpace((), LowWater())
