"""What the kernel tells of directories: inotify, which Python's library does not have."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from .paths import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

MODIFY = 0x2
ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
OVERFLOW = 0x4000

_ONLY_DIRECTORIES = 0x01000000
_NOT_UNLINKED = 0x04000000
_WANTED = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | _ONLY_DIRECTORIES | _NOT_UNLINKED
_EVENT = struct.Struct("iIII")
_READ_BYTES = 1 << 16
# A program that never stops is not waited for.
_READS = 32
_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """Something happened to `name` in the directory that is watched as `watch`."""

    watch: int
    mask: int
    cookie: int
    name: str


class Inotify:
    """An instance: what is watched, and a queue of events that the kernel bounds.

    Raises:
        CallError: `watch_limit`, if the host gives no further one.
    """

    def __init__(self) -> None:
        try:
            self.descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise CallError("watch_limit", _too_many("fs.inotify.max_user_instances")) from error
            raise

    def add(self, directory: int) -> int:
        """Watch an open directory: itself, whatever its path has become. The same one has the same number.

        Raises:
            CallError: `watch_limit`, if the host watches no more.
            OSError: it may not be read.
        """
        path = f"/proc/self/fd/{directory}".encode()
        try:
            return _checked(_libc.inotify_add_watch(self.descriptor, path, ctypes.c_uint32(_WANTED)))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise CallError("watch_limit", _too_many("fs.inotify.max_user_watches")) from error
            raise

    def remove(self, watch: int) -> None:
        """Watch it no more; one that went by itself is fine."""
        with contextlib.suppress(OSError):
            _checked(_libc.inotify_rm_watch(self.descriptor, watch))

    def read(self) -> Iterator[Event]:
        """The events that are there, or as many as are read at once; those of a directory itself have no name."""
        for _ in range(_READS):
            try:
                data = os.read(self.descriptor, _READ_BYTES)
            except BlockingIOError:
                return
            position = 0
            while position < len(data):
                watch, mask, cookie, length = _EVENT.unpack_from(data, position)
                position += _EVENT.size
                name = data[position : position + length].rstrip(b"\0")
                position += length
                yield Event(watch, mask, cookie, os.fsdecode(name))

    def close(self) -> None:
        """All its watches end."""
        os.close(self.descriptor)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _too_many(setting: str) -> str:
    return (
        f"the host watches no more directories: end other watches, watch a part of the tree, or have {setting} raised"
    )
