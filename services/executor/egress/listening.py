"""One sandbox's way in: accepts, reads who is calling at which door, and hands the connection to that door."""

import asyncio
import functools
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from aiohttp import web

from services.executor.egress.connect_hosts import ConnectHosts, decide
from services.executor.egress.limits import BYTES_RULE, Allowance, AllowanceSpent
from services.executor.egress.policy import CLOSED, EgressPolicy
from services.executor.egress.records import INSTALL_UID, Phase, printable
from services.executor.egress.reports import Reports
from services.executor.egress.tunnel import Dialler, serve_tunnel
from services.executor.egress.verdicts import Refused, TurnedAway, Visit

_log = structlog.get_logger()

_PREAMBLE = re.compile(rb"QILA1 (?P<door>mirror|connect) (?P<uid>0|[1-9][0-9]{0,9})\n")
_MAX_PREAMBLE_BYTES = 64
_PREAMBLE_SECONDS = 5.0
_MAX_UID = 2**32 - 2
_MAX_CONNECTIONS = 128
# Fewer than the doors' own connections to the registries, so that one sandbox cannot take them all.
_MAX_REQUESTS_AT_ONCE = 24
_MAX_TUNNELS_AT_ONCE = 32
# Also how long the head of a request may take.
_IDLE_SECONDS = 30.0
_ACCEPT_PAUSE_SECONDS = 0.2
_MALFORMED_TEXT = "Qila: the request could not be handled.\n"

Answer = Callable[[web.BaseRequest, Visit], Awaitable[web.StreamResponse]]


class InvalidPreamble(Exception):
    """A connection did not begin with the one line that sandboxd writes."""


@dataclass(frozen=True, kw_only=True)
class Preamble:
    """Which of the two doors a connection came in by, and whose it is."""

    is_connect: bool
    uid: int


async def read_preamble(connection: socket.socket) -> Preamble:
    """Read exactly the preamble line from a non-blocking socket.

    Raises:
        InvalidPreamble: another line, over 64 bytes, or none within 5 s.
    """
    loop = asyncio.get_running_loop()
    line = b""
    try:
        async with asyncio.timeout(_PREAMBLE_SECONDS):
            # Byte by byte: what follows the line belongs to the door.
            while not line.endswith(b"\n") and len(line) < _MAX_PREAMBLE_BYTES:
                byte = await loop.sock_recv(connection, 1)
                if not byte:
                    break
                line += byte
    except (TimeoutError, OSError) as error:
        raise InvalidPreamble from error
    match = _PREAMBLE.fullmatch(line)
    if match is None or int(match["uid"]) > _MAX_UID:
        raise InvalidPreamble
    return Preamble(is_connect=match["door"] == b"connect", uid=int(match["uid"]))


class DoorProtocol(web.RequestHandler):
    """aiohttp's connection, which knows its caller and tells when it is over."""

    __slots__ = ("over", "report_malformed", "uid")

    def __init__(self, server: web.Server, *, uid: int, report_malformed: Callable[[int, int], None]) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=_IDLE_SECONDS,
            tcp_keepalive=False,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to say "none"
            lingering_time=0,
            max_headers=64,
        )
        self.uid = uid
        self.report_malformed = report_malformed
        self.over: asyncio.Future[None] = loop.create_future()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let the owner of the connection go on."""
        super().connection_lost(exc)
        if not self.over.done():
            self.over.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002  # aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # aiohttp's signature
    ) -> web.StreamResponse:
        """Answer what could not be read as HTTP, or what went wrong here, without repeating any of it."""
        if status >= 500:  # noqa: PLR2004  # HTTP's own number
            _log.error("request failed", exc_info=exc)
        else:
            self.report_malformed(self.uid, status)
        response = web.Response(status=status, text=_MALFORMED_TEXT)
        response.force_close()
        return response

    def log_exception(self, *args: object, **kw: object) -> None:
        """Log in this process's own form."""
        _log.error("connection failed", detail=printable(" ".join(str(arg) for arg in args)), **kw)


