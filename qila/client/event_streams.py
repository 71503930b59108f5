"""What the gateway streams, over one connection after the other. Both clients decide alike: by what was heard."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import grpc

from qila.client.errors import QilaError, UnavailableError, from_rpc_error
from qila.client.position import Patience, broken_stream
from qila.client.silence import SilenceWatch
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

Message = TypeVar("Message", pb.ExecEvent, pb.WatchFilesResponse)


class Heard(Protocol[Message]):
    """What was heard of one stream, over all of its connections."""

    begun: bool

    @property
    def complete(self) -> bool:
        """Whether nothing more comes."""

    def open(self, stub: Any) -> Any:
        """Asks one of the clients' stubs for what is to come; the stubs name no type that their calls share."""

    def message_in(self, response: Any) -> Message:
        """What such a call has answered."""

    def take(self, message: Message) -> None:
        """Takes over what came."""


class EventStream(Generic[Message]):
    """Iterates over the messages to the last.

    When the connection is lost after the first, another one is opened, for at most `reconnect_seconds` without a
    message; then UnavailableError. Once the gateway has told a heartbeat, silence for `silence_seconds` counts as a
    lost connection. An interrupted iteration can be continued.
    """

    def __init__(
        self,
        stub: Any,
        heard: Heard[Message],
        *,
        reconnect_seconds: float,
        silence_seconds: float,
        pause: Callable[[float], None],
    ) -> None:
        self._stub = stub
        self._heard: Heard[Message] = heard
        self._reconnect_seconds = reconnect_seconds
        self._pause = pause
        self._call: Any = None
        self._closed = False
        self._silent = False
        self._silence = SilenceWatch(silence_seconds, self._break_off)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        if self._heard.complete:
            self._hear_out()
            raise StopIteration
        try:
            return self.receive()
        except QilaError:
            if self._closed:
                raise StopIteration from None
            raise

    def receive(self) -> Message:
        """The next message, of a stream that is not complete."""
        try:
            return self._receive()
        except QilaError:
            # Nobody listens until the iteration is continued.
            self._silence.stop()
            raise

    def close(self) -> None:
        """Ends the iteration, in another thread too."""
        self._closed = True
        self._silence.stop()
        self._drop()

    def _break_off(self) -> None:
        self._silent = True
        call = self._call
        if call is not None:
            call.cancel()

    def _drop(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _receive(self) -> Message:
        patience = Patience(self._reconnect_seconds)
        while True:
            try:
                message = self._next_of_call()
            except UnavailableError:
                pause = patience.next_pause()
                if not self._heard.begun or pause is None or self._closed:
                    raise
            else:
                self._take(message)
                return message
            self._pause(pause)

    def _take(self, message: Message) -> None:
        self._heard.take(message)
        self._silence.heard()
        if self._heard.complete:
            self._silence.stop()
        elif message.HasField("heartbeat") and not self._closed:
            self._silence.start()

    def _next_of_call(self) -> Message:
        try:
            call = self._call = self._call or self._heard.open(self._stub)
            response = None if self._closed else next(call, None)
        except grpc.RpcError as error:
            self._call = None
            if self._silent:
                self._silent = False
                raise broken_stream() from error
            raise from_rpc_error(error) from error
        except BaseException:
            # An interrupted call cannot be trusted to have lost nothing: the next one starts behind what was heard.
            self._drop()
            raise
        if response is None:
            self._call = None
            raise broken_stream()
        return self._heard.message_in(response)

    def _hear_out(self) -> None:
        """Takes the call's own end, which follows at once: dropped before it, the call would look cancelled."""
        call, self._call = self._call, None
        if call is not None:
            with contextlib.suppress(grpc.RpcError):
                next(call, None)


class AsyncEventStream(Generic[Message]):
    """The same, for an asynchronous caller."""

    def __init__(self, stub: Any, heard: Heard[Message], *, reconnect_seconds: float, silence_seconds: float) -> None:
        self._stub = stub
        self._heard: Heard[Message] = heard
        self._reconnect_seconds = reconnect_seconds
        self._call: Any = None
        self._closed = False
        # Set by the first heartbeat: from then on silence means that the connection is lost.
        self._silence_seconds = silence_seconds
        self._longest_silence: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        if self._heard.complete:
            await self._hear_out()
            raise StopAsyncIteration
        try:
            return await self.receive()
        except (QilaError, asyncio.CancelledError):
            task = asyncio.current_task()
            # What `close` cancels is the call; a task that is cancelled itself must end so.
            if self._closed and not (task is not None and task.cancelling()):
                raise StopAsyncIteration from None
            raise

    async def receive(self) -> Message:
        """The next message, of a stream that is not complete."""
        patience = Patience(self._reconnect_seconds)
        while True:
            try:
                message = await self._next_of_call()
            except UnavailableError:
                pause = patience.next_pause()
                if not self._heard.begun or pause is None or self._closed:
                    raise
            else:
                self._heard.take(message)
                if message.HasField("heartbeat"):
                    self._longest_silence = self._silence_seconds
                return message
            await asyncio.sleep(pause)

    def close(self) -> None:
        """Ends the iteration, in another task too."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    async def _next_of_call(self) -> Message:
        try:
            call = self._call = self._call or self._heard.open(self._stub)
            async with asyncio.timeout(self._longest_silence):
                response: Any = grpc.aio.EOF if self._closed else await call.read()
        except TimeoutError as error:
            self._drop()
            raise broken_stream() from error
        except grpc.RpcError as error:
            self._call = None
            raise from_rpc_error(error) from error
        except BaseException:
            # An interrupted call cannot be trusted to have lost nothing: the next one starts behind what was heard.
            self._drop()
            raise
        if response is grpc.aio.EOF:
            self._call = None
            raise broken_stream()
        return self._heard.message_in(response)

    async def _hear_out(self) -> None:
        """Takes the call's own end, which follows at once: dropped before it, the call would look cancelled."""
        call, self._call = self._call, None
        if call is not None:
            with contextlib.suppress(grpc.RpcError):
                await call.read()
