"""The connection to the executor, as the event loop sees it."""

from __future__ import annotations

import collections
import socket
from typing import TYPE_CHECKING

from .frames import Decoder, Frame, Header, encode
from .loop import READ, WRITE, Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RECEIVE_BYTES = 1 << 18
_BUFFERS_A_CALL = 64
# Output waits in its spool, answers in their child, while more than this waits here.
ROOM_BYTES = 1 << 18


class Connection:
    """Frames both ways over a socket that never blocks.

    Args:
        loop: the first process's.
        stream: connected.
        ready: called when there is something to read.
        drained: called when there is room to send again.
    """

    def __init__(
        self, loop: Loop, stream: socket.socket, ready: Callable[[], None], drained: Callable[[], None]
    ) -> None:
        stream.setblocking(False)
        self._loop = loop
        self._socket = stream
        self._ready = ready
        self._drained = drained
        self._decoder = Decoder()
        # Kept: to ask for a quarter of a MiB anew each time costs more than to read a frame.
        self._received = memoryview(bytearray(_RECEIVE_BYTES))
        self._waiting: collections.deque[memoryview] = collections.deque()
        self._waiting_bytes = 0
        self._reads = True
        self._watch()

    @property
    def has_room(self) -> bool:
        """Whether bulk should be sent now."""
        return self._waiting_bytes < ROOM_BYTES

    def send(self, header: Header, payload: bytes) -> None:
        """Send a frame as soon as the socket takes it."""
        data = encode(header, payload)
        self._waiting.append(memoryview(data))
        self._waiting_bytes += len(data)
        if len(self._waiting) == 1:
            self._flush()

    def read_on(self, *, wanted: bool) -> None:
        """Read the executor, or leave what it sends in the socket."""
        if wanted != self._reads:
            self._reads = wanted
            self._watch()

    def receive(self) -> Iterator[Frame]:
        """Take the frames that are there.

        Raises:
            ConnectionError: the other side has gone.
            FrameError: a frame breaks a rule.
        """
        try:
            size = self._socket.recv_into(self._received)
        except BlockingIOError:
            return
        if not size:
            raise ConnectionResetError
        self._decoder.feed(self._received[:size])
        while (frame := self._decoder.next()) is not None:
            yield frame

    def close(self) -> None:
        """End it."""
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()

    def _watch(self) -> None:
        events = (READ if self._reads else 0) | (WRITE if self._waiting else 0)
        if events:
            self._loop.watch(self._socket.fileno(), events, self._on_events)
        else:
            self._loop.unwatch(self._socket.fileno())

    def _on_events(self, events: int) -> None:
        if events & WRITE:
            self._flush()
            if self.has_room:
                self._drained()
        if events & READ and self._socket.fileno() >= 0:
            self._ready()

    def _flush(self) -> None:
        try:
            while self._waiting:
                self._advance(
                    self._socket.sendmsg([self._waiting[i] for i in range(min(len(self._waiting), _BUFFERS_A_CALL))])
                )
        except BlockingIOError:
            pass
        except OSError:
            # Gone; reading tells, and there the end is handled.
            self._waiting.clear()
            self._waiting_bytes = 0
            self._reads = True
        self._watch()

    def _advance(self, sent: int) -> None:
        self._waiting_bytes -= sent
        while sent:
            first = self._waiting[0]
            if sent < len(first):
                self._waiting[0] = first[sent:]
                return
            sent -= len(first)
            self._waiting.popleft()
