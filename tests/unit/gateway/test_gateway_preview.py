"""Previews over the fake executor: real sockets, a program that is a function."""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from qila.executor.v1 import executor_pb2 as executor
from services.gateway.executor_fake import FakeExecutor
from services.gateway.preview.links import PreviewLinks, Target, read_key
from services.gateway.preview.server import PreviewServer
from services.rpc.config import StartError

PORT = 8000
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1; Domain=preview.localhost; Path=/\r\n"
PAGE += b"Set-Cookie: qila_preview=forged\r\nConnection: keep-alive\r\n\r\nhi"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello"


class World:
    """A sandbox with one server, and a browser that speaks in bytes."""

    def __init__(self, fake: FakeExecutor, sandbox_id: str, server: PreviewServer) -> None:
        assert server.links is not None
        self.links: PreviewLinks = server.links
        self.target = Target(sandbox_id=sandbox_id, port=PORT)
        self.requests: list[bytes] = []
        self._sandbox = fake.sandboxes[sandbox_id]
        assert server._server is not None
        self.port = server._server.sockets[0].getsockname()[1]
        self.serve(lambda data: PAGE)

    def serve(self, answer: Callable[[bytes], bytes]) -> None:
        def server(data: bytes) -> bytes:
            self.requests.append(data)
            return answer(data)

        self._sandbox.servers[PORT] = server

    @property
    def host(self) -> str:
        return f"{self.target.host}:{self.port}"

    @property
    def token(self) -> str:
        return self.links.token(self.target, int(time.time()) + 60)

    async def ask(self, path: str = "/", *lines: str, host: str = "", body: bytes = b"", method: str = "GET") -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host or self.host}", *lines, "Connection: close"])
        writer.write(head.encode() + b"\r\n\r\n" + body)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer

    async def seen(self, *lines: str, **more: str) -> bytes:
        return await self.ask("/page", f"Cookie: theirs=1; qila_preview={self.token}; more=2", *lines, **more)  # type: ignore[arg-type]  # names of ask


@pytest.fixture
async def world() -> AsyncIterator[World]:
    fake = FakeExecutor()
    made = await fake.create_sandbox(executor.CreateSandboxRequest())
    server = PreviewServer(fake, bytes(32))
    await server.start("127.0.0.1", 0)
    yield World(fake, made.id, server)
    await server.close()


async def test_a_url_opens_the_preview_and_its_cookie_shows_it(world: World) -> None:
    url = world.links.url(world.target, int(time.time()) + 60)
    assert url.startswith(f"http://{world.host}/.qila/open?token=")
    opened = await world.ask(url.partition(world.host)[2])
    assert opened.startswith(b"HTTP/1.1 303 ")
    cookie = opened.lower().partition(b"set-cookie: ")[2].partition(b"\r\n")[0]
    assert b"httponly" in cookie
    assert b"samesite=lax" in cookie
    assert b"domain" not in cookie
    assert (await world.seen()).endswith(b"\r\n\r\nhi")


async def test_no_token_reaches_the_program_and_no_foreign_cookie_the_browser(world: World) -> None:
    answer = (await world.seen(f"X-Qila-Preview: {world.token}")).lower()
    asked = world.requests[0].lower()
    assert b"qila" not in asked.replace(world.host.encode(), b"")
    assert b"cookie: theirs=1; more=2\r\n" in asked
    assert b"connection: close" in asked
    assert b"set-cookie: a=1; path=/\r\n" in answer
    assert b"forged" not in answer


async def test_a_header_does_as_well_as_the_cookie(world: World) -> None:
    assert (await world.ask("/", f"X-Qila-Preview: {world.token}")).endswith(b"hi")


async def test_an_attack_with_a_token_of_another_spelling_is_refused(world: World) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    now = time.time()
    token = world.token
    accepted = [last for last in alphabet if world.links.expiry(world.target, token[:-1] + last, now) is not None]
    assert accepted == [token[-1]]


