"""Uploads that go on where they broke off."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import TYPE_CHECKING, Final, TypeVar

from qila.client.errors import QilaError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
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
    transfer = secrets.token_hex(16)
    offset = 0
    deadline, seconds = time.monotonic() + reconnect_seconds, _FIRST_PAUSE_S
    while True:
        try:
            return attempt(send, transfer, Stream(chunks(), offset))
        except UnavailableError:
            if time.monotonic() >= deadline:
                raise
        except QilaError as error:
            # The stream that was lost has not ended on the other side.
            if error.reason != "FILE_BUSY" or time.monotonic() >= deadline:
                raise
        pause(seconds)
        seconds = min(seconds * 2, _LONGEST_PAUSE_S)
        try:
            there = held(transfer)
        except UnavailableError:
            continue
        if there > offset:
            deadline, seconds = time.monotonic() + reconnect_seconds, _FIRST_PAUSE_S
        offset = there
