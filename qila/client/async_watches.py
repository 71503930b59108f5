"""What `watches` is, for an asynchronous caller."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from qila.client.errors import QilaError, UnavailableError, from_rpc_error
from qila.client.position import Patience, broken_stream
from qila.client.silence import SILENCE_SECONDS
from qila.client.watches import FileEvent, WatchState
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from typing import Self

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub


class AsyncFileWatch:
    """An asynchronous iterator over what changes; see `FileWatch`."""

    def __init__(
        self,
        stub: GatewayServiceAsyncStub,
        request: pb.WatchFilesRequest,
        *,
        reconnect_seconds: float = 60,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._stub = stub
        self._request = request
        self._state = WatchState()
        self._reconnect_seconds = reconnect_seconds
        self._call: Any = None
        self._closed = False
        self._silence_seconds = silence_seconds
        # From the first heartbeat on silence means that the connection is lost.
        self._longest_silence: float | None = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    @property
    def ended(self) -> pb.WatchEnded | None:
        """Why it is over; None until it is."""
        return self._state.ended

    async def start(self) -> Self:
        """Returns once nothing is missed any more. A repeat does nothing. QilaError: it cannot be watched."""
        while not self._state.begun:
            await self._receive()
        return self

    async def __anext__(self) -> FileEvent:
        while (event := self._state.next()) is None:
            if self._state.ended is not None or self._closed:
                raise StopAsyncIteration
            try:
                await self._receive()
            except (QilaError, asyncio.CancelledError):
                if self._closed:
                    raise StopAsyncIteration from None
                raise
        return event

    async def close(self) -> None:
        """Stops watching, and an iteration in another task."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    async def _receive(self) -> None:
        patience = Patience(self._reconnect_seconds)
        while True:
            try:
                response = await self._next_of_call()
            except UnavailableError:
                pause = patience.next_pause()
                if not self._state.begun or pause is None or self._closed:
                    raise
            else:
                self._state.take(response)
                if response.HasField("heartbeat"):
                    self._longest_silence = self._silence_seconds
                if self._state.ended is not None:
                    self._drop()
                return
            await asyncio.sleep(pause)

    async def _next_of_call(self) -> pb.WatchFilesResponse:
        try:
            call = self._call = self._call or self._stub.WatchFiles(self._request)
            async with asyncio.timeout(self._longest_silence):
                response: Any = await call.read()
        except TimeoutError as error:
            self._drop()
            raise broken_stream() from error
        except grpc.RpcError as error:
            self._call = None
            raise from_rpc_error(error) from error
        except BaseException:
            self._drop()
            raise
        if response is grpc.aio.EOF:
            self._call = None
            raise broken_stream()
        read: pb.WatchFilesResponse = response
        return read
