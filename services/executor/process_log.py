"""The process log: one line for each spec, start, end and removal, so that a later executor knows what an earlier did.

A line reaches the kernel in one write before anybody is told, which is what survives `kill -9`; a line that was torn
is the last one, of which nobody was told.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Lines that say nothing any more are dropped when there are this many lines for each process that is kept.
LINES_PER_PROCESS = 8
MIN_LINES = 1024


class ProcessLog:
    """The log of one sandbox; opened with the first line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._lines = 0

    @property
    def exists(self) -> bool:
        """Whether there is a file: an executor wrote to it, perhaps not to the end."""
        return self._path.exists()

    def read(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """What was written: process id, "spec", "started", "ended" or "removed", and its fields."""
        if not self._path.exists():
            return
        for line in self._path.read_bytes().split(b"\n")[:-1]:
            self._lines += 1
            row = json.loads(line)
            yield row["process"], row["what"], row["fields"]

    def write(self, process_id: str, what: str, fields: Mapping[str, Any]) -> None:
        """Adds a line, whole or, with an OSError, not at all."""
        if self._descriptor < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        line = _line(process_id, what, fields)
        before = os.fstat(self._descriptor).st_size
        if os.write(self._descriptor, line) < len(line):
            # A torn line may be the last one only.
            os.ftruncate(self._descriptor, before)
            raise OSError(errno.ENOSPC, "no room for a whole line", str(self._path))
        self._lines += 1

    def is_long(self, processes: int) -> bool:
        """Whether most lines say nothing any more."""
        return self._lines > max(MIN_LINES, LINES_PER_PROCESS * processes)

    def rewrite(self, rows: Iterator[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Replaces all lines, atomically. Also what a torn last line needs before another one follows it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = [_line(*row) for row in rows]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_bytes(b"".join(lines))
        temporary.rename(self._path)
        self.close()
        self._lines = len(lines)

    def close(self) -> None:
        """Closes the file; a later line opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _line(process_id: str, what: str, fields: Mapping[str, Any]) -> bytes:
    row = {"process": process_id, "what": what, "fields": fields}
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"
