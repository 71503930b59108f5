import asyncio
import hashlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from services.executor.egress import policy
from services.executor.egress.config import DoorsConfig
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
    """Index and files on one loopback port; `seen` keeps every request as (method, raw path, headers).

    `redirects` leads from raw paths to locations; `status` is answered to everything if it is not 200; `stall` holds up
    artefacts after 100,000 bytes; `etag` makes the index answer conditional requests; `breaks` cuts every connection,
    `breaks_off` only in the middle of artefacts.
    """

    url: str = ""
    project: dict[str, Any] = field(default_factory=dict)
    content: bytes = CONTENT
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    status: int = 200
    etag: str | None = None
    last_modified: str | None = None
    breaks: bool = False
    breaks_off: bool = False
    stall: asyncio.Event | None = None
    stalled: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    length_is_told: bool = True

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _ in self.seen]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.method, request.raw_path, dict(request.headers)))
        if self.breaks:
            return self._cut(request)
        location = self.redirects.get(request.raw_path)
        if location is not None or self.status != 200:
            headers = {} if location is None else {"Location": location}
            return web.Response(status=self.status if location is None else 302, headers=headers)
        match request.raw_path.removeprefix(f"/{STORED}"):
            case "/simple/demo/":
                return self._index(request)
            case ".metadata":
                return web.Response(body=METADATA)
            case "" | "/elsewhere":
                return await self._file(request)
        return web.Response(status=404)

    def _cut(self, request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    def _index(self, request: web.BaseRequest) -> web.Response:
        if self.etag is not None and request.headers.get("If-None-Match") == self.etag:
            return web.Response(status=304)
        headers = {} if self.etag is None else {"ETag": self.etag}
        if self.last_modified is not None:
            headers["Last-Modified"] = self.last_modified
        return web.Response(body=json.dumps(self.project).encode(), headers=headers)

    async def _file(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        if self.length_is_told:
            response.content_length = len(self.content)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        await response.write(self.content[:100_000])
        if self.stall is not None:
            self.stalled.put_nowait(None)
            await self.stall.wait()
        if self.breaks_off:
            return self._cut(request)
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
    cache: Path
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

    async def __call__(
        self,
        url: str,
        *,
        cache_bytes: int = ...,
        redirects: Sequence[str] = ...,
        rules: str = ...,
        traffic: TrafficLimits = ...,
    ) -> OpenDoors: ...


async def open_doors(
    directory: Path,
    url: str,
    *,
    cache_bytes: int = 1 << 30,
    redirects: Sequence[str] = (),
    rules: str = "",
    traffic: TrafficLimits = NO_LIMITS,
) -> OpenDoors:
    """See `StartDoors`; all files lie in `directory`, and the caller stops the doors."""
    package_policy = directory / "packages.toml"
    package_policy.write_text(rules)
    registries = directory / "registries.toml"
    registries.write_text(registries_text(url, redirects))
    records: asyncio.Queue[EgressRecord] = asyncio.Queue()
    as_root = os.geteuid() == 0
    user = 65534 if as_root else os.getuid()
    cache = directory / "cache"
    cache.mkdir(mode=0o700, exist_ok=True)
    if as_root:
        os.chown(cache, user, user)
    config = DoorsConfig(
        uid=user,
        gid=65534 if as_root else os.getgid(),
        registries=registries,
        cache_directory=cache if cache_bytes else None,
        cache_bytes=cache_bytes,
        package_policy=package_policy if rules else None,
        traffic=traffic,
    )
    doors = Doors(config, on_egress=records.put_nowait)
    await doors.start()
    path = str(directory / "doors.sock")
    with listening_socket(path) as listener:
        await doors.open(SANDBOX, listener, policy.DEFAULT)
    return OpenDoors(
        doors=doors,
        records=records,
        socket_path=path,
        registries=registries,
        cache=cache,
        package_policy=package_policy,
    )


def listening_socket(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    # As the executor's are: a copy of a blocking socket would make the doors' own copy block as well.
    listener.setblocking(False)
    return listener


def registries_text(url: str, redirects: Sequence[str] = ()) -> str:
    """A registries file whose every host is `url`."""
    roles = {"pypi": ("index", "files"), "npm": ("registry",), "go": ("proxy", "sumdb"), "maven": ("central",)}
    tables = []
    for name, names in roles.items():
        tables += [f"[{name}]", *(f"{role} = {json.dumps(url)}" for role in names)]
        tables += [f"redirects = {json.dumps(list(redirects))}", ""]
    return "\n".join(tables)
