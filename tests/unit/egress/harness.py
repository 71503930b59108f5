import asyncio
import hashlib
import json
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from services.executor.egress.door_process import Doors
from services.executor.egress.limits import NO_LIMITS, TrafficLimits
from services.executor.egress.records import EgressRecord

SANDBOX = "sb_" + "a" * 26


WHEEL = "demo-1.0-py3-none-any.whl"


STORED = f"packages/aa/bb/{'c' * 60}/{WHEEL}"


CONTENT = os.urandom(300_000)


METADATA = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class FakePypi:
    """Index and files on one loopback port; `seen` keeps every request as (method, raw path, headers)."""

    url: str = ""
    project: dict[str, Any] = field(default_factory=dict)
    content: bytes = CONTENT
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    redirect: bool = False
    stall: asyncio.Event | None = None
    stalled: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.method, request.raw_path, dict(request.headers)))
        if self.redirect:
            return web.Response(status=302, headers={"Location": f"{self.url}/elsewhere"})
        if request.raw_path == "/simple/demo/":
            return web.Response(body=json.dumps(self.project).encode())
        if request.raw_path == f"/{STORED}.metadata":
            return web.Response(body=METADATA)
        if request.raw_path != f"/{STORED}":
            return web.Response(status=404)
        response = web.StreamResponse()
        response.content_length = len(self.content)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        await response.write(self.content[:100_000])
        if self.stall is not None:
            self.stalled.put_nowait(None)
            await self.stall.wait()
        await response.write(self.content[100_000:])
        return response


def project(url: str) -> dict[str, Any]:
    return {
        "meta": {"api-version": "1.1"},
        "name": "Demo",
        "versions": ["1.0"],
        "files": [
            {
                "filename": WHEEL,
                "url": f"{url}/{STORED}",
                "hashes": {"sha256": sha256(CONTENT), "md5": "0"},
                "core-metadata": {"sha256": sha256(METADATA)},
                "requires-python": ">=3.8",
                "size": len(CONTENT),
                "yanked": False,
            }
        ],
    }


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool


@dataclass
class OpenDoors:
    doors: Doors
    records: asyncio.Queue[EgressRecord]
    socket_path: str
    registries: Path
    package_policy: Path

    async def raw(self, data: bytes) -> bytes:
        """Everything that the door says to these bytes until it closes."""
        reader, writer = await asyncio.open_unix_connection(self.socket_path)
        try:
            writer.write(data)
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def ask(self, path: str, *, method: str = "GET", uid: int = 1000, headers: str = "") -> Reply:
        request = (
            f"QILA1 mirror {uid}\n{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n"
        )
        head, _, body = (await self.raw(request.encode())).partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines)}
        length = int(fields.get("content-length", "-1"))
        return Reply(status=int(first.split()[1]), headers=fields, body=body, whole=len(body) == length)

    async def record(self) -> EgressRecord:
        return await asyncio.wait_for(self.records.get(), 10)


class StartDoors(Protocol):
    """Starts doors that lead to one URL; `rules` is the text of a package policy."""

    async def __call__(self, url: str, *, rules: str = "", traffic: TrafficLimits = NO_LIMITS) -> OpenDoors: ...


def listening_socket(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    return listener


def registries_text(url: str) -> str:
    """A registries file whose every host is `url`."""
    roles = {"pypi": ("index", "files"), "npm": ("registry",), "go": ("proxy", "sumdb"), "maven": ("central",)}
    return "".join(
        f"[{name}]\n{''.join(f'{role} = {json.dumps(url)}{chr(10)}' for role in names)}redirects = []\n"
        for name, names in roles.items()
    )
