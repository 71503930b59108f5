"""What `watches` is, for an asynchronous caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qila.client.event_streams import AsyncEventStream
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
        self._state = WatchState(request)
        self._stream = AsyncEventStream(
            stub, self._state, reconnect_seconds=reconnect_seconds, silence_seconds=silence_seconds
        )

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
            await self._stream.receive()
        return self

    async def __anext__(self) -> FileEvent:
        while (event := self._state.next()) is None:
            await anext(self._stream)
        return event

    async def close(self) -> None:
        """Stops watching, and an iteration in another task."""
        self._stream.close()
