"""One connection at the CONNECT door: a request, the client's first TLS message, a way out, bytes both ways."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from services.executor.egress.addresses import Address, ForbiddenAddress, check_addresses
from services.executor.egress.client_hello import ClientHelloReader, InvalidHello
from services.executor.egress.connect_request import END_OF_HEAD, MAX_HEAD_BYTES, parse_head, requested_host
from services.executor.egress.limits import BYTES_RULE, Allowance, AllowanceSpent
from services.executor.egress.verdicts import Refused, TurnedAway, UpstreamFailed, Visit

_log = structlog.get_logger()

MAX_ADDRESSES = 4
_LAST_WORDS_SECONDS = 5.0
_PIECE_BYTES = 64 * 1024
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
# A TLS alert, so that the client says "access denied" instead of something about a lost connection.
_ACCESS_DENIED = b"\x15\x03\x03\x00\x02\x02\x31"

Decide = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a tunnel waits for each thing, in seconds; `idle` is for the next byte of either side."""

    request: float = 10
    hello: float = 10
    look_up: float = 15
    dial: float = 10
    idle: float = 120


_PATIENCE = Patience()


class Dialler(Protocol):
    """The way out; `SystemDialler` is the only one outside tests."""

    async def resolve(self, host: str) -> Sequence[str]:
        """Every address of a name; OSError if there is none."""

    async def dial(self, address: Address) -> socket.socket:
        """A connection to port 443; OSError or ForbiddenAddress if there is to be none."""


class _ClientClosed(Exception):
    """The client hung up before it had said what it wants."""


async def serve_tunnel(
    client: socket.socket,
    visit: Visit,
    *,
    decide: Decide,
    slots: asyncio.Semaphore,
    dialler: Dialler,
    patience: Patience = _PATIENCE,
) -> None:
    """Serve a non-blocking connection from its first byte to its end, and settle `visit`; the caller closes it.

    `decide` returns for a host that is allowed now and raises Refused for any other; a tunnel takes one of the `slots`
    or is refused. A refused client hears why; what it sent behind its request is dropped. Cancelling cuts the tunnel.
    """
    try:
        head, surplus = await _read_head(client, patience.request)
        _allow(head, visit, decide, slots)
    except _ClientClosed:
        return
    except TurnedAway as reason:
        await _turn_away(client, visit, reason)
        return
    async with slots:
        await _serve_allowed(client, surplus, visit, dialler, patience)


def _allow(head: bytes, visit: Visit, decide: Decide, slots: asyncio.Semaphore) -> None:
    request = parse_head(head)
    visit.method, visit.path = request.method, request.target
    host = requested_host(request)
    visit.host = host
    decide(host)
    if slots.locked():
        raise Refused(status=503, rule="connect: too many", advice="this sandbox has as many tunnels as it may have.")


async def _serve_allowed(
    client: socket.socket, surplus: bytes, visit: Visit, dialler: Dialler, patience: Patience
) -> None:
    visit.status = 200
    try:
        await _establish(client)
        hello = await _read_hello(client, surplus, visit.host, patience.hello)
        upstream = await _reach(visit.host, dialler, patience)
    except _ClientClosed:
        return
    except TurnedAway as reason:
        visit.conclude(reason.verdict, reason.rule, visit.status)
        if not isinstance(reason, _WithoutAlert):
            await _say(client, _ACCESS_DENIED)
            visit.bytes = len(_ACCESS_DENIED)
        return
    with upstream:
        await _carry(client, upstream, hello, visit, patience.idle)


async def _establish(client: socket.socket) -> None:
    try:
        await asyncio.get_running_loop().sock_sendall(client, _ESTABLISHED)
    except ConnectionError:
        raise _ClientClosed from None


async def _read_head(client: socket.socket, seconds: float) -> tuple[bytes, bytes]:
    loop = asyncio.get_running_loop()
    data = b""
    try:
        async with asyncio.timeout(seconds):
            while END_OF_HEAD not in data and len(data) < MAX_HEAD_BYTES:
                piece = await loop.sock_recv(client, MAX_HEAD_BYTES - len(data))
                if not piece:
                    raise _ClientClosed
                data += piece
    except TimeoutError:
        raise Refused(
            status=408, rule="connect: slow request", advice=f"the request did not come within {seconds:g} s."
        ) from None
    except ConnectionError:
        raise _ClientClosed from None
    head, end, surplus = data.partition(END_OF_HEAD)
    return head + end, surplus


class _WithoutAlert(Refused):
    """A refusal of a client that does not speak TLS, and would not understand an alert."""


