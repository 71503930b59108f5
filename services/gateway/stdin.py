"""Carries a client's bytes into a program's input, across restarts of the executor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.journal import Bell
from services.gateway.live import LiveExec
from services.gateway.patience import PAUSE_SECONDS
from services.gateway.ports import ExecutorPort, StdinPart
from services.rpc.errors import (
    ErrorCode,
    QilaError,
    failed_precondition,
    invalid_argument,
    out_of_range,
    unavailable,
)

_WAITING_BYTES: Final = 1 << 20
# The process is gone, or the executor has forgotten it: either way there is nothing to write to.
_ENDED_REASONS: Final = frozenset({"PROCESS_ENDED", "PROCESS_NOT_FOUND"})


class StdinRelay:
    """One writer of one exec's input. It keeps what the executor has not acknowledged, at most 1 MiB."""

    def __init__(
        self,
        executor_port: ExecutorPort,
        live: LiveExec,
        requests: AsyncIterator[pb.WriteStdinRequest],
        *,
        patience: float,
    ) -> None:
        self._executor = executor_port
        self._live = live
        self._requests = requests
        self._patience = patience
        self._bell = Bell()
        # What was not acknowledged; its first byte has the offset `_accepted`.
        self._kept = bytearray()
        self._accepted: int | None = None
        self._following = 0
        self._end: executor.StdinEnd | None = None
        self._stopped = False
        self._attempt = 0
        self._end_sent_in = 0

    async def accepted(self) -> AsyncGenerator[int, None]:
        """How many bytes are accepted, first when the run has begun; ends when the client's last byte is.

        Raises:
            QilaError: as the proto says of WriteStdin.
        """
        self._live.take_input_over(self._bell)
        await self._run_begun()
        relaying = asyncio.create_task(self._relay())
        reading = asyncio.create_task(self._read())
        for task in (relaying, reading):
            task.add_done_callback(lambda _: self._bell.ring())
        told = -1
        try:
            while True:
                self._check_writer()
                if self._accepted is not None and self._accepted > told:
                    told = self._accepted
                    yield told
                elif self._is_done(relaying, reading):
                    return
                else:
                    await self._bell.wait()
        finally:
            await self._close(relaying, reading)

    def _is_done(self, relaying: asyncio.Task[None], reading: asyncio.Task[None]) -> bool:
        for task in (relaying, reading):
            if task.done():
                # Raises what stopped it.
                task.result()
        return relaying.done() or (self._stopped and not self._kept)

    async def _close(self, *tasks: asyncio.Task[None]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._end_attempt()

    async def _run_begun(self) -> None:
        while self._live.run not in self._live.started:
            self._check_writer()
            if self._live.journal.ended:
                raise exec_ended(self._live)
            await self._live.bell.wait()

    def _check_writer(self) -> None:
        if self._live.writer is not self._bell:
            raise _taken_over()

    # From the client

    async def _read(self) -> None:
        while self._accepted is None:
            await self._bell.wait()
        async for request in self._requests:
            self._take(request)
            self._bell.ring()
            while len(self._kept) + checks.MAX_CHUNK_BYTES > _WAITING_BYTES:
                await self._bell.wait()
        self._stopped = self._end is None

    def _take(self, request: pb.WriteStdinRequest) -> None:
        if self._end is not None:
            raise failed_precondition("STDIN_ENDED", "the end must be the last message of the stream")
        match request.WhichOneof("part"):
            case "chunk":
                self._take_chunk(request.chunk)
            case "end":
                self._take_end(request.end)
            case "header":
                raise invalid_argument("HEADER_REPEATED", "only the first message may be the header")
            case _:
                raise invalid_argument("CHUNK_EXPECTED", "every message after the header must be a chunk or the end")

    def _take_chunk(self, chunk: pb.StdinChunk) -> None:
        if len(chunk.data) > checks.MAX_CHUNK_BYTES:
            raise invalid_argument("CHUNK_TOO_LARGE", "a chunk must be at most 64 KiB")
        self._check_gap(chunk.offset)
        new = chunk.data[self._following - chunk.offset :]
        self._kept += new
        self._following += len(new)

    def _take_end(self, end: pb.StdinEnd) -> None:
        self._check_gap(end.offset)
        if end.offset < self._following:
            message = f"end.offset: must be the length of the input, which has {self._following} bytes already"
            raise invalid_argument("FIELD_INVALID", message, field="end.offset")
        self._end = executor.StdinEnd(offset=end.offset)

    def _check_gap(self, offset: int) -> None:
        if offset > self._following:
            message = f"offset: the next byte of the input has the offset {self._following}"
            raise out_of_range("STDIN_GAP", message, expected=str(self._following))

    # To the executor

    async def _relay(self) -> None:
        """Returns when the end is acknowledged."""
        deadline: float | None = None
        now = asyncio.get_running_loop().time
        while True:
            lost = unavailable("EXECUTOR_STREAM_BROKEN", "the executor broke off an input; repeat the call")
            self._attempt += 1
            parts = self._parts(self._attempt)
            answers = self._executor.write_stdin(self._live.sandbox_id, self._live.process_id, parts)
            try:
                async with aclosing(answers):
                    async for accepted in answers:
                        deadline = None
                        self._acknowledge(accepted)
                if self._end_sent_in and not self._kept:
                    return
            except QilaError as error:
                if error.reason == "STDIN_ENDED" and 0 < self._end_sent_in < self._attempt:
                    # Its answer was lost on the way: it is ended as this client asked.
                    self._acknowledge(self._following)
                    return
                if error.code is not ErrorCode.UNAVAILABLE:
                    raise as_of_exec(error, self._live) from error
                lost = error
            finally:
                self._end_attempt()
            if self._live.journal.ended:
                raise exec_ended(self._live)
            deadline = now() + self._patience if deadline is None else deadline
            if now() >= deadline:
                raise lost
            await asyncio.sleep(PAUSE_SECONDS)

    async def _parts(self, attempt: int) -> AsyncIterator[StdinPart]:
        """What the executor lacks; ends by itself when the attempt is over, for grpc reads on after the call's end."""
        sent = 0
        while attempt == self._attempt:
            first = self._accepted or 0
            sent = max(sent, first)
            if sent < self._following:
                data = bytes(self._kept[sent - first : sent - first + checks.MAX_CHUNK_BYTES])
                yield executor.StdinChunk(offset=sent, data=data)
                sent += len(data)
            elif self._end is not None:
                self._end_sent_in = self._end_sent_in or attempt
                yield self._end
                return
            else:
                await self._bell.wait()

    def _end_attempt(self) -> None:
        self._attempt += 1
        self._bell.ring()

    def _acknowledge(self, accepted: int) -> None:
        if self._accepted is None:
            self._accepted = self._following = accepted
        if accepted > self._following:
            # Bytes that came from somebody else.
            raise _taken_over()
        if accepted > self._accepted:
            del self._kept[: accepted - self._accepted]
            self._accepted = accepted
        self._bell.ring()


def exec_ended(live: LiveExec) -> QilaError:
    """The run is over."""
    message = f"the run of {live.exec_id} is over; start another exec"
    return failed_precondition("EXEC_ENDED", message, exec_id=live.exec_id)


def as_of_exec(error: QilaError, live: LiveExec) -> QilaError:
    """What the executor says of the process as it is said of the exec."""
    return exec_ended(live) if error.reason in _ENDED_REASONS else error


def _taken_over() -> QilaError:
    return QilaError(ErrorCode.ABORTED, "STDIN_TAKEN_OVER", "another stream writes this input now; there can be one")
