"""What a program reads and writes, seen from our end: pipes, or a terminal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .inputs import Input
from .terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop
    from .supervisors import Order, Supervisor


class Ends:
    """Our ends, and the one that a supervisor hands to its program, if it is to have more than two pipes.

    Raises:
        OSError: no terminal or no descriptor is left.
    """

    def __init__(self, order: Order, maximum_waiting: int) -> None:
        self._maximum_waiting = maximum_waiting
        self._writer: int | None = None
        self.terminal: Terminal | None = None
        self.theirs: int | None = None
        if order.size is not None:
            self.terminal = Terminal(order.user, *order.size)
            self.theirs, self._writer = self.terminal.slave, self.terminal.writer
        elif order.stdin:
            self.theirs, self._writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._writer, False)

    def readers(self, supervisor: Supervisor) -> dict[str, int]:
        """Where the output comes from, by stream."""
        if self.terminal is None:
            return dict(zip(("stdout", "stderr"), supervisor.readers, strict=True))
        supervisor.close_readers()
        return {"terminal": self.terminal.reader}

    def open_input(self, loop: Loop, moved: Callable[[], None]) -> Input | None:
        """The program's input, unless it has none."""
        if self._writer is None:
            return None
        return Input(loop, self._writer, self._maximum_waiting, moved, hangs_up=self.terminal is None)

    def handed_over(self) -> None:
        """The supervisor has its end."""
        if self.theirs is not None and self.terminal is None:
            os.close(self.theirs)
            self.theirs = None

    def close(self) -> None:
        """There is no program after all."""
        self.handed_over()
        if self.terminal is not None:
            self.terminal.close()
        elif self._writer is not None:
            os.close(self._writer)
