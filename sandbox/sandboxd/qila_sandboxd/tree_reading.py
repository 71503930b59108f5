"""Whole trees that go out: the archive is the same as long as the tree is, so it can be read from any offset."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .frames import MAXIMUM_PAYLOAD
from .listing import MAXIMUM_DEPTH, NOT_ENTERED, is_executable, walk
from .paths import CallError, checked, from_os_error
from .tar_members import MAXIMUM_MEMBERS, is_inside

if TYPE_CHECKING:
    from .answers import Answers
    from .frames import Header

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A member of the archive to be, and the state that it was seen in."""

    path: str
    status: os.stat_result
    target: str

    @property
    def state(self) -> tuple[int, ...]:
        """What differs when it was changed."""
        return state_of(self.status)

    @property
    def size(self) -> int:
        """How many bytes follow its header, before they are padded."""
        return self.status.st_size if stat.S_ISREG(self.status.st_mode) else 0

    def header(self) -> bytes:
        """All of its headers, the same each time."""
        info = tarfile.TarInfo(self.path)
        info.type = tarfile.REGTYPE
        if stat.S_ISDIR(self.status.st_mode):
            info.type = tarfile.DIRTYPE
        elif self.target:
            info.type = tarfile.SYMTYPE
        info.mode = 0o755 if info.type == tarfile.DIRTYPE or is_executable(self.status) else 0o644
        info.size = self.size
        info.mtime = max(0, int(self.status.st_mtime))
        info.linkname = self.target
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def state_of(status: os.stat_result) -> tuple[int, ...]:
    """What differs when a file was changed."""
    return (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def read_tree(answers: Answers, root: str, call: Header) -> Header:
    """Send what lies below a directory, from an offset of the archive on."""
    top = f"{root}/{checked(call['path'])}" if call["path"] else root
    entries, skipped = _entries(top, is_workspace=not call["path"])
    etag = _etag(entries)
    if call["etag"] not in {"", etag}:
        raise _changed(call["path"])
    size = sum(len(entry.header()) + _padded(entry.size) for entry in entries) + len(_END)
    if call["offset"] > size:
        raise CallError("out_of_range", f"offset {call['offset']} is beyond the end at {size}")
    answers.data({"etag": etag, "size": size, "entry_count": len(entries), "skipped_count": skipped})
    sender = _Sender(answers, call["offset"])
    for entry in entries:
        sender.send(entry.header())
        if sender.skip(_padded(entry.size)):
            continue
        _send_file(sender, top, entry)
    sender.send(_END)
    return sender.finish()


def _entries(top: str, *, is_workspace: bool) -> tuple[list[Entry], int]:
    entries: list[Entry] = []
    skipped = 0
    keep_out = NOT_ENTERED if is_workspace else frozenset()
    for path in walk(top, depth=MAXIMUM_DEPTH, keep_out=keep_out):
        if path in keep_out:
            continue
        entry = _entry(top, path)
        if entry is None:
            skipped += 1
            continue
        entries.append(entry)
        if len(entries) > MAXIMUM_MEMBERS:
            raise CallError("too_large", f"more than {MAXIMUM_MEMBERS} files and directories; take a part of the tree")
    return entries, skipped


def _entry(top: str, path: str) -> Entry | None:
    """None for what no archive of ours holds: devices, FIFOs, sockets, links out of the tree, names not in UTF-8."""
    try:
        path.encode()
        status = os.lstat(f"{top}/{path}")
        target = os.readlink(f"{top}/{path}") if stat.S_ISLNK(status.st_mode) else ""  # noqa: PTH115 - a text
        target.encode()
    except (UnicodeEncodeError, OSError):
        return None
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or (target and is_inside(path, target)):
        return Entry(path=path, status=status, target=target)
    return None


def _etag(entries: list[Entry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        # Of a directory only that it is there: what lies in it has rows of its own.
        state = entry.state[:1] if stat.S_ISDIR(entry.status.st_mode) else entry.state
        digest.update(json.dumps([entry.path, state, entry.target]).encode())
    return digest.hexdigest()


def _padded(size: int) -> int:
    return size + -size % _BLOCK


def _changed(path: str) -> CallError:
    return CallError("tree_changed", f"{path or 'the workspace'}: changed during the download; begin again")


class _Sender:
    """Sends from an offset on, in full frames."""

    def __init__(self, answers: Answers, offset: int) -> None:
        self._answers = answers
        self._to_skip = offset
        self._pending = bytearray()
        self._digest = hashlib.sha256()
        self._size = 0

    def skip(self, size: int) -> bool:
        """Whether so many bytes lie wholly before the offset, and need not be made."""
        if size > self._to_skip:
            return False
        self._to_skip -= size
        return True

    def send(self, data: bytes) -> None:
        skipped = min(self._to_skip, len(data))
        self._to_skip -= skipped
        self._pending += data[skipped:]
        while len(self._pending) >= MAXIMUM_PAYLOAD:
            self._flush()

    def finish(self) -> Header:
        if self._pending:
            self._flush()
        return {"size": self._size, "sha256": self._digest.hexdigest()}

    def _flush(self) -> None:
        data = bytes(self._pending[:MAXIMUM_PAYLOAD])
        del self._pending[:MAXIMUM_PAYLOAD]
        self._digest.update(data)
        self._size += len(data)
        self._answers.data({}, data)


def _send_file(sender: _Sender, top: str, entry: Entry) -> None:
    try:
        descriptor = os.open(f"{top}/{entry.path}", _OPEN)
    except PermissionError as error:
        raise from_os_error(error, entry.path) from error
    except OSError as error:
        raise _changed(entry.path) from error
    try:
        if state_of(os.fstat(descriptor)) != entry.state:
            raise _changed(entry.path)
        remaining = entry.size
        while remaining and (data := os.read(descriptor, min(MAXIMUM_PAYLOAD, remaining))):
            remaining -= len(data)
            sender.send(data)
        if remaining or state_of(os.fstat(descriptor)) != entry.state:
            raise _changed(entry.path)
    finally:
        os.close(descriptor)
    sender.send(bytes(-entry.size % _BLOCK))