async def test_an_attack_with_another_token_is_refused(world: World) -> None:
    now = int(time.time())
    other_port = Target(sandbox_id=world.target.sandbox_id, port=PORT + 1)
    other_sandbox = Target(sandbox_id="sb_" + "z" * 26, port=PORT)
    forged = PreviewLinks(b"x" * 32, world.port).token(world.target, now + 60)
    later = world.token[:-1] + ("A" if world.token[-1] != "A" else "B")
    for token in (
        "",
        "x",
        "\xff" * 54,
        forged,
        later,
        world.links.token(world.target, now),
        world.links.token(other_port, now + 60),
        world.links.token(other_sandbox, now + 60),
    ):
        for path, line in ((f"/.qila/open?token={token}", "X: 1"), ("/", f"Cookie: qila_preview={token}")):
            answer = await world.ask(path.encode("ascii", "ignore").decode(), line.encode("ascii", "ignore").decode())
            assert answer.startswith(b"HTTP/1.1 403 "), (token, answer)
    assert not world.requests


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:{port}", "localhost:{port}", "evil.example:{port}", "p8000-sb-{id}.preview.localhost:1",
     "p8000-sb-{id}.preview.localhost", "p0-sb-{id}.preview.localhost:{port}",
     "p99999-sb-{id}.preview.localhost:{port}", "x.p8000-sb-{id}.preview.localhost:{port}"],
)  # fmt: skip
async def test_an_attack_by_rebinding_another_name_is_refused(world: World, host: str) -> None:
    named = host.format(port=world.port, id=world.target.sandbox_id.removeprefix("sb_"))
    answer = await world.ask("/", f"X-Qila-Preview: {world.token}", host=named)
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert not world.requests


async def test_an_attack_from_a_page_of_another_sandbox_is_refused(world: World) -> None:
    elsewhere = f"http://p8000-sb-{'z' * 26}.preview.localhost:{world.port}"
    for lines in (
        [f"Origin: {elsewhere}"],
        ["Origin: null"],
        ["Origin: https://evil.example"],
        [f"Origin: http://{world.target.host}:1"],
        ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors"],
        ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors", f"Referer: {elsewhere}/"],
        ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", f"Referer: {elsewhere}/"],
        ["Origin: http://["],
        [f"Origin: {elsewhere}", "Upgrade: websocket", "Sec-Fetch-Mode: websocket"],
    ):
        assert (await world.seen(*lines)).startswith(b"HTTP/1.1 403 "), lines
    assert not world.requests


async def test_its_own_pages_and_those_of_its_other_ports_are_welcome(world: World) -> None:
    sibling = f"http://p3000-{world.target.host.partition('-')[2]}:{world.port}"
    for lines in (
        [f"Origin: http://{world.host}"],
        [f"Origin: {sibling}"],
        ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors", f"Referer: {sibling}/x"],
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"],
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"],
        ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", f"Referer: {sibling}/x"],
    ):
        assert (await world.seen(*lines)).endswith(b"hi"), lines


@pytest.mark.parametrize("path", ["http://[/", f"/.qila/open?{'a=1&' * 9}"])
async def test_an_address_that_is_none_is_refused(world: World, path: str) -> None:
    answer = await world.ask(path, f"X-Qila-Preview: {world.token}")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not world.requests


async def test_a_request_with_two_lengths_has_one_for_the_program(world: World) -> None:
    lines = [f"X-Qila-Preview: {world.token}", "X-Forwarded-Host: forged.example"]
    lines += ["Transfer-Encoding: chunked", "Content-Length: 3"]
    assert (await world.ask("/", *lines, method="POST", body=b"2\r\nab\r\n0\r\n\r\n")).endswith(b"hi")
    asked = b"".join(world.requests)
    assert b"transfer-encoding: chunked" in asked
    assert b"content-length" not in asked
    assert b"forged" not in asked


async def test_an_attack_on_the_cookies_of_all_previews_stays_with_the_program(world: World) -> None:
    world.serve(lambda _: PAGE.replace(b"Connection:", b'Clear-Site-Data: "cookies"\r\nConnection:'))
    answer = await world.seen()
    assert answer.endswith(b"hi")
    assert b"clear-site-data" not in answer.lower()


