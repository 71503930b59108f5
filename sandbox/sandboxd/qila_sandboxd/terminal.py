"""A program's terminal: a pair of the container's own /dev/pts, whose slave belongs to the program's user."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios

from . import linux

_SIZE = struct.Struct("4H")
_NUMBER = struct.Struct("i")
# Not in the library. They unlock the slave, open it without looking for its name, and tell whose session it leads.
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_TIOCGSID = 0x5429
_OWN_FLAGS = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC


class Terminal:
    """A terminal, as wide and high as was asked for.

    `reader` belongs to whoever reads the output, `slave` is for the program. We hold it too until the leader has ended:
    a program that closed its terminal and opens it again has not reached the end of its output.

    Raises:
        OSError: no terminal is left.
    """

    def __init__(self, user: int, rows: int, columns: int) -> None:
        with contextlib.ExitStack() as failed:
            with linux.files_of(user):
                self.reader = _kept(failed, os.open("/dev/ptmx", _OWN_FLAGS | os.O_NONBLOCK))
            fcntl.ioctl(self.reader, _TIOCSPTLCK, _NUMBER.pack(0))
            self.slave = _kept(failed, fcntl.ioctl(self.reader, _TIOCGPTPEER, _OWN_FLAGS))
            # Input is watched apart from output; the two share the flags.
            self.writer = _kept(failed, os.dup(self.reader))
            self.resize(rows, columns)
            failed.pop_all()

    def resize(self, rows: int, columns: int) -> None:
        """Set the size; the kernel tells the group in the foreground."""
        fcntl.ioctl(self.writer, termios.TIOCSWINSZ, _SIZE.pack(rows, columns, 0, 0))

    def close_slave(self) -> None:
        """The leader has ended: the output ends with its last child."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1

    def close(self) -> None:
        """There is no program."""
        self.close_slave()
        os.close(self.reader)
        os.close(self.writer)

    def foreground(self) -> tuple[int, int]:
        """Return the group in the foreground and the session that the terminal leads; zeros if there is none."""
        try:
            group = os.tcgetpgrp(self.writer)
            (session,) = _NUMBER.unpack(fcntl.ioctl(self.writer, _TIOCGSID, bytes(_NUMBER.size)))
        except OSError:
            return 0, 0
        return group, session


def _kept(failed: contextlib.ExitStack, descriptor: int) -> int:
    failed.callback(os.close, descriptor)
    return descriptor
