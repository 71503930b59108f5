"""Writes the input of one exec from a task, across lost connections."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from qila.client.errors import QilaError, UnavailableError, translated
from qila.client.position import Patience, broken_stream
from qila.client.stdin import StdinBuffer, StdinLink, is_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qila.gateway.v1 import gateway_pb2 as pb
    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub


class AsyncStdinWriter:
    """Sends what it is given in order; holds at most 1 MiB that is not acknowledged, then `write` waits.

    Attributes:
        failure: why nothing more can be sent; None while all is well.
    """

    def __init__(
        self, stub: GatewayServiceAsyncStub, sandbox_id: str, exec_id: str, *, reconnect_seconds: float
    ) -> None:
        self._stub = stub
        self._ids = (sandbox_id, exec_id)
        self._patience = Patience(reconnect_seconds)
        self._buffer = StdinBuffer()
        self._changed = asyncio.Condition()
        self.failure: QilaError | None = None
        self._over = False
        self._task = asyncio.create_task(self._pump(), name="qila-stdin")

    async def write(self, data: bytes) -> None:
        """Takes all of it, and waits while there is no room. QilaError: why nothing more can be sent."""
        rest = memoryview(data)
        async with self._changed:
            while rest:
                await self._changed.wait_for(lambda: self._over or self._buffer.room > 0)
                self._check()
                rest = rest[self._buffer.append(rest) :]
                self._changed.notify_all()

    async def end(self) -> None:
        """The program reads end of file behind what was written. A repeat is fine."""
        async with self._changed:
            self._buffer.closed = True
            self._changed.notify_all()

    async def flush(self, seconds: float | None) -> bool:
        """Waits until all is acknowledged, an end too; False if that took too long. QilaError: why it never will be."""
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(
                        lambda: self._over or (self._buffer.settled and not self._buffer.closed)
                    )
            if self.failure is not None:
                raise self.failure
            return self._buffer.settled and (self._over or not self._buffer.closed)

    async def stop(self) -> None:
        """Lets the connection go; what is not sent stays unsent, and the input stays open."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._over or self._buffer.closed:
            raise ValueError("the input was closed")

    async def _pump(self) -> None:
        try:
            pause = await self._connect()
            while pause is not None:
                await asyncio.sleep(pause)
                pause = await self._connect()
        finally:
            self._over = True
            async with self._changed:
                self._changed.notify_all()

    async def _connect(self) -> float | None:
        """One connection to its end; answers the pause before the next one, None if there is none."""
        try:
            await self._send_over_one()
        except UnavailableError as error:
            pause = self._patience.next_pause()
            self.failure = error if pause is None else None
            return pause
        except QilaError as error:
            if not is_end(error, self._buffer):
                self.failure = error
        return None

    async def _send_over_one(self) -> None:
        link = StdinLink(self._buffer, *self._ids)
        call = self._stub.WriteStdin(self._requests(link))
        try:
            with translated():
                async for answer in call:
                    async with self._changed:
                        link.answered(answer.accepted)
                        self._patience.progressed()
                        self._changed.notify_all()
            if not (link.end_sent and self._buffer.settled):
                raise broken_stream()
        finally:
            call.cancel()
            link.over = True
            async with self._changed:
                self._changed.notify_all()

    async def _requests(self, link: StdinLink) -> AsyncIterator[pb.WriteStdinRequest]:
        yield link.header()
        while not link.end_sent:
            async with self._changed:
                request = link.next_request()
                while request is None:
                    if link.over:
                        return
                    await self._changed.wait()
                    request = link.next_request()
            yield request
