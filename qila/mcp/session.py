"""The sandbox of one MCP session: made when it is first needed, removed at the end unless it was named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from qila.client import AsyncClient

# A client gives its server two seconds, and two more after SIGTERM.
_REMOVE_SECONDS = 3.5


class Session:
    """A client of the gateway, and the sandbox in which everything happens."""

    def __init__(self, client: AsyncClient, sandbox_id: str) -> None:
        self.client = client
        self._sandbox_id = sandbox_id
        self._made = ""
        self._making = anyio.Lock()
        self._turns: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    async def sandbox(self) -> str:
        """Its id; makes it if there is none. QilaError."""
        async with self._making:
            if not self._sandbox_id:
                self._made = self._sandbox_id = (await self.client.create()).id
            return self._sandbox_id

    def turn(self, name: str) -> anyio.Lock:
        """Held while a file of that name is written and run: another call would run what this one wrote."""
        return self._turns[name]

    async def remove(self) -> None:
        """Removes the sandbox, if this session made it."""
        if self._made:
            await self.client.remove_sandbox(self._made)


@asynccontextmanager
async def opened(address: str, sandbox_id: str) -> AsyncIterator[Session]:
    """A session, to its end."""
    async with AsyncClient(address) as client:
        session = Session(client, sandbox_id)
        try:
            yield session
        finally:
            with anyio.move_on_after(_REMOVE_SECONDS, shield=True):
                await session.remove()
