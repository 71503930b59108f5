"""Tells a watcher that there is nothing to tell."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Final, TypeVar

from services.gateway.journal import Bell

Item = TypeVar("Item")
SILENCE_SECONDS: Final = 15.0
# Of up to 64 KiB each, for every watcher that reads a spool.
_ITEMS_AHEAD: Final = 2


class Pulse:
    """The silence of one watcher. Its timer runs once in a silence's time, however much is told meanwhile.

    Attributes:
        is_due: nothing was told for so long that this must be.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._bell = Bell()
        self._waiter: asyncio.Future[None] = self._loop.create_future()
        self.is_due = False

    def told(self) -> None:
        """Something is told now."""
        self._told = self._loop.time()
        self.is_due = False

    def wait(self, bell: Bell) -> Awaitable[None]:
        """Until the next ring, or until a heartbeat is due."""
        if self._timer is None:
            self._timer = self._loop.call_at(self._told + SILENCE_SECONDS, self._look)
        self._bell = bell
        self._waiter = self._loop.create_future()
        return bell.wake(self._waiter)

    async def items(self, source: AsyncIterator[Item]) -> AsyncGenerator[Item | None, None]:
        """Each item as it comes; None whenever a heartbeat is due."""
        bell = Bell()
        ready: deque[Item] = deque()

        async def read() -> None:
            async for item in source:
                ready.append(item)
                bell.ring()
                while len(ready) >= _ITEMS_AHEAD:
                    await bell.wait()

        # In a task: a read of a stream that is given up takes the stream with it.
        reading = asyncio.create_task(read())
        reading.add_done_callback(lambda _: bell.ring())
        try:
            while ready or not reading.done():
                if ready:
                    item = ready.popleft()
                    bell.ring()
                    yield item
                    continue
                await self.wait(bell)
                if self.is_due and not ready:
                    yield None
            reading.result()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def close(self) -> None:
        """The watcher has gone."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._waiter.done():
            # It is not waiting now.
            return
        due = self._told + SILENCE_SECONDS
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look)
            return
        self.is_due = True
        self._bell.forget(self._waiter)
        self._waiter.set_result(None)
