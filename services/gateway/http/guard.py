"""What every request must pass before anything looks at it, and what every answer says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.http.answers import error_response
from services.rpc import log_ids
from services.rpc.errors import ErrorCode, QilaError, invalid_argument, resource_exhausted, unavailable
from services.rpc.log import write_later

_LOG: Final = structlog.get_logger("services.gateway.http")
_MAX_HEADERS: Final = 100
MAX_HEAD_BYTES: Final = 16 << 10
MAX_REQUESTS: Final = 256
_OWN_SITES: Final = frozenset({"", "none", "same-origin"})
_ANSWER_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Refuses what a web page could have sent: another Host, another Origin, another site; and what is too much."""

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, with an id, and one line in the log."""
        log_ids.bind_from({}, from_service=False)
        request_id = str(structlog.contextvars.get_contextvars()["request_id"])
        started = time.perf_counter()
        # Stays so if the client leaves first.
        status = 499

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-qila-request-id"] = request_id
                for name, value in _ANSWER_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        self._requests += 1
        try:
            await self._guarded(scope, receive, answer)
        finally:
            self._requests -= 1
            duration_ms = round((time.perf_counter() - started) * 1000, 2)
            method, path = scope["method"][:16], scope["path"][:256]
            write_later(_LOG.info, "call", method=method, path=path, status=status, duration_ms=duration_ms)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
        except QilaError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._requests > MAX_REQUESTS:
            raise unavailable("TOO_MANY_REQUESTS", f"{MAX_REQUESTS} requests are being served; wait for one to end")
        if len(headers.raw) > _MAX_HEADERS or sum(len(n) + len(v) for n, v in headers.raw) > MAX_HEAD_BYTES:
            message = f"headers must be at most {_MAX_HEADERS}, and {MAX_HEAD_BYTES} bytes together"
            raise resource_exhausted("HEADERS_TOO_LARGE", message)
        self._check_host(headers.getlist("host"))
        self._check_origin(headers.getlist("origin"), headers.getlist("sec-fetch-site"))
        try:
            unquote_to_bytes(scope["raw_path"]).decode()
        except UnicodeDecodeError:
            raise invalid_argument("PATH_INVALID", "the path must be UTF-8") from None

    def _check_host(self, hosts: list[str]) -> None:
        """A page whose own name was made to lead here still sends that name."""
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            named = hosts[0][:64] if hosts else ""
            message = f"Host {named!r} is not one of this door's; an operator can add it to QILA_HTTP_HOSTS"
            raise QilaError(ErrorCode.PERMISSION_DENIED, "HOST_NOT_ALLOWED", message)

    def _check_origin(self, origins: list[str], sites: list[str]) -> None:
        """A browser names the page that a request comes from, or at least says that it is another site's."""
        if origins:
            if len(origins) != 1 or origins[0] not in self._origins:
                message = f"pages of {origins[0][:64]!r} may not call; an operator can add it to QILA_HTTP_ORIGINS"
                raise QilaError(ErrorCode.PERMISSION_DENIED, "ORIGIN_NOT_ALLOWED", message)
        elif any(site.lower() not in _OWN_SITES for site in sites):
            message = "a page of another site may not call"
            raise QilaError(ErrorCode.PERMISSION_DENIED, "ORIGIN_NOT_ALLOWED", message)
