"""Artefacts on their way from a registry, each fetched once for everybody who asks for it meanwhile."""

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.executor.egress.cache.port import Cache, Entry, Held
from services.executor.egress.download import Download, Follower, Head
from services.executor.egress.ecosystems.port import Artefact, Digest
from services.executor.egress.registries import Registry
from services.executor.egress.spool import Spool
from services.executor.egress.upstream import Upstream
from services.executor.egress.workers import Workers


class Downloads:
    """The artefacts of all registries: from the cache, from a download under way, or from a new one."""

    def __init__(
        self, *, upstream: Upstream, cache: Cache, workers: Workers, clock: Callable[[], float] = time.time
    ) -> None:
        self._upstream = upstream
        self._cache = cache
        self._workers = workers
        self._clock = clock
        self._running: dict[str, Download] = {}

    async def kept(self, artefact: Artefact) -> Held | None:
        """The artefact as the cache has it, if it is proven to be what is asked for. The caller closes it."""
        held = await self._cache.get(artefact_key(artefact))
        if held is None or _proves(held.entry, artefact.digest):
            return held
        held.file.close()
        return None

    async def head(self, artefact: Artefact, registry: Registry) -> Head | None:
        """What the registry says of an artefact; None if it has none. Raises TurnedAway."""
        async with self._upstream.open_file(
            "HEAD", artefact.url, headers=artefact.headers, registry=registry
        ) as response:
            return None if response is None else Head(size=response.content_length, host=response.url.host or "")

    @asynccontextmanager
    async def follow(self, artefact: Artefact, registry: Registry) -> AsyncIterator[Follower]:
        """Read an artefact as it comes; the download is dropped with its last reader, unless it is complete."""
        # With the digest: who asks for other bytes than everybody else must not spoil the download of everybody else.
        key = f"{artefact_key(artefact)} {artefact.digest}"
        download = self._running.get(key)
        if download is None or not download.is_joinable:
            download = self._running[key] = self._begin(artefact, registry)
        follower = download.join()
        try:
            yield follower
        finally:
            download.leave(follower)
            if self._running.get(key) is download and not download.is_joinable:
                del self._running[key]

    def _begin(self, artefact: Artefact, registry: Registry) -> Download:
        def describe(spool: Spool, head: Head) -> Entry:
            return Entry(
                key=artefact_key(artefact), sha256=spool.sha256, size=spool.size, host=head.host,
                digest=artefact.digest, fetched=self._clock(),
            )  # fmt: skip  # one line of fields reads better than six

        spool = Spool(cache=self._cache, workers=self._workers, digest=artefact.digest)
        source = self._upstream.open_file("GET", artefact.url, headers=artefact.headers, registry=registry)
        return Download(artefact=artefact, source=source, spool=spool, describe=describe)


def artefact_key(artefact: Artefact) -> str:
    """The cache's key of an artefact: everything that the registry is asked."""
    return json.dumps(["file", artefact.url, sorted(artefact.headers.items())], separators=(",", ":"))


def _proves(entry: Entry, digest: Digest | None) -> bool:
    """Whether the entry's bytes are known to have a digest."""
    return digest is None or digest == entry.digest or digest == Digest(algorithm="sha256", hex=entry.sha256)
