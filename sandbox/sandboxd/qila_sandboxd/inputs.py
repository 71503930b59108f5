"""What the executor sent for a program's standard input and the program has not taken yet."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .loop import WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

MAXIMUM_WAITING = 1 << 20
# With more inputs than this open at a time, each further one may have only so much waiting.
ROOMY_INPUTS = 16
CRAMPED_WAITING = 1 << 16
# More room is told in steps, the first byte as the last one.
_STEP = 1 << 15
_WRITE_BYTES = 1 << 16


class Input:
    """The writing end of a program's input. Offsets count from its first byte.

    Args:
        loop: where the descriptor is watched while the program does not take all.
        descriptor: does not block; belongs to the input.
        maximum: how many bytes may wait.
        moved: called when the program took some.
        hangs_up: whether the end of the input closes the descriptor; on a terminal it ends nothing.
    """

    def __init__(self, loop: Loop, descriptor: int, maximum: int, moved: Callable[[], None], *, hangs_up: bool) -> None:
        self._loop = loop
        self._descriptor: int | None = descriptor
        self._maximum = maximum
        self._moved = moved
        self._hangs_up = hangs_up
        self._waiting = bytearray()
        self._told: tuple[int, int, bool] | None = None
        self.accepted = 0
        self.ended = False

    @property
    def window(self) -> int:
        """Up to where the executor may send."""
        return self.accepted - len(self._waiting) + self._maximum

    def receive(self, offset: int, data: bytes, *, end: bool) -> None:
        """Take bytes, of which those that are known are passed over, and the end if it is.

        Raises:
            ValueError: bytes are missing before these, there is no room for them, or they come after the end.
        """
        last = offset + len(data)
        if offset > self.accepted or last > self.window or (self.ended and last > self.accepted):
            raise ValueError(f"input from {offset} to {last}: {self.accepted} came, and room is up to {self.window}")
        fresh = data[self.accepted - offset :]
        self.accepted += len(fresh)
        self.ended = self.ended or end
        # Each frame is answered, whatever it brought.
        self._told = None
        if self._descriptor is not None:
            self._waiting += fresh
            self._write()

    def news(self) -> dict[str, int | bool] | None:
        """What the executor is to be told now; None if there is nothing new."""
        now = (self.accepted, self.window, self.ended)
        told = self._told
        if told is not None and told[0] == now[0] and told[2] == now[2] and now[1] < told[1] + _STEP:
            return None
        self._told = now
        return self.state()

    def state(self) -> dict[str, int | bool]:
        """What there is to tell."""
        return {"accepted": self.accepted, "window": self.window, "ended": self.ended}

    def tell_again(self) -> None:
        """Whoever was told has forgotten."""
        self._told = None

    def close(self) -> None:
        """Nobody reads any more: what waits, and what comes, is dropped."""
        self._waiting.clear()
        if self._descriptor is not None:
            self._loop.unwatch(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self) -> None:
        while self._waiting and self._descriptor is not None:
            try:
                with memoryview(self._waiting) as view:
                    count = os.write(self._descriptor, view[:_WRITE_BYTES])
            except BlockingIOError:
                self._loop.watch(self._descriptor, WRITE, self._on_room)
                return
            except OSError:
                # The program has closed it, which is no failure of the program's.
                self.close()
                return
            del self._waiting[:count]
            self._moved()
        if self._descriptor is None:
            return
        if self.ended and self._hangs_up:
            self.close()
        else:
            self._loop.unwatch(self._descriptor)

    def _on_room(self, _events: int) -> None:
        self._write()
        self._moved()
