"""Runs of processes over one stream to the executor, which stays open: a start costs a message instead of a call."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from google.rpc import status_pb2

from qila.executor.v1 import executor_pb2 as executor
from services.rpc import log_ids
from services.rpc.channel import translated
from services.rpc.errors import QilaError, from_status, unavailable

_Answers = asyncio.Queue[executor.RunProcessesResponse | None]


class RunStream:
    """Opens the stream when it is first needed, and again when it is lost."""

    def __init__(self, stub: Any, peer: str) -> None:
        self._stub = stub
        self._peer = peer
        self._numbers = itertools.count(1)
        self._connection: _Connection | None = None

    async def run(self, request: executor.RunProcessRequest) -> AsyncGenerator[executor.ProcessEvent, None]:
        """Starts or joins a process; its events, up to the last or to where they go on elsewhere.

        Raises:
            QilaError: as RunProcess; UNAVAILABLE when the stream breaks.
        """
        if self._connection is None or self._connection.lost is not None:
            self._connection = _Connection(self._stub.RunProcesses(), self._peer)
        connection = self._connection
        number = next(self._numbers)
        answers: _Answers = asyncio.Queue()
        connection.answers[number] = answers
        complete = False
        try:
            start = executor.RunProcessesRequest(number=number, run=request, log_ids=log_ids.metadata())
            await connection.send(start)
            while not complete:
                answer = await answers.get()
                if answer is None:
                    raise connection.lost or _broken()
                complete = not answer.HasField("event") or answer.event.HasField("ended")
                if answer.HasField("failure"):
                    raise from_status(status_pb2.Status.FromString(answer.failure))
                if answer.HasField("event"):
                    yield answer.event
        finally:
            del connection.answers[number]
            if not complete:
                connection.leave(number)


class _Connection:
    """One stream, from its opening until it is lost."""

    def __init__(self, call: Any, peer: str) -> None:
        self.answers: dict[int, _Answers] = {}
        self.lost: QilaError | None = None
        self._call = call
        self._peer = peer
        # gRPC takes one message after the other.
        self._writing = asyncio.Lock()
        # It belongs to no exec, and so has nobody's ids for the log.
        self._reader = asyncio.create_task(self._read(), context=contextvars.Context())
        self._leaving: set[asyncio.Task[None]] = set()

    async def send(self, request: executor.RunProcessesRequest) -> None:
        """Sends a message. UNAVAILABLE if the stream is lost."""
        async with self._writing:
            try:
                with translated(self._peer):
                    await self._call.write(request)
            except asyncio.InvalidStateError as error:
                # How grpc.aio says that the call has ended.
                raise self.lost or _broken() from error

    def leave(self, number: int) -> None:
        """Nobody waits for the run's events any more."""
        if self.lost is None:
            task = asyncio.create_task(self._leave(number), context=contextvars.Context())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _leave(self, number: int) -> None:
        with suppress(QilaError):
            await self.send(executor.RunProcessesRequest(number=number, leave=executor.LeaveRun()))

    async def _read(self) -> None:
        self.lost = lost = None
        try:
            with translated(self._peer):
                async for answer in self._call:
                    waiting = self.answers.get(answer.number)
                    if waiting is not None:
                        waiting.put_nowait(answer)
        except QilaError as error:
            lost = error
        finally:
            self.lost = lost or _broken()
            for waiting in self.answers.values():
                waiting.put_nowait(None)


def _broken() -> QilaError:
    return unavailable("EXECUTOR_STREAM_BROKEN", "the executor broke off a stream of events; repeat the call")
