"""Surveys of the workspace: each a program of its own, `survey.c`, that answers as the children of other calls do."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass

from . import linux
from .paths import WORKSPACE

_PROGRAM = "/usr/lib/qila/survey"


@dataclass(frozen=True)
class Survey:
    """A survey that waits for its order, or answers."""

    process: int
    connection: socket.socket

    @property
    def has_ended(self) -> bool:
        """Whether somebody killed it while it waited."""
        try:
            return not self.connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return False

    def start(self, known_digest: str) -> None:
        """Have it look; if it is gone, that is what will be read from it."""
        with contextlib.suppress(ConnectionError):
            self.connection.sendall(f"{known_digest}\n".encode())


class Surveys:
    """Where surveys come from. One may be made ahead."""

    def __init__(self) -> None:
        self._spare: Survey | None = None

    def prepare(self) -> None:
        """Have one ready, unless there is one; whatever is in the way is told by `start`."""
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = _spawn()

    def start(self, known_digest: str) -> Survey:
        """Start a survey that leaves out the rows if their digest is the known one.

        Raises:
            OSError: no process is left (EAGAIN, at the container's limit) or no memory.
        """
        survey, self._spare = self._spare, None
        if survey is not None and survey.has_ended:
            survey.connection.close()
            survey = None
        survey = survey or _spawn()
        survey.start(known_digest)
        return survey


def _spawn() -> Survey:
    ours, theirs = socket.socketpair()
    arguments = [_PROGRAM, str(linux.PROGRAM_USER), WORKSPACE]
    with theirs, contextlib.ExitStack() as failed:
        failed.callback(ours.close)
        process = os.posix_spawn(_PROGRAM, arguments, {}, file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)])
        failed.pop_all()
    return Survey(process, ours)
