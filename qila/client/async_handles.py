r"""One exec in the hand of an asynchronous caller: what `execs` and `handles` are to the other one.

>>> async def greet(client: AsyncClient) -> bytes:
...     async with client.exec(sandbox_id, ["cat"], stdin=True) as run:
...         await run.write_stdin(b"hello\n")
...         await run.close_stdin()
...         return b"".join([event.output.data async for event in run])
>>> awaited(greet)
b'hello\n'
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from qila.client.async_stdin import AsyncStdinWriter
from qila.client.errors import QilaError, translated
from qila.client.event_streams import AsyncEventStream
from qila.client.position import Position
from qila.client.requests import resize_request
from qila.client.results import DEFAULT_RESULT_BYTES, Collector, ExecResult, TerminalSize
from qila.client.silence import SILENCE_SECONDS
from qila.client.stdin import EXEC_ENDED
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub


class AsyncExec:
    """An exec: an asynchronous iterator over its events, with the calls that steer it. Those start it; QilaError.

    Lost connections are taken up again as `Exec` does it. One task may iterate while others write, resize, signal and
    cancel. As a context manager it stops watching at its end; the exec itself runs on unless it is cancelled.
    """

    def __init__(
        self,
        stub: GatewayServiceAsyncStub,
        request: pb.ExecRequest | pb.AttachExecRequest,
        *,
        reconnect_seconds: float = 60,
        call_seconds: float = 120,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self.sandbox_id = request.sandbox_id
        self.exec_id = request.exec_id
        self._stub = stub
        self._position = Position(request)
        self._reconnect_seconds = reconnect_seconds
        self._call_seconds = call_seconds
        self._takes_input = isinstance(request, pb.ExecRequest) and request.stdin
        self._stream = AsyncEventStream(
            stub, self._position, reconnect_seconds=reconnect_seconds, silence_seconds=silence_seconds
        )
        self._first: pb.ExecEvent | None = None
        self._starting = asyncio.Lock()
        self._writer: AsyncStdinWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> pb.ExecEvent:
        if not self._position.begun or self._first is not None:
            await self.start()
            event, self._first = self._first, None
            if event is not None:
                return event
        return await anext(self._stream)

    @property
    def ended(self) -> pb.ExecEnded | None:
        """How it ended; None until that event came."""
        return self._position.ended

    async def start(self) -> Self:
        """Returns once the exec is there, without taking an event from the iteration. A repeat does nothing."""
        async with self._starting:
            if not self._position.begun:
                self._first = await self._stream.receive()
        return self

    async def write_stdin(self, data: bytes) -> None:
        """Writes to the program's input; waits while 1 MiB is not acknowledged. Raises as `Exec.write_stdin` does."""
        await (await self._stdin()).write(data)

    async def close_stdin(self) -> None:
        """The program reads end of file after what was written; on a terminal, write its end-of-file character."""
        await (await self._stdin()).end()

    async def flush_stdin(self, seconds: float | None = None) -> bool:
        """Waits until all that was written can no longer be lost; False if that took longer than `seconds`.

        Raises as `write_stdin` does.
        """
        return await (await self._stdin()).flush(seconds)

    @property
    def stdin_failure(self) -> QilaError | None:
        """Why nothing more can be written; None while all is well."""
        return self._writer.failure if self._writer is not None else None

    async def release_stdin(self) -> None:
        """Stops writing: what is not sent stays unsent, and the input stays open for another writer."""
        if self._writer is not None:
            await self._writer.stop()

    async def resize(self, rows: int, columns: int) -> None:
        """Gives its terminal another size."""
        await self.start()
        request = resize_request(self.sandbox_id, self.exec_id, TerminalSize(rows, columns))
        with translated():
            await self._stub.ResizeTerminal(request, timeout=self._call_seconds)

    async def signal(self, number: int) -> None:
        """Sends a signal, as Linux numbers them, to the exec's process group."""
        await self.start()
        request = pb.SignalExecRequest(sandbox_id=self.sandbox_id, exec_id=self.exec_id, signal=number)
        with translated():
            await self._stub.SignalExec(request, timeout=self._call_seconds)

    async def cancel(self) -> None:
        """Kills all that it started; one that has ended is fine."""
        await self.start()
        request = pb.CancelExecRequest(sandbox_id=self.sandbox_id, exec_id=self.exec_id)
        with translated():
            await self._stub.CancelExec(request, timeout=self._call_seconds)

    async def wait(self) -> pb.ExecEnded:
        """Takes the events that are left, and answers how it ended."""
        async for _ in self:
            pass
        return self._ended()

    async def communicate(
        self,
        stdin: bytes = b"",
        *,
        max_bytes: int = DEFAULT_RESULT_BYTES,
        on_event: Callable[[pb.ExecEvent], Awaitable[None]] | None = None,
    ) -> ExecResult:
        """Writes the whole input and its end, if the exec takes any, and collects the output to the end.

        `on_event` is awaited with each event before the next one is taken.
        """
        writing = asyncio.create_task(self._write_all(stdin)) if stdin or self._takes_input else None
        try:
            collector = Collector(max_bytes=max_bytes)
            async for event in self:
                collector.take(event)
                if on_event is not None:
                    await on_event(event)
            self._ended()
            if writing is not None:
                await writing
        finally:
            if writing is not None:
                writing.cancel()
        return collector.result(self.sandbox_id, self.exec_id, self._position)

    async def close(self) -> None:
        """Stops watching, also in another task, and writing; the exec runs on."""
        await self.release_stdin()
        self._stream.close()

    async def _stdin(self) -> AsyncStdinWriter:
        await self.start()
        if self._writer is None:
            self._writer = AsyncStdinWriter(
                self._stub, self.sandbox_id, self.exec_id, reconnect_seconds=self._reconnect_seconds
            )
        return self._writer

    async def _write_all(self, data: bytes) -> None:
        try:
            await self.write_stdin(data)
            await self.close_stdin()
        except QilaError as error:
            # A program may end without reading all.
            if error.reason != EXEC_ENDED:
                raise

    def _ended(self) -> pb.ExecEnded:
        if self.ended is None:
            raise ValueError("its end was not watched for: attach to it")
        return self.ended
