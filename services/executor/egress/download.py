"""One artefact on its way from a registry, read by any number of clients while it comes."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import aiohttp
import structlog

from services.executor.egress.cache.port import Entry
from services.executor.egress.ecosystems.port import Artefact
from services.executor.egress.spool import Spool
from services.executor.egress.upstream import UpstreamBrokeOff, file_chunks
from services.executor.egress.verdicts import Refused, TurnedAway, UpstreamFailed

_log = structlog.get_logger()

# Nobody gets the end of an artefact before all of it is verified; of a smaller one, nobody gets anything.
_HELD_BACK_BYTES = 64 * 1024
_PIECE_BYTES = 256 * 1024

_ADVICE = {
    "digest mismatch": "what the registry sent is not what its index promises.",
    "file too large": "the registry's file is larger than this door passes on.",
    "registry broke off": "the registry broke off. Try again later.",
    "internal error": "the download failed at this door; its log says why.",
}


class DownloadFailed(UpstreamFailed):
    """The artefact that was asked for did not all come, or is another one."""

    def __init__(self, *, rule: str) -> None:
        super().__init__(status=502, rule=rule, advice=_ADVICE[rule])


@dataclass(frozen=True, kw_only=True)
class Head:
    """What is known of an artefact before its first byte; `size` None if the registry does not say."""

    size: int | None
    host: str


class Follower:
    """One reader of a download."""

    def __init__(self, download: "Download") -> None:
        self._download = download
        self.offset = 0

    async def head(self) -> Head | None:
        """What the registry says first; None if it has no such artefact. Raises TurnedAway."""
        return await self._download.head()

    async def piece(self) -> bytes:
        """What comes next, at most 256 KiB; empty at the end, which is reached only if everything is verified.

        Raises:
            TurnedAway: what came is not what was promised, or did not all come.
        """
        piece = await self._download.piece_at(self.offset)
        self.offset += len(piece)
        self._download.let_go()
        return piece


class Download:
    """Begins at once. `describe` makes the entry under which the whole is to be kept."""

    def __init__(
        self,
        *,
        artefact: Artefact,
        source: AbstractAsyncContextManager[aiohttp.ClientResponse | None],
        spool: Spool,
        describe: Callable[[Spool, Head], Entry],
    ) -> None:
        self._artefact = artefact
        self._source = source
        self._spool = spool
        self._describe = describe
        self._followers: set[Follower] = set()
        self._head: Head | None = None
        self._is_open = False
        self._is_complete = False
        self._failure: TurnedAway | None = None
        # How far followers may read.
        self._available = 0
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._close_if_left())

    @property
    def is_joinable(self) -> bool:
        """Whether somebody new can have all of it without waiting for others."""
        return bool(self._followers) and self._failure is None and self._spool.is_joinable

    def join(self) -> Follower:
        """A new reader, which must leave."""
        follower = Follower(self)
        self._followers.add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        """Take a reader away."""
        self._followers.discard(follower)
        if self._followers:
            self.let_go()
            return
        self._task.cancel()
        self._close_if_left()

    def let_go(self) -> None:
        """Forget what every reader has."""
        self._spool.forget_before(min(follower.offset for follower in self._followers))
        self._ring()

    async def head(self) -> Head | None:
        """See `Follower.head`."""
        while not self._is_open:
            await self._wait()
        return self._head

    async def piece_at(self, offset: int) -> bytes:
        """See `Follower.piece`."""
        while offset >= self._available:
            if self._is_complete:
                return b""
            await self._wait()
        try:
            return await self._spool.read(offset, min(_PIECE_BYTES, self._available - offset))
        except OSError as error:
            _log.error("download not readable", url=self._artefact.url, error=str(error))
            raise DownloadFailed(rule="internal error") from error

    async def _run(self) -> None:
        try:
            async with self._source as response:
                if response is not None:
                    await self._receive(response)
                self._is_open = self._is_complete = True
        except TurnedAway as reason:
            self._failure = reason
        except UpstreamBrokeOff:
            self._failure = DownloadFailed(rule="registry broke off")
        except Exception:  # noqa: BLE001  # whoever reads must not wait for ever
            _log.exception("download failed", url=self._artefact.url)
            self._failure = DownloadFailed(rule="internal error")
        self._ring()

    async def _receive(self, response: aiohttp.ClientResponse) -> None:
        artefact, spool = self._artefact, self._spool
        size = response.content_length
        if size is not None:
            if size > artefact.max_bytes:
                raise Refused(status=502, rule="file too large", advice=_ADVICE["file too large"])
            spool.expect(size)
        head = self._head = Head(size=size, host=response.url.host or "")
        self._is_open = True
        async for piece in file_chunks(response):
            if spool.size + len(piece) > artefact.max_bytes:
                raise DownloadFailed(rule="file too large")
            await spool.append(piece)
            self._available = max(0, spool.size - _HELD_BACK_BYTES)
            self._ring()
            while spool.is_full:
                await self._changed.wait()
        if artefact.digest is not None and not spool.matches(artefact.digest):
            raise DownloadFailed(rule="digest mismatch")
        self._available = spool.size
        if artefact.digest is not None or size is not None:
            spool.commit(self._describe(spool, head))

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self) -> None:
        """Until something changes that a reader waits for."""
        if self._failure is not None:
            raise self._failure
        await self._changed.wait()

    def _close_if_left(self) -> None:
        if self._task.done() and not self._followers:
            self._spool.close()
