"""Ended processes whose outputs can still be read: so many of a sandbox, and so many bytes."""

from __future__ import annotations

from collections.abc import Iterator

from services.executor.process import Process

MAX_KEPT = 256
# With limits of 1 GiB each, as many outputs would fill most hosts.
MAX_KEPT_BYTES = 4 << 30


class KeptProcesses:
    """They go in the order of their ends: of a long one somebody may still read the last bytes."""

    def __init__(self) -> None:
        self._processes: dict[str, Process] = {}
        self._bytes = 0

    def __iter__(self) -> Iterator[Process]:
        """Those that ended first come first."""
        return iter(self._processes.values())

    def add(self, process: Process) -> None:
        """It has ended; its spool grows no more."""
        self._processes[process.id] = process
        self._bytes += process.spool.kept_bytes

    def surplus(self) -> Process | None:
        """The next that has to go before another process starts; the one that ended last stays."""
        many = len(self._processes) >= MAX_KEPT
        large = len(self._processes) > 1 and self._bytes > MAX_KEPT_BYTES
        return next(iter(self)) if many or large else None

    def discard(self, process: Process) -> None:
        """It goes."""
        if self._processes.pop(process.id, None) is not None:
            self._bytes -= process.spool.kept_bytes
