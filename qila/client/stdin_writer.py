"""Writes the input of one exec from a thread, across lost connections."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from qila.client.errors import QilaError, UnavailableError, translated
from qila.client.position import Patience, broken_stream
from qila.client.stdin import StdinBuffer, StdinLink, is_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qila.gateway.v1 import gateway_pb2 as pb
    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub


class StdinWriter:
    """Sends what it is given in order; holds at most 1 MiB that is not acknowledged, then `write` blocks.

    Attributes:
        failure: why nothing more can be sent; None while all is well.
    """

    def __init__(self, stub: GatewayServiceStub, sandbox_id: str, exec_id: str, *, reconnect_seconds: float) -> None:
        self._stub = stub
        self._ids = (sandbox_id, exec_id)
        self._patience = Patience(reconnect_seconds)
        self._buffer = StdinBuffer()
        self._changed = threading.Condition()
        self.failure: QilaError | None = None
        self._over = False
        self._stopped = threading.Event()
        self._call: Any = None
        threading.Thread(target=self._pump, name="qila-stdin", daemon=True).start()

    def write(self, data: bytes) -> None:
        """Takes all of it, and blocks while there is no room. QilaError: why nothing more can be sent."""
        rest = memoryview(data)
        with self._changed:
            while rest:
                self._changed.wait_for(lambda: self._over or self._buffer.room > 0)
                self._check()
                rest = rest[self._buffer.append(rest) :]
                self._changed.notify_all()

    def end(self) -> None:
        """The program reads end of file behind what was written. A repeat is fine."""
        with self._changed:
            self._buffer.closed = True
            self._changed.notify_all()

    def flush(self, seconds: float | None) -> bool:
        """Waits until all is acknowledged, an end too; False if that took too long. QilaError: why it never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or (self._buffer.settled and not self._buffer.closed), seconds)
            if self.failure is not None:
                raise self.failure
            return self._buffer.settled and (self._over or not self._buffer.closed)

    def stop(self) -> None:
        """Lets the connection go; what is not sent stays unsent, and the input stays open."""
        with self._changed:
            self._stopped.set()
            if self._call is not None:
                self._call.cancel()
            self._changed.notify_all()

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._over or self._buffer.closed:
            raise ValueError("the input was closed")

    def _pump(self) -> None:
        try:
            while not self._stopped.is_set():
                pause = self._connect()
                if pause is None:
                    return
                self._stopped.wait(pause)
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _connect(self) -> float | None:
        """One connection to its end; answers the pause before the next one, None if there is none."""
        try:
            self._send_over_one()
        except UnavailableError as error:
            pause = self._patience.next_pause()
            self.failure = error if pause is None else None
            return pause
        except QilaError as error:
            if not is_end(error, self._buffer) and not self._stopped.is_set():
                self.failure = error
        return None

    def _send_over_one(self) -> None:
        link = StdinLink(self._buffer, *self._ids)
        with self._changed:
            if self._stopped.is_set():
                return
            call = self._call = self._stub.WriteStdin(self._requests(link))
        try:
            with translated():
                for answer in call:
                    with self._changed:
                        link.answered(answer.accepted)
                        self._patience.progressed()
                        self._changed.notify_all()
            if not (link.end_sent and self._buffer.settled):
                raise broken_stream()
        finally:
            call.cancel()
            with self._changed:
                # Its requests' thread must not wait for ever.
                link.over = True
                self._changed.notify_all()

    def _requests(self, link: StdinLink) -> Iterator[pb.WriteStdinRequest]:
        yield link.header()
        while not link.end_sent:
            with self._changed:
                request = link.next_request()
                while request is None:
                    if link.over or self._stopped.is_set():
                        return
                    self._changed.wait()
                    request = link.next_request()
            yield request
