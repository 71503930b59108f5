"""The doors' own requests to the registries: built afresh, never redirected, bounded in time and size."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from yarl import URL

from services.executor.egress.verdicts import Refused, UpstreamFailed

USER_AGENT = "Qila"

_SYSTEM_STORE = Path("/etc/ssl/certs/ca-certificates.crt")
_MAX_CONNECTIONS = 64
_PAGE_SECONDS = 120
_CHUNK_BYTES = 64 * 1024
_TIMEOUTS = aiohttp.ClientTimeout(total=None, connect=60, sock_connect=15, sock_read=60)


class UpstreamBrokeOff(Exception):
    """The registry stopped in the middle of an artefact."""


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
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def fetch_page(self, url: str, *, accept: str, max_bytes: int) -> bytes | None:
        """Get a page whole; None if the registry has none (404). A broken connection is tried once more.

        Raises:
            UpstreamFailed: unreachable, too slow, or an error of the registry.
            Refused: a redirect, or more than `max_bytes` after decompression.
        """
        headers = {"Accept": accept, "Accept-Encoding": "gzip"}
        try:
            async with asyncio.timeout(_PAGE_SECONDS):
                try:
                    return await self._fetch_once(url, headers, max_bytes)
                except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                    return await self._fetch_once(url, headers, max_bytes)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _failure(error) from error

    async def _fetch_once(self, url: str, headers: dict[str, str], max_bytes: int) -> bytes | None:
        async with self._session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as response:
            if not _found(response):
                return None
            page = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                page += chunk
                if len(page) > max_bytes:
                    raise Refused(
                        status=502, rule="index too large", advice=f"The registry's page is over {max_bytes} bytes."
                    )
            return bytes(page)

    @asynccontextmanager
    async def open_file(self, method: str, url: str) -> AsyncIterator[aiohttp.ClientResponse | None]:
        """Ask for an artefact as it is, uncompressed; None if the registry has none (404).

        Raises:
            UpstreamFailed: unreachable, too slow, or an error of the registry.
            Refused: a redirect, or a body in another encoding than the file's own.
        """
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        try:
            response = await self._session.request(
                method, URL(url, encoded=True), headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _failure(error) from error
        async with response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise Refused(status=502, rule="encoded artefact", advice="The registry sent an encoded file.")
            yield response if _found(response) else None


async def file_chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body in pieces of at most 64 KiB.

    Raises:
        UpstreamBrokeOff: the registry stopped before the end.
    """
    try:
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            yield chunk
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UpstreamBrokeOff from error


def _found(response: aiohttp.ClientResponse) -> bool:
    if response.status == 404:  # noqa: PLR2004  # HTTP's own number
        return False
    if 300 <= response.status < 400:  # noqa: PLR2004  # HTTP's own numbers
        raise Refused(status=502, rule="redirect", advice="The registry redirected, which this door does not follow.")
    if response.status != 200:  # noqa: PLR2004  # HTTP's own number
        raise UpstreamFailed(
            status=502,
            rule="registry error",
            advice=f"The registry answered {response.status}. Try again later.",
        )
    return True


def _failure(error: aiohttp.ClientError | TimeoutError) -> UpstreamFailed:
    if isinstance(error, TimeoutError):
        return UpstreamFailed(
            status=504, rule="registry timeout", advice="The registry did not answer in time. Try again later."
        )
    return UpstreamFailed(
        status=502,
        rule="registry unreachable",
        advice=f"The registry cannot be reached ({type(error).__name__}). Check this machine's network.",
    )