class SandboxDoor:
    """Everything that the doors keep of one sandbox."""

    def __init__(
        self,
        *,
        sandbox: str,
        peer_uid: int,
        answer: Answer,
        connect_hosts: ConnectHosts,
        dialler: Dialler,
        reports: Reports,
        allowance: Allowance,
    ) -> None:
        self._sandbox = sandbox
        self._peer_uid = peer_uid
        self._answer = answer
        self._connect_hosts = connect_hosts
        self._dialler = dialler
        self._reports = reports
        self._allowance = allowance
        self._install_open = False
        self._policy = CLOSED
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: dict[asyncio.Task[None], int | None] = {}
        self._connection_slots = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._request_slots = asyncio.Semaphore(_MAX_REQUESTS_AT_ONCE)
        self._tunnel_slots = asyncio.Semaphore(_MAX_TUNNELS_AT_ONCE)
        self._server = web.Server(self._handle, handler_cancellation=True)

    async def listen(self, listener: socket.socket) -> None:
        """Accept from `listener`, which this door now owns, in place of any earlier one."""
        await self._stop_accepting()
        listener.setblocking(False)
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener))

    def set_install(self, *, is_open: bool) -> None:
        """Say whether an install runs; when it ends, the connections of its user are cut."""
        self._install_open = is_open
        if not is_open:
            for task, uid in list(self._connections.items()):
                if uid == INSTALL_UID:
                    task.cancel()

    async def set_policy(self, policy: EgressPolicy) -> None:
        """Replace the policy; when this returns, what was begun under another one is cut."""
        if policy != self._policy:
            self._policy = policy
            await self._cut()

    async def close(self) -> None:
        """Stop accepting and cut every connection."""
        await self._stop_accepting()
        await self._cut()

    async def drain(self, seconds: float) -> None:
        """Stop accepting, let requests under way end within `seconds`, then cut."""
        await self._stop_accepting()
        self._server.pre_shutdown()
        # aiohttp takes this time twice: before it cancels a request, and after.
        await self._server.shutdown(seconds / 2)
        await self.close()

    async def _cut(self) -> None:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._connection_slots.acquire()
            try:
                await self._reports.room()
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._connection_slots.release()
                _log.warning("accept failed", sandbox=self._sandbox, error=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            except BaseException:
                self._connection_slots.release()
                raise
            task = asyncio.create_task(self._serve(connection))
            self._connections[task] = None
            task.add_done_callback(functools.partial(self._forget, connection))

    def _forget(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        # One that was cut before it began has closed nothing, and whoever asked would wait for ever.
        connection.close()
        del self._connections[task]
        self._connection_slots.release()
        if not task.cancelled() and task.exception() is not None:
            _log.error("connection failed", sandbox=self._sandbox, exc_info=task.exception())

    async def _serve(self, connection: socket.socket) -> None:
        try:
            _check_peer(connection, self._peer_uid)
            preamble = await read_preamble(connection)
        except InvalidPreamble:
            connection.close()
            self._report_refused(uid=65534, rule="preamble", status=0)
            return
        except BaseException:
            connection.close()
            raise
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = preamble.uid
        if preamble.is_connect:
            await self._serve_connect(connection, preamble.uid)
        else:
            await self._serve_mirror(connection, preamble.uid)

    async def _serve_mirror(self, connection: socket.socket, uid: int) -> None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_accepted_socket(
            lambda: DoorProtocol(self._server, uid=uid, report_malformed=self._report_malformed), connection
        )
        try:
            await protocol.over
        finally:
            transport.abort()

    async def _serve_connect(self, connection: socket.socket, uid: int) -> None:
        visit = Visit(sandbox=self._sandbox, phase=self._phase(uid), uid=uid, allowance=self._allowance)
        try:
            await serve_tunnel(
                connection,
                visit,
                decide=lambda host: self._decide_tunnel(visit, host),
                slots=self._tunnel_slots,
                dialler=self._dialler,
            )
        except asyncio.CancelledError:
            if visit.verdict != "refused":
                visit.rule = "connect: cut"
            raise
        except Exception:
            visit.conclude("failed", "internal error", visit.status)
            raise
        finally:
            connection.close()
            self._reports.add(visit.record())

    def _decide_tunnel(self, visit: Visit, host: str) -> None:
        # An install may have begun or ended since the connection was made.
        visit.phase = self._phase(visit.uid)
        decide(
            host,
            policy=self._policy,
            operator=self._connect_hosts,
            uid=visit.uid,
            install_open=self._install_open,
        )
        self._check_allowance()

    def _report_malformed(self, uid: int, status: int) -> None:
        self._report_refused(uid=uid, rule="malformed request", status=status)

    def _report_refused(self, *, uid: int, rule: str, status: int) -> None:
        visit = Visit(sandbox=self._sandbox, phase=self._phase(uid), uid=uid)
        visit.conclude("refused", rule, status)
        visit.bytes = len(_MALFORMED_TEXT) if status else 0
        self._reports.add(visit.record())

    def _phase(self, uid: int) -> Phase:
        return "INSTALL" if uid == INSTALL_UID and self._install_open else "RUN"

    def _check_policy(self, phase: Phase) -> None:
        if not self._policy.registries:
            raise Refused(status=403, rule="policy: closed", advice="this sandbox's egress policy opens no door.")
        if self._policy.install_only and phase != "INSTALL":
            raise Refused(
                status=403,
                rule="policy: install only",
                advice="the doors of this sandbox are open during installs alone.",
            )

    def _check_allowance(self) -> None:
        if self._allowance.is_spent:
            raise Refused(
                status=403,
                rule=BYTES_RULE,
                advice="this sandbox has had all bytes that the operator grants it in 24 hours.",
            )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._reports.room()
        assert isinstance(request.protocol, DoorProtocol)
        uid = request.protocol.uid
        visit = Visit(
            sandbox=self._sandbox,
            phase=self._phase(uid),
            uid=uid,
            method=request.method,
            path=request.raw_path,
            allowance=self._allowance,
        )
        try:
            self._check_policy(visit.phase)
            _check_request(request, uid, install_open=self._install_open)
            self._check_allowance()
            async with self._request_slots:
                response = await self._answer(request, visit)
                if isinstance(response, web.Response):
                    # Its body goes out as a whole, behind this.
                    await self._allowance.spend(visit.bytes)
                return response
        except AllowanceSpent:
            # The head may have gone out already: what the client has must not look like the whole.
            visit.conclude("refused", BYTES_RULE, visit.status)
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        except TurnedAway as reason:
            visit.conclude(reason.verdict, reason.rule, reason.status)
            return _turn_away(request, visit, reason)
        except Exception:
            visit.conclude("failed", "internal error", 500)
            raise
        finally:
            self._reports.add(visit.record())


def _check_peer(connection: socket.socket, peer_uid: int) -> None:
    """Only sandboxd, which runs as the user that started the doors, may have dialled."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    if uid != peer_uid:
        raise InvalidPreamble


def _check_request(request: web.BaseRequest, uid: int, *, install_open: bool) -> None:
    if uid == INSTALL_UID and not install_open:
        raise Refused(
            status=403,
            rule="no install is running",
            advice="no install is running in this sandbox, and what one left behind may not use the registries.",
        )
    if request.method not in {"GET", "HEAD"}:
        raise Refused(
            status=405,
            rule="method",
            advice="this door only reads: use GET or HEAD.",
            headers={"Allow": "GET, HEAD"},
        )
    if request.body_exists or "Upgrade" in request.headers:
        raise Refused(status=400, rule="body", advice="a request to this door has no body and no upgrade.")


def _turn_away(request: web.BaseRequest, visit: Visit, reason: TurnedAway) -> web.Response:
    body = f"Qila: {reason.advice}\n".encode()
    visit.bytes = 0 if request.method == "HEAD" else len(body)
    response = web.Response(status=reason.status, body=body, headers=reason.headers, content_type="text/plain")
    # Whatever follows a refused request on its connection cannot be trusted to be a request.
    response.force_close()
    return response
