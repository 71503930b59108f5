"""What a call's child says: data no faster than the executor takes it."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from .frames import Channel, Header
from .paths import CallError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

_MAXIMUM_UNCREDITED = 1 << 20


class Answers:
    """Sends `data` of a call, no more at once than the executor has given credit for."""

    def __init__(self, connection: socket.socket) -> None:
        self.channel = Channel(connection)
        self._uncredited = 0
        # Of an upload's whole stream, as its last chunk says; empty if it does not.
        self.expected_sha256 = ""

    def data(self, header: Header, payload: bytes = b"") -> None:
        """Send one `data` frame; waits for credit first where bytes are on their way already."""
        while self._uncredited + len(payload) > _MAXIMUM_UNCREDITED or self._credit_waits():
            frame = self.channel.receive()
            if frame is None:
                raise SystemExit
            self._uncredited -= frame[0]["bytes"]
        self._uncredited += len(payload)
        self.channel.send({"type": "data"} | header, payload)

    def upload(self) -> Iterator[bytes]:
        """The bytes of an upload as they come, to the last. Leaves when the other side goes before it."""
        while True:
            frame = self.channel.receive()
            if frame is None:
                raise SystemExit
            yield frame[1]
            if frame[0].get("last"):
                self.expected_sha256 = frame[0].get("sha256", "")
                return

    def check_sha256(self, sha256: str) -> None:
        """Hold an upload that is whole against what its sender said of it.

        Raises:
            CallError: `digest_mismatch`.
        """
        if self.expected_sha256 not in {"", sha256}:
            raise CallError(
                "digest_mismatch", "what came is not what was to be sent; nothing was written, send it again"
            )

    def _credit_waits(self) -> bool:
        return bool(select.select([self.channel.connection], [], [], 0)[0])
