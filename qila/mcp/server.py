"""The MCP server over stdio."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from mcp.server.mcpserver import MCPServer

from qila.mcp.session import Session, opened
from qila.mcp.tools import TOOLS

_INSTRUCTIONS = """\
Runs programs that nobody has read yet in a sandbox: Python, JavaScript, TypeScript, Go and Java. One workspace for the
whole session keeps files and installed packages. Programs reach the package registries and nothing else. What a program
imports, or its manifest names, is installed once."""


class Life:
    """How a server ends: by itself, or because it is told to. What it made is removed either way."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._terminated = False
        self._ending = False

    def terminate(self) -> None:
        """Ends it. One that removes its sandbox already is left to that."""
        self._terminated = True
        if self._task is not None and not self._ending:
            self._task.cancel()

    @asynccontextmanager
    async def session(self, address: str, sandbox_id: str) -> AsyncIterator[Session]:
        """The one session."""
        try:
            async with opened(address, sandbox_id) as session:
                try:
                    yield session
                finally:
                    self._ending = True
        finally:
            if self._terminated:
                # A thread waits for input, and Python would wait for the thread.
                os._exit(0)


def build(address: str, sandbox_id: str, life: Life) -> MCPServer[Session]:
    """A server whose session uses the gateway at an address; an empty id: in a sandbox of its own."""

    @asynccontextmanager
    async def lifespan(_: MCPServer[Session]) -> AsyncIterator[Session]:
        async with life.session(address, sandbox_id) as session:
            yield session

    server: MCPServer[Session] = MCPServer(
        "qila", instructions=_INSTRUCTIONS, version=version("qila"), lifespan=lifespan, log_level="WARNING"
    )
    for tool in TOOLS:
        server.add_tool(tool)
    return server


async def serve(address: str, sandbox_id: str) -> None:
    """Serves one client until its end, or SIGTERM or SIGINT; the session's sandbox is removed either way."""
    life = Life()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, life.terminate)
    await build(address, sandbox_id, life).run_stdio_async()
