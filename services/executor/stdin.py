"""A process's input: sandboxd holds the bytes, here are the offsets, and whose turn it is to write.

What sandboxd has acknowledged no restart of the executor loses; what it has not, the writer sends again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from services.executor.agent.frames import Header, count_field
from services.executor.errors import (
    InvalidFieldError,
    ProcessEndedError,
    ProtocolError,
    StdinEndedError,
    StdinGapError,
    StdinTakenOverError,
)

# What may wait in sandboxd; one that promises more room is not believed.
MAX_WAITING_BYTES = 1 << 20
_FRAME_BYTES = 64 << 10
# To tell of each frame costs three services more than the frame.
_STEP_BYTES = 256 << 10


class Send(Protocol):
    """Sends a frame to sandboxd."""

    def __call__(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """AgentUnavailableError if there is no connection."""


class Stdin:
    """Where an input stands, as sandboxd has told. Offsets count from the input's first byte."""

    def __init__(self) -> None:
        self.accepted = 0
        self.window = 0
        # Beyond `accepted`: on its way, with one writer's call waiting for it.
        self.sent = 0
        self.end_sent = False
        self.ended = False
        self.process_ended = False
        # Whether sandboxd has told on this connection.
        self.is_known = False
        self.writer: StdinWriter | None = None
        self.changed = asyncio.Event()

    @property
    def is_settled(self) -> bool:
        """Whether nothing is on its way, nor the end."""
        return self.is_known and self.sent == self.accepted and self.end_sent == self.ended

    def resume(self, header: Header) -> None:
        """A connection begins; what was on its way has come or not. ProtocolError if sandboxd lost what it had."""
        self.sent = max(self.sent, count_field(header, "accepted"))
        self.tell(header)
        self.sent = self.accepted
        self.end_sent = self.ended

    def tell(self, header: Header) -> None:
        """Takes what sandboxd says. ProtocolError if that cannot be."""
        accepted, window = count_field(header, "accepted"), count_field(header, "window")
        if not self.accepted <= accepted <= self.sent or window < accepted or (self.ended and not header.get("ended")):
            raise ProtocolError("an input that lost bytes, or has some that nobody sent")
        self.accepted = accepted
        self.window = min(window, accepted + MAX_WAITING_BYTES)
        self.ended = header.get("ended") is True
        self.is_known = True
        self.notify()

    def disconnect(self) -> None:
        """The connection is gone; writers wait for the next."""
        self.is_known = False

    def finish(self) -> None:
        """The process has ended, and writers with it."""
        self.process_ended = True
        self.notify()

    def notify(self) -> None:
        """Wakes every writer."""
        event, self.changed = self.changed, asyncio.Event()
        event.set()


class StdinWriter:
    """The one who writes, until another takes over or the process ends.

    Each call may raise StdinTakenOverError or ProcessEndedError.
    """

    def __init__(self, process_id: str, stdin: Stdin, send: Send, *, hangs_up: bool) -> None:
        """ProcessEndedError. `hangs_up`: whether the program sees the end of its input; on a terminal it does not."""
        self._process_id = process_id
        self._stdin = stdin
        self._send = send
        self._hangs_up = hangs_up
        if stdin.process_ended:
            raise ProcessEndedError(process_id)
        # What sandboxd has not acknowledged; its first byte has the offset `_start`.
        self._kept = bytearray()
        self._start = stdin.accepted
        stdin.writer = self
        stdin.notify()

    async def begin(self) -> int:
        """Where the input goes on, once sandboxd has told and nothing of another writer is on its way."""
        await self._until(lambda: self._stdin.is_settled)
        self._start = self._stdin.accepted
        return self._start

    @property
    def accepted(self) -> int:
        """How far sandboxd has the input."""
        return self._stdin.accepted

    @property
    def following(self) -> int:
        """The offset of the next byte that nobody has written."""
        return self._start + len(self._kept)

    async def write(self, offset: int, data: bytes) -> None:
        """Takes bytes, which go to sandboxd as it has room; waits while 1 MiB is not acknowledged. Known bytes are
        passed over. StdinGapError, StdinEndedError.
        """  # noqa: D205 - one sentence
        self._check()
        self._check_end(offset + len(data))
        if offset > self.following:
            raise StdinGapError(offset, self.following)
        self._kept += data[self.following - offset :]
        await self._until(lambda: len(self._kept) < MAX_WAITING_BYTES)

    async def acknowledged(self, after: int) -> int:
        """How far sandboxd has the input, as soon as that is well beyond `after`, or goes no further for now: it is all
        that was written, or there is no more room.
        """  # noqa: D205 - one sentence

        def holds() -> bool:
            accepted = self._stdin.accepted
            is_last = accepted in (self.following, self._stdin.window)
            return accepted > after and (is_last or accepted >= after + _STEP_BYTES)

        await self._until(holds)
        return self._stdin.accepted

    async def end(self, offset: int) -> int:
        """Ends the input behind its last byte, which is what `offset` must say. A repeat is OK.

        StdinGapError, StdinEndedError, InvalidFieldError.
        """
        self._check()
        self._check_end(offset)
        if offset > self.following:
            raise StdinGapError(offset, self.following)
        if offset < self.following:
            raise InvalidFieldError("end.offset", f"must be {self.following}, which is how much has come")
        await self._until(lambda: not self._kept)
        stdin = self._stdin
        while self._hangs_up and not stdin.ended:
            if stdin.is_settled and not stdin.end_sent:
                stdin.end_sent = True
                self._send({"type": "input", "process": self._process_id, "offset": offset, "end": True})
            await self._until(lambda: stdin.ended or (stdin.is_settled and not stdin.end_sent))
        return stdin.accepted

    async def lost(self) -> StdinTakenOverError | ProcessEndedError:
        """Waits until this one may not write any more, and says why."""
        while (error := self._error()) is None:
            await self._stdin.changed.wait()
        return error

    async def _until(self, holds: Callable[[], bool]) -> None:
        self._push()
        while not holds():
            self._check()
            await self._stdin.changed.wait()
            self._push()

    def _push(self) -> None:
        """Lets go of what sandboxd has, and sends what it has room for; again, what a lost connection took along."""
        stdin = self._stdin
        if stdin.writer is not self:
            return
        if stdin.accepted > self._start:
            del self._kept[: stdin.accepted - self._start]
            self._start = stdin.accepted
        while stdin.is_known and stdin.sent < min(stdin.window, self.following):
            first = stdin.sent
            part = self._kept[first - self._start : min(stdin.window, first + _FRAME_BYTES) - self._start]
            stdin.sent = first + len(part)
            self._send({"type": "input", "process": self._process_id, "offset": first}, bytes(part))

    def _check_end(self, last: int) -> None:
        if self._stdin.ended and last > self._stdin.accepted:
            raise StdinEndedError(self._process_id, self._stdin.accepted)

    def _check(self) -> None:
        error = self._error()
        if error is not None:
            raise error

    def _error(self) -> StdinTakenOverError | ProcessEndedError | None:
        if self._stdin.writer is not self:
            return StdinTakenOverError(self._process_id)
        return ProcessEndedError(self._process_id) if self._stdin.process_ended else None
