"""The doors as npm's clients see them: the ecosystem behind a plain server that passes pages and artefacts through."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import socket
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

from services.executor.egress.ecosystems.npm import Npm
from services.executor.egress.ecosystems.port import Answer, Artefact, Ask, Document, Ecosystem, Fetched, Missing, Page
from services.executor.egress.registries import load_registries
from services.executor.egress.upstream import tls_context
from services.executor.egress.verdicts import TurnedAway


@dataclass
class Rules:
    """Refuses packages and versions (`name`, `name@version`)."""

    denied: set[str] = field(default_factory=set)
    needs_release_times: bool = False

    def refusal(self, name: str, version: str | None, released: datetime.datetime | None) -> str | None:
        return "deny" if {name, f"{name}@{version}"} & self.denied else None


class PlainSource:
    """npm's registry itself; pages are kept for the length of a test."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.pages: dict[tuple[str, str], bytes | None] = {}

    async def page(self, page: Page) -> Fetched | None:
        key = page.url, page.accept
        if key not in self.pages:
            self.pages[key] = await self.get(page.url, page.accept)
        body = self.pages[key]
        return None if body is None else Fetched(body=body)

    async def get(self, url: str, accept: str) -> bytes | None:
        async with self.session.get(URL(url, encoded=True), headers={"Accept": accept}) as response:
            if response.status == 404:
                return None
            response.raise_for_status()
            return await response.read()


class NpmDoors:
    """Serves a sandbox's listening socket from a thread of its own; `seen` has (method, path, status, rule)."""

    def __init__(self, listener: socket.socket) -> None:
        self.rules = Rules()
        self.seen: list[tuple[str, str, int, str]] = []
        self._listener = listener
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        registry = load_registries().npm
        connector = aiohttp.TCPConnector(ssl=tls_context(), limit=32)
        self._session = aiohttp.ClientSession(connector=connector)
        self._source = PlainSource(self._session)
        self._npm: Ecosystem = Npm(registry=registry, rules=self.rules)
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._listener.setblocking(False)
        self._connections: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_unix_server(self._carry, sock=self._listener)

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._runner.cleanup()
        await self._session.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            preamble = await reader.readline()
            assert preamble.startswith(b"QILA1 mirror "), preamble
            inner_reader, inner_writer = await asyncio.open_connection(*self._runner.addresses[0])
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        finally:
            self._connections.discard(task)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        status, rule, body, content_type = await self._respond(request)
        self.seen.append((request.method, request.raw_path, status, rule))
        return web.Response(status=status, body=body, headers={"Content-Type": content_type})

    async def _respond(self, request: web.BaseRequest) -> tuple[int, str, bytes, str]:
        if request.method not in {"GET", "HEAD"} or not request.raw_path.startswith("/npm/"):
            return 403, "not for reading", b"", "text/plain"
        accept = ",".join(request.headers.getall("Accept", ["*/*"]))
        try:
            answer = await self._npm.answer(
                Ask(path=request.raw_path.removeprefix("/npm"), accept=accept), self._source
            )
        except TurnedAway as error:
            return error.status, error.rule, error.advice.encode(), "text/plain"
        return await self._render(answer)

    async def _render(self, answer: Answer) -> tuple[int, str, bytes, str]:
        match answer:
            case Document(body=body, content_type=content_type, rule=rule):
                return 200, rule, body, content_type
            case Missing(rule=rule, advice=advice):
                return 404, rule, advice.encode(), "text/plain"
            case Artefact(url=url, rule=rule, digest=digest, content_type=content_type):
                content = await self._source.get(url, "*/*")
                assert content is not None
                assert digest is not None
                assert hashlib.new(digest.algorithm, content).hexdigest() == digest.hex
                return 200, rule, content, content_type


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
