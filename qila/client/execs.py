"""The events of one exec, across lost connections."""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import grpc

from qila.client.errors import UnavailableError, from_rpc_error
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0


def new_exec_id() -> str:
    """A new exec id: "ex_" and 26 random characters of [a-z2-7]."""
    return "ex_" + "".join(secrets.choice(_ALPHABET) for _ in range(26))


class ExecStream:
    """Iterates over an exec's events and stops after `ended`.

    When the connection is lost after the first event, it attaches again at its position, for at most
    `reconnect_seconds` without an event; then it raises UnavailableError. An interrupted iteration can be continued.
    """

    def __init__(
        self,
        stub: GatewayServiceStub,
        request: pb.ExecRequest | pb.AttachExecRequest,
        *,
        reconnect_seconds: float = 60,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.sandbox_id = request.sandbox_id
        self.exec_id = request.exec_id
        self._stub = stub
        self._request = request
        self._reconnect_seconds = reconnect_seconds
        self._pause = pause
        self._sequence = 0
        self._offsets = pb.OutputOffsets()
        if isinstance(request, pb.AttachExecRequest):
            self._sequence = request.after_sequence
            # `from` is a keyword of Python.
            self._offsets.CopyFrom(getattr(request, "from"))
        self._begun = False
        self._ended = False
        # Both calls' iterators; the stubs name no public type for them.
        self._call: Any = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> pb.ExecEvent:
        if self._ended:
            self._hear_out()
            raise StopIteration
        event = self._receive()
        self._begun = True
        self._sequence = max(self._sequence, event.sequence)
        if event.HasField("output") and event.output.phase == pb.PHASE_RUN:
            if event.output.run != self._offsets.run:
                # The offsets of each run start at zero.
                self._offsets = pb.OutputOffsets(run=event.output.run)
            end = event.output.offset + len(event.output.data)
            if event.output.stream == pb.STREAM_STDOUT:
                self._offsets.stdout = end
            else:
                self._offsets.stderr = end
        self._ended = event.HasField("ended")
        return event

    def _receive(self) -> pb.ExecEvent:
        deadline = time.monotonic() + self._reconnect_seconds
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return self._next_of_call()
            except UnavailableError:
                if not self._begun or time.monotonic() >= deadline:
                    raise
            self._pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _next_of_call(self) -> pb.ExecEvent:
        try:
            if self._call is None:
                self._call = self._open()
            response = next(self._call, None)
        except grpc.RpcError as error:
            self._call = None
            raise from_rpc_error(error) from error
        except BaseException:
            # An interrupted call cannot be trusted to have lost nothing: the next one starts at our position.
            self.close()
            raise
        if response is None:
            self._call = None
            raise UnavailableError(
                code=grpc.StatusCode.UNAVAILABLE,
                reason="STREAM_BROKEN",
                message="the gateway ended the stream before the exec had ended",
            )
        event: pb.ExecEvent = response.event
        return event

    def _hear_out(self) -> None:
        """Takes the call's own end, which follows at once: dropped before it, the call would look cancelled."""
        if self._call is not None:
            with contextlib.suppress(grpc.RpcError):
                next(self._call, None)
            self._call = None

    def _open(self) -> Any:
        if not self._begun and isinstance(self._request, pb.ExecRequest):
            return self._stub.Exec(self._request)
        again = pb.AttachExecRequest(
            sandbox_id=self.sandbox_id, exec_id=self.exec_id, after_sequence=self._sequence, **{"from": self._offsets}
        )
        return self._stub.AttachExec(again)

    def close(self) -> None:
        """Stops watching; the exec runs on."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
