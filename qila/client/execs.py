"""The events of one exec, across lost connections."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from qila.client.event_streams import EventStream
from qila.client.position import Position
from qila.client.silence import SILENCE_SECONDS
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
        self._stream = EventStream(
            stub,
            self._position,
            reconnect_seconds=reconnect_seconds,
            silence_seconds=silence_seconds,
            pause=pause,
        )
        # The first event, if it was taken before somebody asked for it; another thread may be the one that does.
        self._first: pb.ExecEvent | None = None
        self._starting = threading.Lock()

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
                self._first = self._stream.receive()
        return self

    def __next__(self) -> pb.ExecEvent:
        if not self._position.begun or self._first is not None:
            self.start()
            event, self._first = self._first, None
            if event is not None:
                return event
        return next(self._stream)

    def close(self) -> None:
        """Stops watching, and an iteration in another thread; the exec runs on."""
        self._stream.close()
