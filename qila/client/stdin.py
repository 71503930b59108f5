"""The input of one exec as its writer keeps it: what is not acknowledged is sent again after a lost connection."""

from __future__ import annotations

from typing import Final

import grpc

from qila.client.errors import AbortedError, QilaError
from qila.gateway.v1 import gateway_pb2 as pb

MAX_UNACKNOWLEDGED_BYTES: Final = 1 << 20
CHUNK_BYTES: Final = 64 << 10
# The reason of an input whose program is gone.
EXEC_ENDED: Final = "EXEC_ENDED"


class StdinBuffer:
    """The bytes from the first that is not acknowledged, at most MAX_UNACKNOWLEDGED_BYTES.

    Where a writer begins is said by the gateway's first answer: others may have written before.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._start = 0
        self._placed = False
        self.closed = False

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        return self._start + len(self._bytes)

    @property
    def room(self) -> int:
        """How many bytes fit."""
        return MAX_UNACKNOWLEDGED_BYTES - len(self._bytes)

    @property
    def settled(self) -> bool:
        """Whether everything is acknowledged."""
        return not self._bytes

    def append(self, data: memoryview) -> int:
        """Takes what fits; answers how many bytes that were."""
        taken = data[: self.room]
        self._bytes += taken
        return len(taken)

    def accept(self, accepted: int) -> None:
        """Drops what can no longer be lost. AbortedError: somebody else wrote beyond our bytes."""
        if not self._placed:
            self._start, self._placed = accepted, True
        elif not self._start <= accepted <= self.end:
            raise AbortedError(
                code=grpc.StatusCode.ABORTED,
                reason="STDIN_TAKEN_OVER",
                message=f"the input goes on at {accepted}, and ours ends at {self.end}: another one wrote",
            )
        else:
            del self._bytes[: accepted - self._start]
            self._start = accepted

    def chunk(self, offset: int) -> bytes:
        """What is to be sent at an offset; empty if there is nothing more."""
        first = offset - self._start
        return bytes(self._bytes[first : first + CHUNK_BYTES])


class StdinLink:
    """What was sent over one connection: nothing but the header before the first answer, then bytes, then the end."""

    def __init__(self, buffer: StdinBuffer, sandbox_id: str, exec_id: str) -> None:
        self._buffer = buffer
        self._header = pb.WriteStdinHeader(sandbox_id=sandbox_id, exec_id=exec_id)
        self._sent: int | None = None
        self.end_sent = False
        self.over = False

    def header(self) -> pb.WriteStdinRequest:
        """The first message."""
        return pb.WriteStdinRequest(header=self._header)

    def answered(self, accepted: int) -> None:
        """Takes an answer; the first one says where to go on. AbortedError: as StdinBuffer.accept."""
        self._buffer.accept(accepted)
        self._sent = max(self._sent or 0, accepted)

    def next_request(self) -> pb.WriteStdinRequest | None:
        """What can be sent now; None if nothing can."""
        if self._sent is None or self.end_sent:
            return None
        data = self._buffer.chunk(self._sent)
        if data:
            request = pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=self._sent, data=data))
            self._sent += len(data)
            return request
        if not self._buffer.closed:
            return None
        self.end_sent = True
        return pb.WriteStdinRequest(end=pb.StdinEnd(offset=self._sent))


def is_end(error: QilaError, buffer: StdinBuffer) -> bool:
    """Whether an error only says that an end, which a lost connection kept from us, was taken."""
    return error.reason == "STDIN_ENDED" and buffer.closed and buffer.settled
