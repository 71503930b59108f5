"""The doors' own requests to the registries: built afresh, bounded in time and size, redirected only where allowed."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from services.executor.egress.registries import Registry
from services.executor.egress.verdicts import Refused, UpstreamFailed

USER_AGENT = "Qila"

_SYSTEM_STORE = Path("/etc/ssl/certs/ca-certificates.crt")
_MAX_CONNECTIONS = 64
_MAX_REDIRECTS = 3
_PAGE_SECONDS = 120
_BUFFER_BYTES = 256 * 1024
_MAX_VALIDATOR = 256
_TIMEOUTS = aiohttp.ClientTimeout(total=None, connect=60, sock_connect=15, sock_read=60)

_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NOT_MODIFIED = 304
_NOT_FOUND = frozenset({404, 410})
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = range(500, 600)


class RegistryDown(UpstreamFailed):
    """The registry cannot answer now, but may well do so later."""


class RegistryUnreachable(RegistryDown):
    """The registry does not answer at all."""


class UpstreamBrokeOff(Exception):
    """The registry stopped in the middle of an artefact."""


@dataclass(frozen=True, kw_only=True)
class UpstreamPage:
    """A page as `host` sent it, with its validators; `body` None means that it has not changed."""

    body: bytes | None
    host: str
    etag: str | None
    last_modified: str | None


def tls_context() -> ssl.SSLContext:
    """Verification by the machine's own trust store, which may know an authority that nobody else does."""
    store = os.environ.get("SSL_CERT_FILE")
    if store is None and _SYSTEM_STORE.exists():
        store = str(_SYSTEM_STORE)
    return ssl.create_default_context(cafile=store)


class Upstream:
    """The one HTTP client of the doors. Create and close it inside a running loop."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_MAX_CONNECTIONS, ssl=context),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT},
            timeout=_TIMEOUTS,
            trust_env=False,
            read_bufsize=_BUFFER_BYTES,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def fetch_page(
        self, url: str, *, headers: Mapping[str, str], max_bytes: int, registry: Registry
    ) -> UpstreamPage | None:
        """Get a page whole; None if the registry has none (404, 410). A broken connection is tried once more.

        Raises:
            RegistryDown: unreachable, too slow, or unable to answer now.
            UpstreamFailed: another error of the registry.
            Refused: a redirect to elsewhere, or more than `max_bytes` after decompression.
        """
        try:
            async with asyncio.timeout(_PAGE_SECONDS):
                try:
                    return await self._fetch_once(url, headers, max_bytes, registry)
                except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                    return await self._fetch_once(url, headers, max_bytes, registry)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _failure(error) from error

    async def _fetch_once(
        self, url: str, headers: Mapping[str, str], max_bytes: int, registry: Registry
    ) -> UpstreamPage | None:
        is_conditional = not headers.keys().isdisjoint({"If-None-Match", "If-Modified-Since"})
        async with await self._request("GET", url, {**headers, "Accept-Encoding": "gzip"}, registry) as response:
            unchanged = is_conditional and response.status == _NOT_MODIFIED
            if not unchanged and not _found(response):
                return None
            return UpstreamPage(
                body=None if unchanged else await _whole(response, max_bytes),
                host=response.url.host or "",
                etag=_validator(response, "ETag"),
                last_modified=_validator(response, "Last-Modified"),
            )

    @asynccontextmanager
    async def open_file(
        self, method: str, url: str, *, headers: Mapping[str, str], registry: Registry
    ) -> AsyncIterator[aiohttp.ClientResponse | None]:
        """Ask for an artefact as it is, uncompressed; None if the registry has none (404, 410).

        Raises:
            RegistryDown: unreachable, too slow, or unable to answer now.
            UpstreamFailed: another error of the registry.
            Refused: a redirect to elsewhere, or a body in another encoding than the file's own.
        """
        sent = {"Accept": "*/*", **headers, "Accept-Encoding": "identity"}
        try:
            response = await self._request(method, url, sent, registry)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _failure(error) from error
        async with response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise Refused(status=502, rule="encoded artefact", advice="The registry sent an encoded file.")
            yield response if _found(response) else None

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], registry: Registry
    ) -> aiohttp.ClientResponse:
        """The answer at the end of the redirects; the client never learns of them."""
        if not registry.owns(url):
            raise Refused(status=404, rule="outside the registry", advice="This path leads out of its registry.")
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._session.request(
                method, URL(url, encoded=True), headers=headers, allow_redirects=False
            )
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            response.release()
            url = _target(url, location)
            if not registry.follows(url):
                raise Refused(
                    status=502, rule="redirect", advice="The registry redirected to where this door does not follow."
                )
        raise Refused(status=502, rule="redirect", advice=f"The registry redirected more than {_MAX_REDIRECTS} times.")


async def file_chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body in the pieces that come.

    Raises:
        UpstreamBrokeOff: the registry stopped before the end.
    """
    try:
        while chunk := await response.content.readany():
            yield chunk
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UpstreamBrokeOff from error


async def _whole(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    page = bytearray()
    while chunk := await response.content.readany():
        page += chunk
        if len(page) > max_bytes:
            raise Refused(status=502, rule="index too large", advice=f"The registry's page is over {max_bytes} bytes.")
    return bytes(page)


def _target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""


def _found(response: aiohttp.ClientResponse) -> bool:
    status = response.status
    if status in _NOT_FOUND:
        return False
    if status == _OK:
        return True
    kind = RegistryDown if status == _TOO_MANY_REQUESTS or status in _SERVER_ERRORS else UpstreamFailed
    raise kind(status=502, rule="registry error", advice=f"The registry answered {status}. Try again later.")


def _validator(response: aiohttp.ClientResponse, name: str) -> str | None:
    """A header that is only ever sent back."""
    value = response.headers.get(name)
    return value if value is not None and len(value) <= _MAX_VALIDATOR and value.isprintable() else None


def _failure(error: aiohttp.ClientError | TimeoutError) -> RegistryUnreachable:
    if isinstance(error, TimeoutError):
        return RegistryUnreachable(
            status=504, rule="registry timeout", advice="The registry did not answer in time. Try again later."
        )
    return RegistryUnreachable(
        status=502,
        rule="registry unreachable",
        advice=f"The registry cannot be reached ({type(error).__name__}). Check this machine's network.",
    )
