"""Breaks off a stream that says nothing any more: a connection can be lost without a word."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Three heartbeats of the gateway.
SILENCE_SECONDS: Final = 45.0


class SilenceWatch:
    """Calls `break_off` when nothing was heard for so many seconds, from a thread between `start` and `stop`."""

    def __init__(self, seconds: float, break_off: Callable[[], None]) -> None:
        self._seconds = seconds
        self._break_off = break_off
        self._heard = time.monotonic()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def heard(self) -> None:
        """Something came."""
        self._heard = time.monotonic()

    def start(self) -> None:
        """From now on the gateway is known to tell heartbeats. A repeat does nothing, unless it was stopped."""
        if self._thread is None or self._stopped.is_set():
            self._stopped = threading.Event()
            self._thread = threading.Thread(target=self._look, args=[self._stopped], name="qila-silence", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Nothing more is expected."""
        self._stopped.set()

    def _look(self, stopped: threading.Event) -> None:
        while not stopped.wait(max(self._heard + self._seconds - time.monotonic(), 0.01)):
            if time.monotonic() - self._heard >= self._seconds:
                self._break_off()
                # The next connection has its own time.
                self.heard()