async def _read_hello(client: socket.socket, surplus: bytes, host: str, seconds: float) -> bytes:
    """Everything that the client sent up to the end of its ClientHello and a little more, to be passed on as it is."""
    loop = asyncio.get_running_loop()
    reader = ClientHelloReader()
    try:
        async with asyncio.timeout(seconds):
            name = reader.feed(surplus)
            while name is None:
                piece = await loop.sock_recv(client, _PIECE_BYTES)
                if not piece:
                    raise _ClientClosed
                name = reader.feed(piece)
    except InvalidHello as error:
        raise _refused_hello(error) from error
    except TimeoutError:
        raise _WithoutAlert(
            status=200, rule="connect: slow hello", advice=f"TLS did not begin within {seconds:g} s."
        ) from None
    except ConnectionError:
        raise _ClientClosed from None
    if name != host:
        raise Refused(status=200, rule="connect: sni", advice="TLS was begun for another host.")
    return bytes(reader.stream)


def _refused_hello(error: InvalidHello) -> Refused:
    if not error.is_tls:
        return _WithoutAlert(status=200, rule="connect: no TLS", advice="a tunnel carries TLS alone.")
    return Refused(status=200, rule=f"connect: sni: {error}", advice="TLS must name the tunnel's host in the clear.")


async def _reach(host: str, dialler: Dialler, patience: Patience) -> socket.socket:
    """Look the name up once, judge every address that it has, and dial these addresses."""
    try:
        async with asyncio.timeout(patience.look_up):
            found = await dialler.resolve(host)
        addresses = check_addresses(found)
        return await _dial_first(addresses[:MAX_ADDRESSES], dialler, patience.dial)
    except ForbiddenAddress as error:
        _log.warning("forbidden address", host=host, address=error.address, meaning=error.meaning)
        raise Refused(
            status=200, rule=f"connect: address: {error.meaning}", advice="the host's address is forbidden."
        ) from error
    except (OSError, TimeoutError) as error:
        raise UpstreamFailed(status=200, rule="connect: unreachable", advice="the host cannot be reached.") from error


async def _dial_first(addresses: Sequence[Address], dialler: Dialler, seconds: float) -> socket.socket:
    failure: OSError = OSError("the name has no address")
    for address in addresses:
        try:
            async with asyncio.timeout(seconds):
                return await dialler.dial(address)
        except OSError as error:
            failure = error
    raise failure


async def _carry(client: socket.socket, upstream: socket.socket, hello: bytes, visit: Visit, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    visit.conclude("allowed", "connect", 200)
    try:
        async with asyncio.timeout(seconds) as idle:

            def moved() -> None:
                idle.reschedule(loop.time() + seconds)

            def moved_to_client(size: int) -> None:
                visit.bytes += size
                moved()

            rule = await _both_ways(
                _pass_on(client, upstream, hello, visit.allowance, lambda _size: moved()),
                _pass_on(upstream, client, b"", visit.allowance, moved_to_client),
            )
    except TimeoutError:
        visit.rule = "connect: idle"
    else:
        visit.rule = rule


async def _both_ways(*ways: Coroutine[None, None, None]) -> str:
    """Wait for both to end, or for one to break off, which cuts the other; the rule that tells which."""
    rule = "connect"
    try:
        async with asyncio.TaskGroup() as group:
            for way in ways:
                group.create_task(way)
    except* OSError:
        rule = "connect: broke off"
    except* AllowanceSpent:
        rule = BYTES_RULE
    return rule


async def _pass_on(
    source: socket.socket, target: socket.socket, first: bytes, allowance: Allowance, moved: Callable[[int], None]
) -> None:
    """Pass on `first` and then what comes, reading only while the target takes it, and the end of the stream too."""
    loop = asyncio.get_running_loop()
    piece = first or await loop.sock_recv(source, _PIECE_BYTES)
    while piece:
        await allowance.spend(len(piece))
        await loop.sock_sendall(target, piece)
        moved(len(piece))
        piece = await loop.sock_recv(source, _PIECE_BYTES)
    target.shutdown(socket.SHUT_WR)


async def _turn_away(client: socket.socket, visit: Visit, reason: TurnedAway) -> None:
    visit.conclude(reason.verdict, reason.rule, reason.status)
    body = f"Qila: {reason.advice}\n"
    fields = {**reason.headers, "Content-Type": "text/plain", "Content-Length": str(len(body)), "Connection": "close"}
    # Many clients show nothing of a refusal but its first line.
    head = [f"HTTP/1.1 {reason.status} {body.strip()}", *(f"{name}: {value}" for name, value in fields.items())]
    await _say(client, "\r\n".join([*head, "", body]).encode("ascii"))
    visit.bytes = len(body)


async def _say(client: socket.socket, last_words: bytes) -> None:
    """Send, if the client still listens, and end the stream; what the client sends from now on is read by nobody."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            await asyncio.get_running_loop().sock_sendall(client, last_words)
        client.shutdown(socket.SHUT_WR)
