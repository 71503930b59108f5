"""The listener of previews, at a port of its own: no page of a program shares an origin with anything of Qila's."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import structlog

from services.gateway.ports import ExecutorPort
from services.gateway.preview.links import PreviewLinks
from services.gateway.preview.proxy import Browser
from services.rpc.config import StartError

_LOG: Final = structlog.get_logger("services.gateway")
MAX_CONNECTIONS: Final = 256


class PreviewServer:
    """Serves previews once it is started.

    Args:
        executor_port: reaches the sandboxes.
        key: of the signatures.
    """

    def __init__(self, executor_port: ExecutorPort, key: bytes) -> None:
        self._executor = executor_port
        self._key = key
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.links: PreviewLinks | None = None

    async def start(self, host: str, port: int) -> None:
        """Begins to listen; port 0 takes a free one. StartError if it cannot."""
        try:
            self._server = await asyncio.start_server(self._accept, host, port)
        except OSError as error:
            words = f"previews cannot be served at {host}:{port}: {error.strerror}; set QILA_PREVIEW_ADDRESS, or to off"
            raise StartError(words) from error
        self.links = PreviewLinks(self._key, self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Cuts every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert self.links is not None
        try:
            if len(self._connections) < MAX_CONNECTIONS:
                self._connections.add(task)
                await Browser(reader, writer, self._executor, self.links).serve()
        except Exception:  # noqa: BLE001  # a task that nobody awaits: one connection's fault ends it alone
            _LOG.exception("preview_crashed")
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
