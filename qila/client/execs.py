"""The events of one exec, across lost connections."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc

from qila.client.errors import QilaError, UnavailableError, from_rpc_error
from qila.client.position import Patience, Position, broken_stream
from qila.client.silence import SILENCE_SECONDS, SilenceWatch
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub


class ExecStream:
    """Iterates over an exec's events and stops after `ended`; after `created`, of an exec that is started detached.

    When the connection is lost after the first event, it attaches again at its position, for at most
    `reconnect_seconds` without an event; then it raises UnavailableError. Once the gateway has told a heartbeat,
    silence for `silence_seconds` counts as a lost connection. An interrupted iteration can be continued.
    """

    def __init__(
        self,
        stub: GatewayServiceStub,
        request: pb.ExecRequest | pb.AttachExecRequest,
        *,
        reconnect_seconds: float = 60,
        silence_seconds: float = SILENCE_SECONDS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.sandbox_id = request.sandbox_id
        self.exec_id = request.exec_id
        self._stub = stub
        self._position = Position(request)
        self._reconnect_seconds = reconnect_seconds
        self._pause = pause
        # Both calls' iterators; the stubs name no public type for them.
        self._call: Any = None
        # The first event, if it was taken before somebody asked for it; another thread may be the one that does.
        self._first: pb.ExecEvent | None = None
        self._starting = threading.Lock()
        self._closed = False
        self._silent = False
        self._silence = SilenceWatch(silence_seconds, self._break_off)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    @property
    def ended(self) -> pb.ExecEnded | None:
        """How it ended; None until that event came."""
        return self._position.ended

    def start(self) -> Self:
        """Returns once the exec is there, without taking an event from the iteration. A repeat does nothing."""
        with self._starting:
            if not self._position.begun:
                self._first = self._receive()
        return self

    def __next__(self) -> pb.ExecEvent:
        if not self._position.begun or self._first is not None:
            self.start()
            event, self._first = self._first, None
            if event is not None:
                return event
        if self._position.complete:
            self._hear_out()
            raise StopIteration
        try:
            return self._receive()
        except QilaError:
            # Nobody listens until the iteration is continued.
            self._silence.stop()
            if self._closed:
                raise StopIteration from None
            raise

    def close(self) -> None:
        """Stops watching, and an iteration in another thread; the exec runs on."""
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

    def _receive(self) -> pb.ExecEvent:
        patience = Patience(self._reconnect_seconds)
        while True:
            try:
                event = self._next_of_call()
            except UnavailableError:
                pause = patience.next_pause()
                if not self._position.begun or pause is None or self._closed:
                    raise
            else:
                self._take(event)
                return event
            self._pause(pause)

    def _take(self, event: pb.ExecEvent) -> None:
        self._position.take(event)
        self._silence.heard()
        if self._position.complete:
            self._silence.stop()
        elif event.HasField("heartbeat") and not self._closed:
            self._silence.start()

    def _next_of_call(self) -> pb.ExecEvent:
        try:
            call = self._call = self._call or self._open()
            response = None if self._closed else next(call, None)
        except grpc.RpcError as error:
            self._call = None
            if self._silent:
                self._silent = False
                raise broken_stream() from error
            raise from_rpc_error(error) from error
        except BaseException:
            # An interrupted call cannot be trusted to have lost nothing: the next one starts at our position.
            self._drop()
            raise
        if response is None:
            self._call = None
            raise broken_stream()
        event: pb.ExecEvent = response.event
        return event

    def _hear_out(self) -> None:
        """Takes the call's own end, which follows at once: dropped before it, the call would look cancelled."""
        if self._call is not None:
            with contextlib.suppress(grpc.RpcError):
                next(self._call, None)
            self._call = None

    def _open(self) -> Any:
        request = self._position.next_request()
        if isinstance(request, pb.ExecRequest):
            return self._stub.Exec(request)
        return self._stub.AttachExec(request)
