import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from services.executor.egress.tunnel import MAX_ADDRESSES, Patience, serve_tunnel
from services.executor.egress.verdicts import Refused, Visit

from .dialling import ADDRESS, FakeDialler
from .hellos import extension, handshake_of, message, real_hello, records, server_name

HOST = "plugins.example.org"
CONNECT = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()
HELLO = real_hello(HOST)
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
ALERT = b"\x15\x03\x03\x00\x02\x02\x31"


@dataclass
class Bench:
    """A client at one end of a tunnel and a fake Internet at the other."""

    dialler: FakeDialler = field(default_factory=FakeDialler)
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    visit: Visit = field(default_factory=lambda: Visit(sandbox="sb", phase="RUN", uid=1000))
    allowed: frozenset[str] = frozenset({HOST})
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        self.client, self._door = socket.socketpair()
        self.client.setblocking(False)
        self._door.setblocking(False)
        self.task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        with self._door:
            await serve_tunnel(
                self._door, self.visit, decide=self._decide, slots=self.slots, dialler=self.dialler,
                patience=self.patience,
            )  # fmt: skip  # one call reads best in two lines

    def _decide(self, host: str) -> None:
        if host not in self.allowed:
            raise Refused(status=403, rule="connect: host", advice="no")

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            await asyncio.get_running_loop().sock_sendall(self.client, piece)

    async def hear(self, size: int, end: socket.socket | None = None) -> bytes:
        """Exactly `size` bytes."""
        heard = b""
        async with asyncio.timeout(10):
            while len(heard) < size:
                piece = await asyncio.get_running_loop().sock_recv(end or self.client, size - len(heard))
                assert piece, f"the end after {heard!r}"
                heard += piece
        return heard

    async def hear_all(self, end: socket.socket | None = None) -> bytes:
        """Everything until the end."""
        heard = b""
        # A door that hangs up on something unread resets the connection.
        with suppress(ConnectionResetError):
            async with asyncio.timeout(10):
                while piece := await asyncio.get_running_loop().sock_recv(end or self.client, 1 << 16):
                    heard += piece
        return heard

    async def establish(self, request: bytes = CONNECT, hello: bytes = HELLO) -> socket.socket:
        """A tunnel, as far as the ClientHello has arrived at the other end."""
        await self.send(request)
        assert await self.hear(len(ESTABLISHED)) == ESTABLISHED
        await self.send(hello)
        remote = await self.dialler.remote()
        assert await self.hear(len(hello), remote) == hello
        return remote

    async def finish(self) -> tuple[str, str, int]:
        """Verdict, rule and status, once the connection is over."""
        await asyncio.wait_for(self.task, 10)
        return self.visit.verdict, self.visit.rule, self.visit.status


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.task.cancel()
    await asyncio.gather(made.task, return_exceptions=True)
    made.client.close()
    made.dialler.close()


async def test_bytes_go_both_ways_and_each_way_ends_by_itself(bench: Bench) -> None:
    remote = await bench.establish()
    await bench.send(b"q" * 1000)
    assert await bench.hear(1000, remote) == b"q" * 1000
    # The client is done asking; the answer still comes.
    bench.client.shutdown(socket.SHUT_WR)
    assert await bench.hear_all(remote) == b""
    remote.setblocking(True)
    await asyncio.to_thread(remote.sendall, b"a" * 50)
    assert await bench.hear(50) == b"a" * 50
    remote.shutdown(socket.SHUT_WR)
    assert await bench.hear_all() == b""
    assert await bench.finish() == ("allowed", "connect", 200)
    assert (bench.visit.method, bench.visit.host, bench.visit.path) == ("CONNECT", HOST, f"{HOST}:443")
    assert bench.visit.bytes == 50
    assert (bench.dialler.asked, bench.dialler.dialled) == ([HOST], [ADDRESS])


async def test_megabytes_with_a_slow_reader_are_held_back_not_heaped_up(bench: Bench) -> None:
    remote = await bench.establish()
    sent = 0
    try:
        # A tunnel without back-pressure would take everything.
        while sent < 64 << 20:
            sent += remote.send(b"x" * 65536)
            await asyncio.sleep(0)
    except BlockingIOError:
        pass
    assert sent < 8 << 20
    remote.shutdown(socket.SHUT_WR)
    bench.client.shutdown(socket.SHUT_WR)
    assert len(await bench.hear_all()) == sent
    assert await bench.finish() == ("allowed", "connect", 200)
    assert bench.visit.bytes == sent


