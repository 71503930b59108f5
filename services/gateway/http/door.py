"""The door as a server: uvicorn on the gateway's own event loop, on a socket that is bound before anything starts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Final

import structlog
import uvicorn

from services.gateway.http.app import build_app
from services.gateway.http.config import HttpConfig
from services.gateway.http.connection import Connection
from services.gateway.http.guard import MAX_HEAD_BYTES
from services.gateway.http.operation import Services
from services.gateway.servicer import GatewayServicer
from services.rpc.server import AddressInUse, BadAddress, loopback_address

_LOG: Final = structlog.get_logger("services.gateway.http")
_BACKLOG: Final = 128
_HTTP_PORT: Final = 80
_KEEP_ALIVE_SECONDS: Final = 10


class HttpDoor:
    """A bound door. `address` has the true port."""

    def __init__(self, gateway: GatewayServicer, config: HttpConfig) -> None:
        """Binds.

        Raises:
            AddressInUse: another process serves there.
            BadAddress: it is not loopback, or cannot be bound.
        """
        self._socket = _bound(config.address)
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._services = Services(gateway=gateway)
        own = {config.address.rpartition(":")[0], self.address.rpartition(":")[0], "localhost"}
        hosts = [*(host for name in sorted(own) for host in hosts_of(name, port)), *config.hosts]
        app = build_app(self._services, hosts=hosts, origins=config.origins)
        self._server = _Server(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                backlog=_BACKLOG,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to answer."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        _LOG.info("serving_http", address=self.address)

    async def stop(self, grace: float) -> None:
        """Takes no new calls, ends streams, and answers those in flight for `grace` seconds."""
        self._services.stopping.set()
        self._server.config.timeout_graceful_shutdown = max(1, round(grace))
        self._server.should_exit = True
        if self._serving is None:
            self._socket.close()
            return
        await asyncio.wait({self._serving})
        if not self._serving.cancelled() and (error := self._serving.exception()) is not None:
            _LOG.error("http_door_failed", error=repr(error)[:500])


def hosts_of(name: str, port: int) -> list[str]:
    """What a Host header says for a name: clients leave out the port of HTTP."""
    return [f"{name}:{port}", *([name] if port == _HTTP_PORT else [])]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """The gateway has its own way to stop."""
        yield


def _bound(address: str) -> socket.socket:
    host, port = loopback_address(address)
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        if error.errno is not None and error.strerror and "in use" in error.strerror:
            raise AddressInUse(address=address) from error
        raise BadAddress(address=address, rule=f"cannot be bound: {error.strerror}") from error