async def test_a_browser_that_leaves_a_silent_program_is_let_go(world: World) -> None:
    asked = asyncio.Event()

    def silent(_: bytes) -> bytes:
        asked.set()
        return b""

    world.serve(silent)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(f"GET / HTTP/1.1\r\nHost: {world.host}\r\nX-Qila-Preview: {world.token}\r\n\r\n".encode())
    await asyncio.wait_for(asked.wait(), 10)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_a_next_request_that_comes_early_is_answered_in_its_turn(world: World) -> None:
    request = f"GET / HTTP/1.1\r\nHost: {world.host}\r\nX-Qila-Preview: {world.token}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(3 * request)
    for _ in range(3):
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\nhi"), 10)
    writer.close()


async def test_a_websocket_ends_when_the_right_to_see_it_expires(world: World) -> None:
    world.serve(lambda data: SWITCHED if data.startswith(b"GET") else b"")
    token = world.links.token(world.target, int(time.time()) + 2)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = [f"Host: {world.host}", f"Cookie: qila_preview={token}", "Upgrade: websocket", "Connection: Upgrade"]
    writer.write(("GET /ws HTTP/1.1\r\n" + "\r\n".join(head) + "\r\n\r\n").encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 101 ")
    writer.close()


async def test_a_body_goes_to_the_program(world: World) -> None:
    body = b"\1" * 200_000
    world.serve(lambda _: PAGE if b"".join(world.requests).endswith(body) else b"")
    length = f"Content-Length: {len(body)}"
    answer = await world.ask("/", f"X-Qila-Preview: {world.token}", length, body=body, method="POST")
    assert answer.endswith(b"hi")
    assert len(world.requests) > 2


async def test_a_websocket_goes_both_ways(world: World) -> None:
    world.serve(lambda data: SWITCHED if data.startswith(b"GET") else data.upper())
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = [f"Host: {world.host}", f"Cookie: qila_preview={world.token}", "Upgrade: websocket", "Connection: Upgrade"]
    writer.write(("GET /ws HTTP/1.1\r\n" + "\r\n".join(head) + "\r\n\r\n").encode())
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"upgrade: websocket" in answer.lower()
    assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
    writer.write(b"frame")
    assert await asyncio.wait_for(reader.readexactly(5), 10) == b"FRAME"
    writer.close()


async def test_two_requests_on_one_connection(world: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    for _ in range(2):
        writer.write(f"GET / HTTP/1.1\r\nHost: {world.host}\r\nX-Qila-Preview: {world.token}\r\n\r\n".encode())
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert await asyncio.wait_for(reader.readexactly(2), 10) == b"hi"
    assert len(world.requests) == 2
    writer.close()


async def test_an_answer_that_is_none_ends_the_connection(world: World) -> None:
    world.serve(lambda _: b"no http at all\r\n\r\n")
    assert await world.seen() == b""


@pytest.mark.parametrize(
    "raw",
    [
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 70_000,
        b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000,
    ],
)
async def test_bytes_that_are_no_request_are_refused(world: World, raw: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(raw)
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ", b"HTTP/1.1 414 "))
    writer.close()


def test_the_port_that_browsers_leave_out_may_be_left_out() -> None:
    target = Target(sandbox_id="sb_" + "a" * 26, port=PORT)
    for authority in (target.host, f"{target.host}:80"):
        assert PreviewLinks(bytes(32), 80).target(authority) == target
        assert PreviewLinks(bytes(32), 8081).target(authority) is None


async def test_where_nothing_listens_the_browser_is_told(world: World) -> None:
    world._sandbox.servers.clear()
    answer = await world.seen()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"port 8000" in answer


async def test_the_key_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = read_key(path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(path) == key
    path.write_bytes(b"short")
    with pytest.raises(OSError, match="remove it"):
        read_key(path)


async def test_an_address_that_is_taken_stops_the_gateway_with_one_line(world: World) -> None:
    second = PreviewServer(FakeExecutor(), bytes(32))
    with pytest.raises(StartError, match="QILA_PREVIEW_ADDRESS"):
        await second.start("127.0.0.1", world.port)