async def test_a_client_may_send_its_hello_with_the_request(bench: Bench) -> None:
    await bench.send(CONNECT + HELLO)
    assert await bench.hear(len(ESTABLISHED)) == ESTABLISHED
    bench.client.shutdown(socket.SHUT_WR)
    remote = await bench.dialler.remote()
    assert await bench.hear_all(remote) == HELLO
    remote.close()
    assert await bench.finish() == ("allowed", "connect", 200)


async def test_a_hello_in_pieces_is_passed_on_as_it_came(bench: Bench) -> None:
    handshake = handshake_of(HELLO)
    hello = records(handshake, 1, 2, 3, 50)
    await bench.send(*[CONNECT[at : at + 1] for at in range(len(CONNECT))])
    assert await bench.hear(len(ESTABLISHED)) == ESTABLISHED
    await bench.send(*[hello[at : at + 1] for at in range(len(hello))], b"\x17\x03\x03\x00\x01e")
    bench.client.shutdown(socket.SHUT_WR)
    assert await bench.hear_all(await bench.dialler.remote()) == hello + b"\x17\x03\x03\x00\x01e"


@pytest.mark.parametrize(
    ("request_bytes", "rule", "status"),
    [
        (b"CONNECT evil.example:443 HTTP/1.0\r\n\r\n", "connect: host", 403),
        (b"CONNECT 127.0.0.1:443 HTTP/1.0\r\n\r\n", "connect: host", 403),
        (b"CONNECT plugins.example.org:22 HTTP/1.0\r\n\r\n", "connect: port", 403),
        (b"GET https://plugins.example.org/ HTTP/1.0\r\n\r\n", "connect: method", 405),
        (b"CONNECT plugins.example.org:443 HTTP/1.0\r\nContent-Length: 9\r\n\r\n", "connect: malformed request", 400),
        (b"nonsense\r\n\r\n", "connect: malformed request", 400),
        (b"x" * 9000, "connect: malformed request", 400),
    ],
)
async def test_nothing_behind_a_refused_request_is_served(
    request_bytes: bytes, rule: str, status: int, bench: Bench
) -> None:
    await bench.send(request_bytes + CONNECT + HELLO)
    answer = await bench.hear_all()
    assert answer.startswith(f"HTTP/1.1 {status} Qila: ".encode())
    assert answer.count(b"HTTP/1.1") == 1
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert await bench.finish() == ("refused", rule, status)
    assert bench.visit.bytes == len(body)
    assert (bench.dialler.asked, bench.dialler.dialled) == ([], [])


@pytest.mark.parametrize(
    ("hello", "rule", "answer"),
    [
        (real_hello("evil.example"), "connect: sni", ALERT),
        (real_hello(f"evil.{HOST}"), "connect: sni", ALERT),
        (real_hello("example.org"), "connect: sni", ALERT),
        (real_hello(None), "connect: sni: no server name", ALERT),
        (records(message(server_name(HOST.encode()) * 2)), "connect: sni: an extension twice", ALERT),
        (
            records(message(server_name(HOST.encode(), b"evil.example"))),
            "connect: sni: other server names than one",
            ALERT,
        ),
        (
            records(message(server_name(HOST.encode()) + extension(0xFE0D, b"x"))),
            "connect: sni: an encrypted server name",
            ALERT,
        ),
        (
            records(message(server_name(f"{HOST}\0".encode()))),
            "connect: sni: a server name that is no plain host name",
            ALERT,
        ),
        (b"GET / HTTP/1.1\r\nHost: plugins.example.org\r\n\r\n", "connect: no TLS", b""),
        (b"SSH-2.0-OpenSSH_10.0\r\n", "connect: no TLS", b""),
        (CONNECT + HELLO, "connect: no TLS", b""),
        (b"\x80\x2e\x01\x03\x01" + b"\0" * 44, "connect: no TLS", b""),
    ],
)
async def test_what_begins_otherwise_than_tls_for_the_host_never_gets_out(
    hello: bytes, rule: str, answer: bytes, bench: Bench
) -> None:
    await bench.send(CONNECT)
    assert await bench.hear(len(ESTABLISHED)) == ESTABLISHED
    await bench.send(hello)
    assert await bench.hear_all() == answer
    assert await bench.finish() == ("refused", rule, 200)
    # Not even a look-up: no name server is told.
    assert (bench.dialler.asked, bench.dialler.dialled) == ([], [])


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], [ADDRESS, "10.0.0.1"], ["10.0.0.1", ADDRESS], [ADDRESS] * 9 + ["::1"], ["::ffff:203.0.113.80"]],
)
async def test_a_name_with_one_forbidden_address_is_refused_whole(addresses: list[str], bench: Bench) -> None:
    bench.dialler.addresses = addresses
    await bench.send(CONNECT + HELLO)
    assert await bench.hear_all() == ESTABLISHED + ALERT
    verdict, rule, _ = await bench.finish()
    assert (verdict, rule.startswith("connect: address: ")) == ("refused", True)
    assert (bench.dialler.asked, bench.dialler.dialled) == ([HOST], [])


