"""The clock of a program that may not be idle for long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop, Timer


class IdleClock:
    """Calls `expired` once nothing has moved for so many seconds; 0 for never.

    Time during which `is_held` does not count: the program waits for the executor then.
    """

    def __init__(self, loop: Loop, seconds: float, is_held: Callable[[], bool], expired: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._is_held = is_held
        self._expired = expired
        self._last = time.monotonic()
        self._timer: Timer | None = loop.later(seconds, self._look) if seconds else None

    def move(self) -> None:
        """Something moved. Costs little: the timer looks when it is due."""
        self._last = time.monotonic()

    def stop(self) -> None:
        """It does not matter any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._is_held():
            self.move()
        left = self._last + self._seconds - time.monotonic()
        if left > 0:
            self._timer = self._loop.later(left, self._look)
        else:
            self._timer = None
            self._expired()
