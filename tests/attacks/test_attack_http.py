"""The HTTP door: a web page that somebody happens to visit, and clients that mean to use it up."""

from __future__ import annotations

import asyncio

import pytest

from services.gateway import checks
from services.gateway.http import bodies, connection
from services.gateway.http.app import operations_of_door
from services.gateway.http.connection import Connection
from services.gateway.http.guard import Guard

from .frame import Setting, attack
from .http_door import Target, open_door

HEAD_SECONDS = 0.5


def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "_check", lambda *_: None)


def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "head_seconds", 3600)


def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 1 << 30)


def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole(request: object, *_: object) -> bytes:
        body: bytes = await request.body()  # type: ignore[attr-defined]
        return body

    monkeypatch.setattr(bodies, "read_bytes", whole)


def depthless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_check_depth", lambda *_: None)


def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "check_path", lambda *_, **__: None)


@attack(weakened="no guard")
async def test_dns_rebinding(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    async with open_door(setting, monkeypatch, unguarded) as target:
        await target.make()
        port = target.port
        names = [
            f"evil.test:{port}",
            "127.0.0.1",
            f"127.0.0.1:{port + 1}",
            f"127.0.0.1.evil.test:{port}",
            f"localhost.:{port}",
            f"2130706433:{port}",
            f"0.0.0.0:{port}",
            f"127.0.0.1:{port}@evil.test",
            f"127.0.0.1:{port},evil.test",
            "",
        ]
        answered = [name for name in names if (await target.ask("GET", "/v1/sandboxes", {"Host": name}))[0] == 200]
        absolute = f"GET http://evil.test/v1/sandboxes HTTP/1.1\r\nHost: {target.address}\r\n\r\n".encode()
        hostless = b"GET /v1/sandboxes HTTP/1.0\r\n\r\n"
        two = f"GET /v1/sandboxes HTTP/1.1\r\nHost: {target.address}\r\nHost: evil.test\r\n\r\n".encode()
        return answered + [str(raw) for raw in (absolute, hostless, two) if (await target.send(raw))[0] == 200]


@attack(weakened="no guard")
async def test_cross_site_forms(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    async with open_door(setting, monkeypatch, unguarded) as target:
        # What a browser sends without asking first: these types, and no header that a page may choose.
        simple = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", ""]
        pages: list[dict[str, str]] = [
            {"Origin": "http://evil.test"},
            {"Origin": "null"},
            {"Origin": ""},
            # Another port of this machine is another page.
            {"Origin": f"http://localhost:{target.port + 1}", "Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ]
        for kind in simple:
            for page in pages:
                await target.ask("POST", "/v1/sandboxes", {"Content-Type": kind, **page}, b"{}")
        return list(target.executor.sandboxes)


@attack(weakened="no guard")
async def test_every_call_from_another_page(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    async with open_door(setting, monkeypatch, unguarded) as target:
        ids = {"sandbox_id": await target.make(), "exec_id": "ex_" + "a" * 26, "path": "f", "transfer_id": "t"}
        pages = [{"Host": f"evil.test:{target.port}"}, {"Origin": "http://evil.test"}, {"Sec-Fetch-Site": "cross-site"}]
        return [
            operation.name
            for operation in operations_of_door()
            for page in pages
            if (await target.ask(operation.method, operation.path.format(**ids), page))[0] != 403
        ]


@attack(weakened="no guard")
async def test_a_page_asks_for_leave(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whatever is answered to a page's question, it is not told that it may."""
    async with open_door(setting, monkeypatch, unguarded) as target:
        asked = {"Origin": "http://evil.test", "Access-Control-Request-Method": "DELETE"}
        reader, writer = await target.connect()
        lines = [f"{name}: {value}" for name, value in {"Host": target.address, **asked}.items()]
        writer.write("\r\n".join(["OPTIONS /v1/sandboxes HTTP/1.1", *lines, "", ""]).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert b"access-control" not in head.lower()
        # Where there is no guard it comes as far as the routes.
        return b" 403 " not in head.partition(b"\r\n")[0]


async def _kept(target: Target, opening: bytes, more: bytes) -> bool:
    """Whether the connection is still open after four times as long as a head may take."""
    reader, writer = await target.connect()
    writer.write(opening)
    ended = asyncio.ensure_future(reader.read())
    try:
        for _ in range(8):
            done, _ = await asyncio.wait({ended}, timeout=HEAD_SECONDS / 2)
            if done:
                return False
            writer.write(more)
        return True
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
        writer.close()


@attack(weakened="a head may take an hour")
async def test_slow_headers(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    monkeypatch.setattr(Connection, "head_seconds", HEAD_SECONDS)
    async with open_door(setting, monkeypatch, patient) as target:
        begun = f"GET /v1/sandboxes HTTP/1.1\r\nHost: {target.address}\r\n".encode()
        openings = {b"": b"", b"G": b"E", begun: b"X: y\r\n"}
        kept = await asyncio.gather(*(_kept(target, opening, more) for opening, more in openings.items()))
        assert (await target.ask("GET", "/v1/health", {}))[0] == 200
        return [opening for opening, held in zip(openings, kept, strict=True) if held]


@attack(weakened="no limit of connections")
async def test_many_connections(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 20)
    async with open_door(setting, monkeypatch, unlimited) as target:
        pairs = [await target.connect() for _ in range(40)]
        ends = [asyncio.ensure_future(reader.read()) for reader, _ in pairs]
        await asyncio.wait(ends, timeout=2)
        held = sum(not end.done() for end in ends)
        for end, (_, writer) in zip(ends, pairs, strict=True):
            end.cancel()
            writer.close()
        await asyncio.gather(*ends, return_exceptions=True)
        return held > 20


@attack(weakened="no guard")
async def test_large_heads(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    async with open_door(setting, monkeypatch, unguarded) as target:
        heads: list[dict[str, str]] = [
            {f"x-{number}": "y" for number in range(200)},
            {"x-long": "y" * 20_000},
        ]
        statuses = [(await target.ask("GET", "/v1/sandboxes", head))[0] for head in heads]
        return [status for status in statuses if status == 200]


@attack(weakened="bodies are read whole")
async def test_huge_bodies(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    async with open_door(setting, monkeypatch, unbounded) as target:
        sandbox_id = await target.make()
        url = f"/v1/sandboxes/{sandbox_id}/exec"
        body = b'{"filename": "' + b"x" * (8 << 20) + b'"}'
        announced = await target.ask("POST", url, {}, body)
        head = f"POST {url} HTTP/1.1\r\nHost: {target.address}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        chunked = await target.send(head + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        # An upload that says that it is too large is refused before it comes.
        promise = {"Content-Length": str(1 << 40), "Content-Type": "multipart/form-data; boundary=b"}
        assert (await target.ask("POST", f"/v1/sandboxes/{sandbox_id}/files", promise))[0] == 413
        # Refused in the middle of it, a client may see its connection closed before the answer.
        return [status for status, _ in (announced, chunked) if status not in (413, 0)]


@attack(weakened="any depth")
async def test_deep_json(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    async with open_door(setting, monkeypatch, depthless) as target:
        url = f"/v1/sandboxes/{await target.make()}/exec"
        deep = [b'{"env": ' * depth + b"{}" + b"}" * depth for depth in (40, 500)]
        # Too deep for the parser itself, whatever is checked.
        for bomb in (b"[" * (1 << 20), b'{"a":' * (1 << 19)):
            status, told = await target.ask("POST", url, {}, bomb)
            assert (status, told["error"]["reason"]) == (400, "JSON_INVALID")
        reasons = [(await target.ask("POST", url, {}, body))[1]["error"]["reason"] for body in deep]
        return [reason for reason in reasons if reason != "JSON_INVALID"]


@attack(weakened="paths are taken as they come")
async def test_path_traversal_in_a_filename(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    async with open_door(setting, monkeypatch, unchecked) as target:
        sandbox_id = await target.make()
        url = f"/v1/sandboxes/{sandbox_id}/files"
        names = ["../x", "/etc/x", "a/../../x", "..", ".", "", "a//x", "a/./x", "x\0y", "\x7f/../x", "a/" * 3000 + "x"]
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        for name in names:
            part = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\nx\r\n--b--\r\n'
            await target.ask("POST", url, kind, part.encode())
            field = f'--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n{name}\r\n'
            await target.ask("POST", url, kind, field.encode() + part.replace(name, "harmless").encode())
        for path in ("%2e%2e/x", "..%2fx", "%2fetc%2fx", "a/%2e%2e/%2e%2e/x", "x%00y", "a%2f%2fx"):
            await target.ask("PUT", f"{url}/{path}", {}, b"x")
        return [path for path in target.executor.sandboxes[sandbox_id].files if path != "harmless"]
