"""The HTTP door over fakes, whole or with one of its checks taken away; and a client that says what it likes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from services.gateway.conductor import Conductor
from services.gateway.config import ConductorConfig
from services.gateway.executor_fake import FakeExecutor
from services.gateway.http.config import HttpConfig
from services.gateway.http.door import HttpDoor
from services.gateway.resolver_fake import FakeResolver
from services.gateway.servicer import GatewayServicer
from services.gateway.store.memory import MemoryStore

from .frame import Setting


@dataclass(frozen=True, kw_only=True)
class Target:
    """A door that is open, and what lies behind it."""

    address: str
    executor: FakeExecutor

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)

    async def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, Any]:
        """The status and the JSON of an answer to exactly these headers; a Host of the door's own if none is there."""
        told = {"Host": self.address, "Content-Length": str(len(body)), **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items()), "", ""]
        return await self.send("\r\n".join(lines).encode("latin-1") + body)

    async def send(self, request: bytes) -> tuple[int, Any]:
        """The status and the JSON of the answer to these bytes; 0 if the connection was closed without one."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            async with asyncio.timeout(20):
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                content = await reader.readexactly(int(length or 0))
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, None
        finally:
            writer.close()
        is_json = b"application/json" in head
        return int(head.split()[1]), json.loads(content) if is_json else content

    async def make(self) -> str:
        """A sandbox, made as a client makes one."""
        status, made = await self.ask("POST", "/v1/sandboxes", {})
        assert status == 201
        return str(made["id"])


@asynccontextmanager
async def open_door(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, weaken: Callable[[pytest.MonkeyPatch], None]
) -> AsyncIterator[Target]:
    """A door as it is shipped, or after `weaken`."""
    if setting is Setting.WEAKENED:
        weaken(monkeypatch)
    executor, resolver, store = FakeExecutor(), FakeResolver(), MemoryStore()
    config = ConductorConfig(patience=1)
    conductor = Conductor(executor_port=executor, resolver_port=resolver, store=store, config=config)
    servicer = GatewayServicer(
        conductor=conductor, executor_port=executor, resolver_port=resolver, store=store, patience=1
    )
    door = HttpDoor(servicer, HttpConfig(address="127.0.0.1:0"))
    await door.start()
    try:
        yield Target(address=door.address, executor=executor)
    finally:
        await door.stop(0)
        await conductor.close()