async def test_a_name_that_changes_after_the_check_is_not_asked_again(bench: Bench) -> None:
    bench.dialler.addresses = ["192.0.2.1", "192.0.2.2", ADDRESS]
    bench.dialler.dead = {"192.0.2.1", "192.0.2.2"}
    await bench.establish()
    # Whatever fails, only the addresses that were judged are dialled, in their order.
    assert bench.dialler.asked == [HOST]
    assert bench.dialler.dialled == ["192.0.2.1", "192.0.2.2", ADDRESS]


async def test_this_machines_own_address_is_refused(bench: Bench) -> None:
    bench.dialler.own = {ADDRESS}
    await bench.send(CONNECT + HELLO)
    assert await bench.hear_all() == ESTABLISHED + ALERT
    assert await bench.finish() == ("refused", "connect: address: this machine's own", 200)


@pytest.mark.parametrize("addresses", [[], ["192.0.2.1"], [f"192.0.2.{n}" for n in range(1, 100)]])
async def test_a_host_that_cannot_be_reached_is_a_failure(addresses: list[str], bench: Bench) -> None:
    bench.dialler.addresses = addresses
    bench.dialler.dead = set(addresses)
    await bench.send(CONNECT + HELLO)
    assert await bench.hear_all() == ESTABLISHED + ALERT
    assert await bench.finish() == ("failed", "connect: unreachable", 200)
    assert len(bench.dialler.dialled) <= MAX_ADDRESSES


@pytest.mark.parametrize(
    ("sent", "patience", "rule"),
    [
        (CONNECT[:-1], Patience(request=0.1), "connect: slow request"),
        (CONNECT, Patience(hello=0.1), "connect: slow hello"),
        (CONNECT + HELLO[:-1], Patience(hello=0.1), "connect: slow hello"),
        (CONNECT + HELLO, Patience(look_up=0.1), "connect: unreachable"),
    ],
)
async def test_a_slow_client_or_name_server_is_not_waited_for(sent: bytes, patience: Patience, rule: str) -> None:
    bench = Bench(patience=patience, dialler=FakeDialler(is_silent=True))
    await bench.send(sent)
    await bench.hear_all()
    assert (await bench.finish())[1] == rule
    bench.client.close()


async def test_an_idle_tunnel_is_cut() -> None:
    bench = Bench(patience=Patience(idle=0.3))
    remote = await bench.establish()
    for _ in range(4):
        # Each way counts as life.
        await asyncio.sleep(0.1)
        remote.send(b"a")
        assert await bench.hear(1) == b"a"
    assert not bench.task.done()
    assert await bench.hear_all() == b""
    assert await bench.finish() == ("allowed", "connect: idle", 200)
    assert bench.visit.bytes == 4
    bench.client.close()
    remote.close()


async def test_a_registry_that_breaks_off_ends_the_tunnel(bench: Bench) -> None:
    remote = await bench.establish()
    await bench.send(b"q" * 1000)
    # Closing with something unread is a reset.
    remote.close()
    assert await bench.hear_all() == b""
    assert await bench.finish() == ("allowed", "connect: broke off", 200)


@pytest.mark.parametrize("sent", [b"", CONNECT[:10], CONNECT, CONNECT + HELLO[:100]])
async def test_a_client_that_hangs_up_early(sent: bytes, bench: Bench) -> None:
    await bench.send(sent)
    bench.client.shutdown(socket.SHUT_WR)
    await bench.hear_all()
    verdict, rule, _ = await bench.finish()
    assert (verdict, rule) == ("failed", "client closed")
    assert bench.dialler.asked == []


async def test_tunnels_are_counted(bench: Bench) -> None:
    others = [Bench(slots=bench.slots) for _ in range(4)]
    remotes = [await other.establish() for other in others]
    await bench.send(CONNECT)
    assert (await bench.hear_all()).startswith(b"HTTP/1.1 503 Qila: ")
    assert await bench.finish() == ("refused", "connect: too many", 503)
    for other, remote in zip(others, remotes, strict=True):
        other.client.close()
        remote.close()
        await asyncio.wait_for(other.task, 10)
    assert not bench.slots.locked()
