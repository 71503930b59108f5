"""Index pages: kept, asked for again only to see whether they changed, and served all the same while that fails."""

import asyncio
import datetime
import email.utils
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog
from yarl import URL

from services.executor.egress.cache.port import Cache, Entry
from services.executor.egress.ecosystems.port import Page
from services.executor.egress.flights import Flights
from services.executor.egress.registries import Registry
from services.executor.egress.upstream import RegistryDown, RegistryUnreachable, Upstream, UpstreamPage
from services.executor.egress.verdicts import Refused
from services.executor.egress.workers import Workers

_log = structlog.get_logger()

FRESH_SECONDS = 60.0
# Whoever asks while a registry does not answer would wait for the same time-out again.
_UNREACHABLE_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class FoundPage:
    """A page, and the host that sent it; `is_stale` if that could not be asked whether it changed."""

    body: bytes
    host: str
    last_modified: datetime.datetime | None
    is_stale: bool = False


class Pages:
    """The pages of all registries."""

    def __init__(
        self, *, upstream: Upstream, cache: Cache, workers: Workers, clock: Callable[[], float] = time.time
    ) -> None:
        self._upstream = upstream
        self._cache = cache
        self._workers = workers
        self._clock = clock
        self._flights: Flights[FoundPage | None] = Flights()
        self._unreachable: dict[str, float] = {}

    async def get(self, page: Page, registry: Registry) -> FoundPage | None:
        """The page; None if the registry has none.

        Raises:
            TurnedAway: the registry cannot be asked, or what it says cannot be used, and nothing is kept.
        """
        key = page_key(page)
        found = await self._flights.join(key, lambda: self._look(key, page, registry))
        if found is not None and len(found.body) > page.max_bytes:
            raise Refused(status=502, rule="index too large", advice=f"The page is over {page.max_bytes} bytes.")
        return found

    async def _look(self, key: str, page: Page, registry: Registry) -> FoundPage | None:
        held = await self._cache.get(key)
        if held is None:
            return await self._ask(key, page, registry)
        with held:
            body = await self._workers.run(held.file.readall)
        entry = held.entry
        if page.immutable or 0 <= self._clock() - entry.fetched < FRESH_SECONDS:
            return _found(entry, body)
        host = URL(page.url, encoded=True).host or ""
        now = asyncio.get_running_loop().time()
        if now < self._unreachable.get(host, now):
            return _found(entry, body, is_stale=True)
        try:
            found = await self._ask(key, page, registry, entry, body)
        except RegistryDown as reason:
            _log.warning("kept page served", url=page.url, reason=str(reason), fetched=entry.fetched)
            if isinstance(reason, RegistryUnreachable):
                self._unreachable[host] = asyncio.get_running_loop().time() + _UNREACHABLE_SECONDS
            return _found(entry, body, is_stale=True)
        self._unreachable.pop(host, None)
        return found

    async def _ask(
        self, key: str, page: Page, registry: Registry, kept: Entry | None = None, kept_body: bytes = b""
    ) -> FoundPage | None:
        headers = {"Accept": page.accept, **page.headers, **_conditions(kept)}
        answer = await self._upstream.fetch_page(page.url, headers=headers, max_bytes=page.max_bytes, registry=registry)
        if answer is None:
            self._cache.forget(key)
            return None
        if answer.body is None:
            assert kept is not None
            self._cache.refresh(replace(kept, fetched=self._clock()))
            return _found(kept, kept_body)
        entry = await self._keep(key, answer, answer.body)
        return _found(entry, answer.body)

    async def _keep(self, key: str, answer: UpstreamPage, body: bytes) -> Entry:
        entry = Entry(
            key=key, sha256=await self._workers.run(_sha256, body), size=len(body), host=answer.host,
            etag=answer.etag, last_modified=answer.last_modified, fetched=self._clock(),
        )  # fmt: skip  # one line of fields reads better than eight
        partial = self._cache.begin()
        if partial is None:
            return entry
        kept = False
        try:
            if self._cache.make_room(partial, len(body)):
                await self._workers.run(partial.append, body)
                self._cache.commit(partial, entry)
                kept = True
        except OSError as error:
            _log.error("page not kept", key=key, error=str(error))
        finally:
            if not kept:
                self._cache.abandon(partial)
            self._cache.release(partial)
        return entry


def page_key(page: Page) -> str:
    """The cache's key of a page: everything that the registry is asked."""
    return json.dumps(["page", page.url, page.accept, sorted(page.headers.items())], separators=(",", ":"))


def _conditions(kept: Entry | None) -> dict[str, str]:
    if kept is None:
        return {}
    conditions = {"If-None-Match": kept.etag, "If-Modified-Since": kept.last_modified}
    return {name: value for name, value in conditions.items() if value is not None}


def _found(entry: Entry, body: bytes, *, is_stale: bool = False) -> FoundPage:
    return FoundPage(body=body, host=entry.host, last_modified=_time(entry.last_modified), is_stale=is_stale)


def _time(text: str | None) -> datetime.datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text) if text is not None else None
    except ValueError:
        return None
    # A date with the zone `-0000` comes without one, and is meant as UTC.
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
