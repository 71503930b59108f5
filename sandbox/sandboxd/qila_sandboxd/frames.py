"""Frames: two lengths, a JSON header, raw bytes. The same on the control socket and between our own processes."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

Header = dict[str, Any]
Frame = tuple[Header, bytes]

MAXIMUM_HEADER = 1 << 20
MAXIMUM_PAYLOAD = 1 << 16
_LENGTHS = struct.Struct(">II")
_RECEIVE_BYTES = 1 << 18


class FrameError(Exception):
    """A frame that breaks a rule; the connection it came over cannot be used any more."""


def encode(header: Header, payload: bytes = b"") -> bytes:
    """Return the frame's bytes.

    Raises:
        FrameError: the header or the payload is larger than a frame may be.
    """
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > MAXIMUM_HEADER or len(payload) > MAXIMUM_PAYLOAD:
        raise FrameError(f"frame too large: header {len(text)}, payload {len(payload)} bytes")
    return _LENGTHS.pack(len(text), len(payload)) + text + payload


class Decoder:
    """Turns a stream of bytes into frames; holds at most one frame that is not complete and what came behind it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        """Add bytes as they came."""
        self._buffer += data

    def next(self) -> Frame | None:
        """Take the next complete frame, or None.

        Raises:
            FrameError: a length is too large, or the header is not a JSON object with a string `type`.
        """
        if len(self._buffer) < _LENGTHS.size:
            return None
        header_length, payload_length = _LENGTHS.unpack_from(self._buffer)
        if header_length > MAXIMUM_HEADER or payload_length > MAXIMUM_PAYLOAD:
            raise FrameError(f"frame too large: header {header_length}, payload {payload_length} bytes")
        middle = _LENGTHS.size + header_length
        end = middle + payload_length
        if len(self._buffer) < end:
            return None
        header = _parse(bytes(self._buffer[_LENGTHS.size : middle]))
        payload = bytes(self._buffer[middle:end])
        del self._buffer[:end]
        return header, payload


def _parse(text: bytes) -> Header:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError("the header is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise FrameError("the header is not an object with a string field `type`")
    return header


class Channel:
    """Frames over a blocking socket: what our forked children speak with the first process."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._decoder = Decoder()

    def send(self, header: Header, payload: bytes = b"") -> None:
        """Send one frame; waits until the other side takes it."""
        self.connection.sendall(encode(header, payload))

    def receive(self) -> Frame | None:
        """Wait for the next frame; None when the other side has gone."""
        while True:
            frame = self._decoder.next()
            if frame is not None:
                return frame
            data = self.connection.recv(_RECEIVE_BYTES)
            if not data:
                return None
            self._decoder.feed(data)
