"""The spool: a process's output on disk, so that whoever watches can come back and read the very same bytes.

Up to the limit all streams are kept whole, one file each. Beyond it bytes are counted and dropped, but for a tail of
each stream that is written when the process ends. In which order the streams' bytes came is kept in memory only: after
a restart of the executor a new watcher gets what is older as stdout first, then stderr.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.executor.agent.frames import Header, as_count, mapping_field
from services.executor.errors import ProtocolError

STREAMS = ("stdout", "stderr", "terminal")
TAIL_BYTES = 64 << 10
CHUNK_BYTES = 64 << 10
# A program that alternates its streams byte by byte would make a list as long as its output.
MAX_RUNS = 50_000


@dataclass(kw_only=True)
class Cursor:
    """Where a watcher is: the next byte wanted of each stream."""

    position: dict[str, int]
    run: int = 0


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Bytes of one stream at their offset."""

    stream: str
    offset: int
    data: bytes


@dataclass
class _Run:
    stream: str
    start: int
    end: int


@dataclass
class _Half:
    """One stream: its file, how much of it is on disk, how much came, and the end of what was dropped."""

    descriptor: int = -1
    stored: int = 0
    received: int = 0
    tail: bytearray = field(default_factory=bytearray)


class Spool:
    """The output of one process. Not safe for use from several threads."""

    def __init__(self, directory: Path, limit: int) -> None:
        """Opens the spool in a directory, which is not there yet or holds what an earlier executor stored. Bytes.

        Directory and files are made with the first byte: most processes are quiet, and making files is what costs.
        """
        self._directory = directory
        self._limit = limit
        self._runs: list[_Run] = []
        self._collapsed = False
        self._halves = {stream: _Half() for stream in STREAMS}
        if directory.exists():
            self._recover()

    def _recover(self) -> None:
        directory = self._directory
        for stream, half in self._halves.items():
            if (directory / stream).exists():
                half.stored = half.received = (directory / stream).stat().st_size
                self._runs.append(_Run(stream, 0, half.stored))
            for path in directory.glob(f"{stream}.tail.*"):
                half.tail = bytearray(path.read_bytes())
                half.received = int(path.suffix[1:]) + len(half.tail)

    @property
    def received(self) -> dict[str, int]:
        """Bytes of each stream that came, dropped ones included."""
        return {stream: half.received for stream, half in self._halves.items()}

    @property
    def dropped(self) -> int:
        """Bytes that nobody can read any more."""
        return sum(half.received - half.stored - len(half.tail) for half in self._halves.values())

    @property
    def kept_bytes(self) -> int:
        """Bytes on disk, once the process has ended."""
        return sum(half.stored + len(half.tail) for half in self._halves.values())

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return sum(half.stored for half in self._halves.values()) >= self._limit

    def resume(self, held: Mapping[str, int]) -> dict[str, int]:
        """From where sandboxd, which holds each stream from an offset on, is to send again.

        Bytes beyond the limit may have come to an earlier executor, which kept none of them.
        """
        if not self.is_full:
            return self.received
        return {stream: max(count, held.get(stream, 0)) for stream, count in self.received.items()}

    def append(self, stream: str, offset: int, data: bytes) -> None:
        """Stores bytes; those that are here already are passed over. ProtocolError on a hole below the limit.

        OSError if they cannot be stored: then they have not come, and are to be sent again.
        """
        half = self._halves.get(stream)
        if half is None:
            raise ProtocolError("output of an unknown stream")
        if offset > half.received:
            # After a restart the bytes beyond the limit are gone; below it a hole would be a lie.
            if not self.is_full:
                raise ProtocolError(f"a hole in {stream} at {half.received}")
            half.received = offset
            half.tail.clear()
        data = data[half.received - offset :]
        rest = data
        if half.stored == half.received:
            room = self._limit - sum(other.stored for other in self._halves.values())
            rest = self._store(stream, half, data, max(room, 0))
        half.received += len(data)
        if rest:
            half.tail += rest
            del half.tail[:-TAIL_BYTES]

    def finish(self, lengths: dict[str, int]) -> None:
        """The process has ended: takes the streams' lengths as final, stores the tails, lets go of the files."""
        for stream, half in self._halves.items():
            if lengths[stream] > half.received:
                half.received = lengths[stream]
                half.tail.clear()
            if half.tail:
                self._directory.mkdir(parents=True, exist_ok=True)
                path = self._directory / f"{stream}.tail.{half.received - len(half.tail)}"
                path.write_bytes(half.tail)
        self.close()

    def read(self, cursor: Cursor, *, ended: bool) -> Chunk | None:
        """The next chunk for a watcher, whose cursor moves; None if there is none now. Tails come after the end."""
        if self._collapsed:
            cursor.run = 0
        while cursor.run < len(self._runs):
            run = self._runs[cursor.run]
            position = max(cursor.position[run.stream], run.start)
            if position < run.end:
                data = self._load(run.stream, min(CHUNK_BYTES, run.end - position), position)
                cursor.position[run.stream] = position + len(data)
                return Chunk(stream=run.stream, offset=position, data=data)
            if cursor.run == len(self._runs) - 1:
                break
            cursor.run += 1
        return self._read_tail(cursor) if ended else None

    def close(self) -> None:
        """Closes the files; what was stored can still be read, at the price of opening them each time."""
        for half in self._halves.values():
            if half.descriptor >= 0:
                os.close(half.descriptor)
                half.descriptor = -1

    def _load(self, stream: str, size: int, position: int) -> bytes:
        descriptor = self._halves[stream].descriptor
        if descriptor >= 0:
            return os.pread(descriptor, size, position)
        with (self._directory / stream).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), size, position)

    def _open(self, stream: str) -> int:
        self._directory.mkdir(parents=True, exist_ok=True)
        return os.open(self._directory / stream, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _store(self, stream: str, half: _Half, data: bytes, room: int) -> bytes:
        """Writes what there is room for and returns the rest."""
        kept = memoryview(data)[:room]
        if kept and half.descriptor < 0:
            half.descriptor = self._open(stream)
        written = 0
        while written < len(kept):
            written += os.pwrite(half.descriptor, kept[written:], half.stored + written)
        if kept:
            self._extend(stream, half.stored, half.stored + len(kept))
            half.stored += len(kept)
        return data[room:]

    def _extend(self, stream: str, start: int, end: int) -> None:
        if self._runs and self._runs[-1].stream == stream and not self._collapsed:
            self._runs[-1].end = end
            return
        if len(self._runs) >= MAX_RUNS:
            self._collapsed = True
            self._runs = [_Run(name, 0, half.stored) for name, half in self._halves.items()]
        if not self._collapsed:
            self._runs.append(_Run(stream, start, end))
            return
        next(run for run in self._runs if run.stream == stream).end = end

    def _read_tail(self, cursor: Cursor) -> Chunk | None:
        for stream, half in self._halves.items():
            start = max(cursor.position[stream], half.received - len(half.tail))
            if half.tail and start < half.received:
                data = bytes(half.tail[start - half.received :])
                cursor.position[stream] = half.received
                return Chunk(stream=stream, offset=start, data=data)
        return None


def held_of(row: Header) -> Mapping[str, int]:
    """From where on sandboxd holds each stream, by its row of a process; an older one tells only up to where."""
    name = "held" if "held" in row else "offsets"
    held = mapping_field(row, name) if name in row else {}
    return {stream: as_count(offset, stream) for stream, offset in held.items()}
