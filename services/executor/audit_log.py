"""The egress records of one sandbox on disk: JSON lines in a few files, of which the oldest goes when they are full.

A line reaches the kernel in one write before anybody is told, which is what survives `kill -9`; a line that was torn is
the last one, of which nobody was told. A file is named by the sequence of its first line.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from services.executor.egress.records import EgressRecord, InvalidRecord

FILE_BYTES = 2 << 20
FILES = 4
# A line is at most 100 KB or so: four texts of 2,048 characters, each at most twelve bytes of JSON.
_BLOCK_BYTES = 256 << 10

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A record with its place in the sandbox's sequence (from 1), its time (ISO 8601), and the exec that asked."""

    sequence: int
    time: str
    exec_id: str
    record: EgressRecord


class AuditLog:
    """What is kept of one sandbox. Opening it mends what a killed executor left behind."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1
        self._size = 0
        self.last_sequence = 0
        firsts = self.firsts()
        if firsts:
            self._recover(firsts[-1])

    def firsts(self) -> Sequence[int]:
        """The files, by their first sequence, oldest first."""
        try:
            return sorted(int(path.stem) for path in self._directory.glob("*.jsonl"))
        except FileNotFoundError:
            return []

    def path(self, first: int) -> Path:
        """Where the file is."""
        return self._directory / f"{first:020}.jsonl"

    def append(self, *, time: str, exec_id: str, record: EgressRecord) -> Entry:
        """Adds a record.

        Raises:
            OSError: it could not be kept; its sequence is not used again, so that the gap tells.
        """
        self.last_sequence += 1
        entry = Entry(sequence=self.last_sequence, time=time, exec_id=exec_id, record=record)
        line = _line(entry)
        if self._descriptor >= 0 and self._size + len(line) > FILE_BYTES:
            self.close()
        if self._descriptor < 0:
            self._begin_file(entry.sequence)
        written = os.write(self._descriptor, line)
        if written != len(line):
            # The next line must not go on with this one.
            os.ftruncate(self._descriptor, self._size)
            raise OSError(errno.ENOSPC, "no space for an egress record")
        self._size += len(line)
        return entry

    def close(self) -> None:
        """Closes the file; a later record begins another one."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin_file(self, first: int) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in self.firsts()[: -(FILES - 1)]:
            self.path(old).unlink()
        self._open(first)

    def _open(self, first: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self.path(first), flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _recover(self, first: int) -> None:
        content = self.path(first).read_bytes()
        whole, newline, _ = content.rpartition(b"\n")
        os.truncate(self.path(first), len(whole) + len(newline))
        readable = (entry.sequence for line in reversed(whole.split(b"\n")) if line and (entry := _entry(line)))
        self.last_sequence = next(readable, first - 1)
        self._open(first)


class AuditReader:
    """Goes through a log at its own pace, from after a sequence; holds one open file, and nothing that it has read."""

    def __init__(self, audit_log: AuditLog, after: int) -> None:
        self._log = audit_log
        self._after = after
        self._first = 0
        self._descriptor = -1
        self._offset = 0

    def read(self) -> Sequence[Entry]:
        """The next entries, some 256 KiB of them at most; none if there is nothing more yet."""
        while True:
            data = os.pread(self._descriptor, _BLOCK_BYTES, self._offset) if self._descriptor >= 0 else b""
            whole = data[: data.rfind(b"\n") + 1]
            self._offset += len(whole)
            entries = [entry for line in whole.splitlines() if (entry := _entry(line)) and entry.sequence > self._after]
            if entries:
                self._after = entries[-1].sequence
                return entries
            # A file to which another one has followed gets no more lines.
            if not whole and not self._turn():
                return []

    def close(self) -> None:
        """Lets go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _turn(self) -> bool:
        """Opens the next file; at first, the one in which the next sequence may be."""
        later = [first for first in self._log.firsts() if first > self._first]
        if not later:
            return False
        if not self._first:
            later = [first for first in later if first <= self._after + 1][-1:] or later
        self.close()
        self._first, self._offset = later[0], 0
        self._descriptor = os.open(self._log.path(self._first), os.O_RDONLY | os.O_CLOEXEC)
        return True


def _line(entry: Entry) -> bytes:
    row = {"sequence": entry.sequence, "time": entry.time, "exec": entry.exec_id, **entry.record.to_message()}
    return json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n"


def _entry(line: bytes) -> Entry | None:
    try:
        row: Mapping[str, Any] = json.loads(line)
        return Entry(
            sequence=int(row["sequence"]),
            time=str(row["time"]),
            exec_id=str(row["exec"]),
            record=EgressRecord.from_message(dict(row)),
        )
    except (ValueError, KeyError, TypeError, InvalidRecord) as error:
        log.warning("an egress record on disk cannot be read", error=repr(error))
        return None
