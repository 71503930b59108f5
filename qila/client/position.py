"""Where a watcher of an exec is, and how it goes on after a lost connection. Pure: both clients share it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import grpc

from qila.client.errors import UnavailableError
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_FIELDS: Final = {pb.STREAM_STDOUT: "stdout", pb.STREAM_STDERR: "stderr", pb.STREAM_TERMINAL: "terminal"}


class Patience:
    """How long to try again: `seconds` since the last progress, with growing pauses between."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self.progressed()

    def progressed(self) -> None:
        """Begins anew: something came."""
        self._deadline = self._now() + self._seconds
        self._pause = _FIRST_PAUSE_S

    def next_pause(self) -> float | None:
        """Seconds to wait before the next try; None when it is over."""
        if self._now() >= self._deadline:
            return None
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE_S)
        return pause


class Position:
    """What was seen of one exec's events."""

    def __init__(self, request: pb.ExecRequest | pb.AttachExecRequest) -> None:
        self._request = request
        self._sequence = 0
        self._offsets = pb.OutputOffsets()
        self._detached = False
        if isinstance(request, pb.AttachExecRequest):
            self._sequence = request.after_sequence
            # `from` is a keyword of Python.
            self._offsets.CopyFrom(getattr(request, "from"))
        else:
            self._detached = request.detach
        self.begun = False
        self.ended: pb.ExecEnded | None = None

    @property
    def complete(self) -> bool:
        """Whether no further event comes."""
        return self.ended is not None or (self._detached and self.begun)

    def take(self, event: pb.ExecEvent) -> None:
        """Moves behind one event."""
        self.begun = True
        self._sequence = max(self._sequence, event.sequence)
        if event.HasField("output") and event.output.phase == pb.PHASE_RUN:
            self._take_output(event.output)
        if event.HasField("ended"):
            self.ended = event.ended

    def _take_output(self, output: pb.Output) -> None:
        if output.run != self._offsets.run:
            # The offsets of each run start at zero.
            self._offsets = pb.OutputOffsets(run=output.run)
        name = _FIELDS.get(output.stream)
        if name is not None:
            setattr(self._offsets, name, output.offset + len(output.data))

    def open(self, stub: Any) -> Any:
        """Asks one of the clients' stubs for the exec itself at first, then for the events behind this position."""
        if not self.begun and isinstance(self._request, pb.ExecRequest):
            return stub.Exec(self._request)
        rest = pb.AttachExecRequest(
            sandbox_id=self._request.sandbox_id,
            exec_id=self._request.exec_id,
            after_sequence=self._sequence,
            **{"from": self._offsets},
        )
        return stub.AttachExec(rest)

    def message_in(self, response: pb.ExecResponse | pb.AttachExecResponse) -> pb.ExecEvent:
        """The event that either call has answered."""
        return response.event


def broken_stream() -> UnavailableError:
    """The gateway ended a stream early: as good as a lost connection."""
    return UnavailableError(
        code=grpc.StatusCode.UNAVAILABLE,
        reason="STREAM_BROKEN",
        message="the gateway broke off the stream before its end",
    )
