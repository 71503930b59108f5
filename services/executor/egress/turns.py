"""Who may work on index pages: memory and connections are shared, and no sandbox gets them all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

_MAX_FETCHING = 16
_MAX_FETCHING_OF_ONE_SANDBOX = 8
# A large page costs some ten times its size while it is parsed.
_MAX_PARSING = 4
_LARGE_BYTES = 1024 * 1024


class Turn:
    """One request's share; what it takes is given back when the request has its answer."""

    def __init__(self, *, own: asyncio.Semaphore, fetching: asyncio.Semaphore, parsing: asyncio.Semaphore) -> None:
        self._own = own
        self._fetching = fetching
        self._parsing = parsing
        self._taken: set[asyncio.Semaphore] = set()
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def fetch(self) -> None:
        """Wait for the turn to get pages."""
        await self._take(self._own)
        await self._take(self._fetching)

    async def parse(self, size: int) -> None:
        """Wait for the turn to hold a page of `size` bytes in memory."""
        if size > _LARGE_BYTES:
            await self._take(self._parsing)

    async def give_back(self) -> None:
        """Let others have their turn."""
        await self._stack.aclose()

    async def _take(self, slots: asyncio.Semaphore) -> None:
        async with self._lock:
            if slots not in self._taken:
                await self._stack.enter_async_context(slots)
                self._taken.add(slots)


class Turns:
    """The turns of all requests."""

    def __init__(self) -> None:
        self._fetching = asyncio.Semaphore(_MAX_FETCHING)
        self._parsing = asyncio.Semaphore(_MAX_PARSING)
        # A sandbox is in here while one of its requests is under way.
        self._sandboxes: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, sandbox: str) -> AsyncIterator[Turn]:
        """The turn of one request."""
        own = self._sandboxes.get(sandbox)
        if own is None:
            own = self._sandboxes[sandbox] = asyncio.Semaphore(_MAX_FETCHING_OF_ONE_SANDBOX)
        turn = Turn(own=own, fetching=self._fetching, parsing=self._parsing)
        try:
            yield turn
        finally:
            await turn.give_back()
