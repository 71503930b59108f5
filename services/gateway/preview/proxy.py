"""One browser's connection: requests are checked, carried to the program, and answered. h11 reads both sides."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import parse_qs, urlsplit

import h11
import structlog

from services.gateway.ports import ExecutorPort
from services.gateway.preview import heads
from services.gateway.preview.links import OPENING_PATH, PreviewLinks, Target
from services.gateway.preview.port_link import PortLink
from services.rpc.errors import ErrorCode, QilaError

_LOG: Final = structlog.get_logger("services.gateway")
MAX_HEAD_BYTES: Final = 64 << 10
_READ_BYTES: Final = 64 << 10
_HEAD_SECONDS: Final = 20.0
_IDLE_SECONDS: Final = 75.0
_STATUSES: Final = {ErrorCode.NOT_FOUND: 404, ErrorCode.RESOURCE_EXHAUSTED: 503, ErrorCode.FAILED_PRECONDITION: 502}


@dataclass(eq=False)
class RefusedError(Exception):
    """A request that is answered by us: a status, and words for a person."""

    status: int
    text: str


class Browser:
    """A browser's connection.

    Args:
        reader: of its socket.
        writer: of its socket.
        executor_port: reaches the sandboxes.
        links: checks who may see what.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        executor_port: ExecutorPort,
        links: PreviewLinks,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._executor = executor_port
        self._links = links
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def serve(self) -> None:
        """Answers its requests until it or we close."""
        seconds = _HEAD_SECONDS
        while True:
            try:
                request = await asyncio.wait_for(self._next(), seconds)
            except (TimeoutError, ConnectionError):
                return
            except h11.RemoteProtocolError as error:
                await self._refuse(RefusedError(error.error_status_hint, f"no HTTP that is understood here: {error}"))
                return
            if not isinstance(request, h11.Request):
                return
            try:
                await self._answer(request)
            except RefusedError as refused:
                await self._refuse(refused)
            except (h11.RemoteProtocolError, h11.LocalProtocolError, ConnectionError, QilaError) as error:
                # In the middle of an answer there is nobody to tell but the log; the browser sees it cut.
                _LOG.info("preview_cut", error=str(error)[:200])
                return
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()
            seconds = _IDLE_SECONDS

    async def _next(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._reader.read(_READ_BYTES))
        return event

    async def _send(self, event: Any) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
            await self._writer.drain()

    async def _answer(self, request: h11.Request) -> None:
        headers = list(request.headers)
        target = self._links.target(heads.value_of(headers, b"host"))
        if target is None:
            raise RefusedError(421, "no preview has this address; make one: qila preview SANDBOX PORT")
        if request.method == b"CONNECT":
            raise RefusedError(405, "a preview is no proxy")
        token = _opening_token(request.target.decode("latin-1"))
        if token is not None:
            await self._open(target, token)
            return
        now = time.time()
        expiries = [self._links.expiry(target, token, now) for token in heads.tokens_of(headers)]
        expiry = max((expiry for expiry in expiries if expiry is not None), default=None)
        if expiry is None:
            raise RefusedError(403, "this preview was not opened here, or has expired; make a new URL: qila preview")
        if heads.comes_from_elsewhere(headers, target, self._links):
            raise RefusedError(403, "a page of another origin may not use this preview")
        try:
            # A WebSocket, or an answer without an end, must not outlive the right to see it.
            async with asyncio.timeout(expiry - now):
                await self._carry(request, headers, target)
        except TimeoutError:
            raise ConnectionResetError("the right to see the preview has expired") from None

    async def _open(self, target: Target, token: str) -> None:
        now = time.time()
        expiry = self._links.expiry(target, token, now)
        if expiry is None:
            raise RefusedError(403, "this URL is not valid here, or has expired; make a new one: qila preview")
        cookie = heads.opening_cookie(token, int(expiry - now))
        headers = [(b"location", b"/"), (b"set-cookie", cookie), (b"cache-control", b"no-store")]
        await self._respond(303, [*headers, (b"referrer-policy", b"no-referrer")], b"")

    async def _refuse(self, refused: RefusedError) -> None:
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        with suppress(ConnectionError, h11.LocalProtocolError):
            await self._respond(refused.status, [], f"{refused.text}\n".encode())

    async def _respond(self, status: int, headers: list[heads.Header], body: bytes) -> None:
        described = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        # What is left of the request is not read: the connection ends with the answer.
        await self._send(h11.Response(status_code=status, headers=[*headers, *described, (b"connection", b"close")]))
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    # To the program and back

    async def _carry(self, request: h11.Request, headers: list[heads.Header], target: Target) -> None:
        link = PortLink(self._executor, target)
        try:
            try:
                await link.open()
            except QilaError as error:
                status = _STATUSES.get(error.code, 502)
                raise RefusedError(status, error.message) from error
            await self._exchange(link, request, headers)
        finally:
            await link.close()

    async def _exchange(self, link: PortLink, request: h11.Request, headers: list[heads.Header]) -> None:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        asked = h11.Request(method=request.method, target=request.target, headers=heads.for_program(headers))
        await link.send(http.send(asked) or b"")
        sending = asyncio.create_task(self._send_body(link, http))
        receiving = asyncio.create_task(self._receive_answer(link, http))
        try:
            await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                await sending
            # A program may answer before it has read all; what is left of the request is not sent then.
            await receiving
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
        if http.our_state is h11.SWITCHED_PROTOCOL:
            await self._tunnel(link, http)

    async def _send_body(self, link: PortLink, http: h11.Connection) -> None:
        while True:
            event = await self._next()
            match event:
                case h11.Data():
                    await link.send(http.send(h11.Data(data=bytes(event.data))) or b"")
                case h11.EndOfMessage():
                    await link.send(http.send(h11.EndOfMessage(headers=event.headers)) or b"")
                    await self._until_gone()
                case _:
                    raise ConnectionResetError("the browser has gone")

    async def _until_gone(self) -> NoReturn:
        """Sees the browser leave while the program is silent: nobody else would, and its connection would stay."""
        early = 0
        while early <= MAX_HEAD_BYTES:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the browser has gone")
            # Of its next request, or of a WebSocket that it takes for open.
            self._http.receive_data(data)
            early += len(data)
        await asyncio.Event().wait()
        raise AssertionError

    async def _receive_answer(self, link: PortLink, http: h11.Connection) -> None:
        while True:
            event = http.next_event()
            match event:
                case h11.NEED_DATA:
                    http.receive_data(await link.receive())
                case h11.InformationalResponse(status_code=101):
                    await self._send(_response(h11.InformationalResponse, event, upgrade=True))
                    return
                case h11.InformationalResponse():
                    # A 100 is between the program and us: the browser gets its own.
                    continue
                case h11.Response():
                    await self._send(_response(h11.Response, event, upgrade=False))
                case h11.Data():
                    await self._send(h11.Data(data=bytes(event.data)))
                case h11.EndOfMessage():
                    await self._send(h11.EndOfMessage(headers=event.headers))
                    return
                case _:
                    raise ConnectionResetError("the program closed the connection before it had answered")

    async def _tunnel(self, link: PortLink, http: h11.Connection) -> None:
        """A WebSocket: bytes both ways, until one side ends."""

        async def up() -> None:
            data: bytes = self._http.trailing_data[0]
            while True:
                await link.send(data)
                data = await self._reader.read(_READ_BYTES)
                if not data:
                    return

        async def down() -> None:
            data: bytes = http.trailing_data[0]
            while True:
                self._writer.write(data)
                await self._writer.drain()
                data = await link.receive()
                if not data:
                    return

        tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _opening_token(address: str) -> str | None:
    """The token of a request that opens a preview; None of any other."""
    try:
        where = urlsplit(address)
        if where.path != OPENING_PATH:
            return None
        return parse_qs(where.query, max_num_fields=8).get("token", [""])[0]
    except ValueError:
        raise RefusedError(400, "the request has an address that is none") from None


def _response(kind: Any, event: Any, *, upgrade: bool) -> Any:
    headers = heads.for_browser(list(event.headers), upgrade=upgrade)
    return kind(status_code=event.status_code, headers=headers, reason=event.reason)
