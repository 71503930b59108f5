"""Many runs over one stream: their starts come, and their events go, without a call for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import structlog

from qila.executor.v1 import executor_pb2 as pb
from services.executor.errors import InvalidFieldError
from services.executor.wire_errors import wire_errors
from services.rpc import log_ids
from services.rpc.errors import QilaError, internal, to_status
from services.rpc.log import write_later

# A run that says more goes on in a call of its own: this stream must stay free for the others.
SHARED_OUTPUT_BYTES: Final = 64 << 10
_METHOD: Final = "/qila.executor.v1.ExecutorService/RunProcesses"
_LOG: Final = structlog.get_logger()

Run = Callable[[pb.RunProcessRequest], AsyncGenerator[pb.ProcessEvent, None]]
Write = Callable[[pb.RunProcessesResponse], Awaitable[object]]


class StreamGoneError(Exception):
    """Whoever listened is gone."""


class RunStreams:
    """All streams of this server; stops with it, as its companion."""

    def __init__(self, run: Run) -> None:
        """`run` gives a run's events, as RunProcess does."""
        self._run = run
        self._stopping = asyncio.Event()

    async def serve(self, requests: AsyncIterator[pb.RunProcessesRequest], write: Write) -> None:
        """Serves one stream until it ends, or until the server stops and what runs over the stream has ended."""
        stream = RunStream(self._run, write)
        hearing = asyncio.create_task(stream.hear(requests))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((hearing, stopping), return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                hearing.result()
            await stream.finish()
        finally:
            stopping.cancel()
            hearing.cancel()
            stream.close()

    async def start(self) -> None:
        """There is nothing to start."""

    async def stop(self, grace: float) -> None:  # noqa: ARG002 - a companion's
        """Lets the streams end."""
        self._stopping.set()


class RunStream:
    """The runs of one stream."""

    def __init__(self, run: Run, write: Write) -> None:
        self._run = run
        self._write = write
        # gRPC takes one message after the other.
        self._writing = asyncio.Lock()
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def hear(self, requests: AsyncIterator[pb.RunProcessesRequest]) -> None:
        """Takes what the other side says, until it has said all. InvalidFieldError."""
        async for request in requests:
            match request.WhichOneof("action"):
                case "run":
                    if request.number in self._tasks:
                        raise InvalidFieldError("number", "must not be that of a run that has not ended")
                    self._tasks[request.number] = asyncio.create_task(self._serve(request))
                case "leave":
                    task = self._tasks.get(request.number)
                    if task is not None:
                        task.cancel()
                case _:
                    raise InvalidFieldError("action", "must be run or leave")

    async def finish(self) -> None:
        """Returns when no run is left."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    def close(self) -> None:
        """Nobody listens any more; processes run on."""
        for task in self._tasks.values():
            task.cancel()

    async def _serve(self, request: pb.RunProcessesRequest) -> None:
        begin = time.perf_counter()
        ids = {"sandbox_id": request.run.sandbox_id[:64], "process_id": request.run.process_id[:64]}
        log_ids.bind_from(dict(request.log_ids), from_service=True, **ids)
        code = "CANCELLED"
        try:
            code = await self._tell_of(request.number, request.run)
        except StreamGoneError:
            # As a call that is cancelled.
            pass
        finally:
            del self._tasks[request.number]
            duration_ms = round((time.perf_counter() - begin) * 1000, 2)
            write_later(_LOG.info, "call", method=_METHOD, code=code, duration_ms=duration_ms)

    async def _tell_of(self, number: int, request: pb.RunProcessRequest) -> str:
        """Tells all of a run; returns with which code it ended."""
        try:
            with wire_errors():
                await self._tell_events(number, request)
        except QilaError as error:
            return await self._fail(number, error)
        except StreamGoneError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, its text must not reach the caller
            _LOG.exception("call_crashed", method=_METHOD)
            fault = internal("INTERNAL", "a fault in Qila; its log tells more under the request id")
            return await self._fail(number, fault)
        return "OK"

    async def _fail(self, number: int, error: QilaError) -> str:
        await self._tell(number, failure=to_status(error).SerializeToString())
        return error.code.name

    async def _tell_events(self, number: int, request: pb.RunProcessRequest) -> None:
        told = 0
        async with aclosing(self._run(request)) as events:
            async for event in events:
                await self._tell(number, event=event)
                told += len(event.output.data)
                if told >= SHARED_OUTPUT_BYTES:
                    await self._tell(number, elsewhere=pb.RunElsewhere())
                    return

    async def _tell(self, number: int, **answer: Any) -> None:
        response = pb.RunProcessesResponse(number=number, **answer)
        async with self._writing:
            try:
                await self._write(response)
            except Exception as error:
                raise StreamGoneError from error
