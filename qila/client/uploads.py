"""Uploads that go on where they broke off. What both clients decide alike stands in `Upload` and `Stream`."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from qila.client.errors import QilaError, UnavailableError
from qila.client.position import Patience

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

Response = TypeVar("Response")


class Stream:
    """The chunks of one attempt, from an offset on, and the digest of all that the whole stream has."""

    def __init__(self, chunks: Iterable[bytes], offset: int) -> None:
        self._chunks = chunks
        self.offset = offset
        self._digest = hashlib.sha256()
        # Why the source ended before its end: gRPC does not tell.
        self.failure: Exception | None = None

    @property
    def sha256(self) -> str:
        """Of the whole stream; known behind its last chunk."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        to_skip = self.offset
        try:
            for chunk in self._chunks:
                self._digest.update(chunk)
                if to_skip < len(chunk):
                    yield chunk[to_skip:]
                to_skip = max(0, to_skip - len(chunk))
        except Exception as error:
            self.failure = error
            raise


class Upload:
    """One upload, over as many attempts as it takes, for so many seconds without a byte more.

    Attributes:
        transfer: the id under which the sandbox holds what came.
        offset: where the next attempt begins.
    """

    def __init__(self, reconnect_seconds: float) -> None:
        self.transfer = secrets.token_hex(16)
        self.offset = 0
        self._patience = Patience(reconnect_seconds)

    def pause_after(self, error: QilaError) -> float:
        """Seconds until the next attempt; raises the error if there is none."""
        # FILE_BUSY: the stream that was lost has not ended on the other side.
        if not isinstance(error, UnavailableError) and error.reason != "FILE_BUSY":
            raise error
        pause = self._patience.next_pause()
        if pause is None:
            raise error
        return pause

    def resume(self, held: int) -> None:
        """Takes what the sandbox says that it holds."""
        if held > self.offset:
            self._patience.progressed()
        self.offset = held


def attempt(send: Callable[[str, Stream], Response], transfer: str, stream: Stream) -> Response:
    """Sends a stream once; what its source raised is raised here."""
    try:
        return send(transfer, stream)
    except QilaError:
        if stream.failure is not None:
            raise stream.failure from None
        raise


def upload(
    chunks: Callable[[], Iterable[bytes]],
    send: Callable[[str, Stream], Response],
    held: Callable[[str], int],
    *,
    reconnect_seconds: float,
    pause: Callable[[float], None] = time.sleep,
) -> Response:
    """Sends a stream, again from what is held whenever the connection is lost, for so long without progress. QilaError.

    Args:
        chunks: the whole stream from its first byte; asked for once an attempt.
        send: makes one attempt under a transfer id.
        held: how many bytes of a transfer are there.
        reconnect_seconds: how long to go on without a byte more.
        pause: waits so many seconds.
    """
    state = Upload(reconnect_seconds)
    while True:
        try:
            return attempt(send, state.transfer, Stream(chunks(), state.offset))
        except QilaError as error:
            seconds = state.pause_after(error)
        pause(seconds)
        with suppress(UnavailableError):
            state.resume(held(state.transfer))


async def async_attempt(send: Callable[[str, Stream], Awaitable[Response]], transfer: str, stream: Stream) -> Response:
    """Sends a stream once, as `attempt` does: grpc.aio cancels a call whose source raised."""
    try:
        return await send(transfer, stream)
    except (QilaError, asyncio.CancelledError):
        task = asyncio.current_task()
        if stream.failure is not None and not (task is not None and task.cancelling()):
            raise stream.failure from None
        raise


async def async_upload(
    chunks: Callable[[], Iterable[bytes]],
    send: Callable[[str, Stream], Awaitable[Response]],
    held: Callable[[str], Awaitable[int]],
    *,
    reconnect_seconds: float,
) -> Response:
    """The same as `upload`, of the asynchronous client."""
    state = Upload(reconnect_seconds)
    while True:
        try:
            return await async_attempt(send, state.transfer, Stream(chunks(), state.offset))
        except QilaError as error:
            seconds = state.pause_after(error)
        await asyncio.sleep(seconds)
        with suppress(UnavailableError):
            state.resume(await held(state.transfer))
