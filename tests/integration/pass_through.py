"""The real registries behind loopback ports of the test's own, where they can be altered and cut off."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from doors_harness import LoopThread  # type: ignore[import-not-found]  # pytest puts this directory on the path
from yarl import URL

from services.executor.egress.registries import load_registries
from services.executor.egress.upstream import tls_context

# What nobody's wish leads to: the two ends speak for themselves.
_KEPT_HEADERS = ("Accept", "User-Agent", "Disable-Module-Fetch")
# Clients know the checksum database by its host's name. The module proxy passes it on, and so does the port of that.
_BY_NAME = "sumdb"


class PassThrough:
    """A port for each origin of the registries file but one. Use as a context.

    `altered` has bodies that are sent in place of the registry's own, by path.
    """

    def __init__(self) -> None:
        self.altered: dict[str, bytes] = {}
        self._thread = LoopThread()
        self._runners: list[web.ServerRunner] = []
        self._ports: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self._thread.do(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        self._thread.do(self._session.close())
        self._thread.__exit__(None, None, None)

    def cut(self) -> None:
        """Close every port."""
        self._thread.do(self._stop())

    def write_registries(self, path: Path) -> Path:
        """A registries file that leads here; redirects are followed here, not at the doors."""
        tables = []
        for name, registry in vars(load_registries()).items():
            roles = [
                f"{role} = {json.dumps(self._ports.get(origin.url, origin.url))}"
                for role, origin in registry.origins.items()
            ]
            tables += [f"[{name}]", *roles, "redirects = []", ""]
        path.write_text("\n".join(tables))
        return path

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls_context()))
        for registry in vars(load_registries()).values():
            for role, origin in registry.origins.items():
                if role == _BY_NAME:
                    continue
                runner = web.ServerRunner(web.Server(self._answering(origin.url)), shutdown_timeout=0)
                await runner.setup()
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self._runners.append(runner)
                self._ports[origin.url] = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def _stop(self) -> None:
        while self._runners:
            await self._runners.pop().cleanup()

    def _answering(self, origin: str) -> Callable[[web.BaseRequest], Awaitable[web.Response]]:
        async def answer(request: web.BaseRequest) -> web.Response:
            url = URL(f"{origin}{request.raw_path}", encoded=True)
            headers = {name: request.headers[name] for name in _KEPT_HEADERS if name in request.headers}
            async with self._session.get(url, headers=headers) as response:
                body = self.altered.get(request.raw_path, await response.read())
                kind = response.headers.get("Content-Type", "application/octet-stream")
                # Nothing but an index has links: an artefact must stay as it is.
                body = self._led_here(body) if "json" in kind else body
                return web.Response(status=response.status, body=body, headers={"Content-Type": kind})

        return answer

    def _led_here(self, body: bytes) -> bytes:
        for origin, port in self._ports.items():
            body = body.replace(origin.encode(), port.encode())
        return body
