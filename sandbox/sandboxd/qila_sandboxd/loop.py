"""The first process's event loop: descriptors and timers, one thread."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Timer:
    """A call that will be made once, unless it is cancelled."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call; harmless when it was called already."""
        self._callback = None

    def fire(self) -> None:
        """Make the call."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Loop:
    """Calls back when a descriptor is ready or a timer is due."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def watch(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(ready events)` whenever one of `events` is there, instead of what was watched before."""
        entry = (events, callback)
        before = self._watched.get(descriptor)
        if before == entry:
            return
        if before is not None:
            self._selector.modify(descriptor, events, entry)
        else:
            self._selector.register(descriptor, events, entry)
        self._watched[descriptor] = entry

    def unwatch(self, descriptor: int) -> None:
        """Stop watching; harmless when it was not watched. Must come before the descriptor is closed."""
        if self._watched.pop(descriptor, None) is not None:
            self._selector.unregister(descriptor)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` in `seconds`."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def run_once(self) -> None:
        """Wait for the next events or the next timer, and make the calls that are due."""
        wait = None if not self._timers else max(0.0, self._timers[0][0] - time.monotonic())
        for key, events in self._selector.select(wait):
            # An earlier call of this round may have closed the descriptor, and its number may be in use again.
            entry = self._watched.get(key.fd)
            if entry is not None and entry is key.data:
                entry[1](events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2].fire()
