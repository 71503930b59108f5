"""What a program wrote and the executor has not stored yet."""

from __future__ import annotations

MAXIMUM_UNACKNOWLEDGED = 4 << 20


class Spool:
    """One stream's unacknowledged bytes. Offsets count from the stream's first byte.

    `acknowledged <= sent <= end` always holds; the bytes from `acknowledged` to `end` are in memory.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.acknowledged = 0
        self.sent = 0

    @property
    def end(self) -> int:
        """Offset behind the last byte that was read from the program."""
        return self.acknowledged + len(self._bytes)

    def append(self, data: bytes) -> None:
        """Add what the program wrote."""
        self._bytes += data

    def take(self, maximum: int) -> tuple[int, bytes]:
        """Return the next bytes to send, at most `maximum`, with their offset, and count them as sent."""
        start = self.sent - self.acknowledged
        data = bytes(memoryview(self._bytes)[start : start + maximum])
        offset = self.sent
        self.sent += len(data)
        return offset, data

    def acknowledge(self, offset: int) -> None:
        """Drop what lies below `offset`; an offset from the past changes nothing.

        Raises:
            ValueError: these bytes were never sent.
        """
        if offset > self.sent:
            raise ValueError(f"acknowledged up to {offset}, sent up to {self.sent}")
        if offset > self.acknowledged:
            del self._bytes[: offset - self.acknowledged]
            self.acknowledged = offset

    def resume(self, offset: int) -> None:
        """Send again from `offset`, which the other side has stored up to.

        Raises:
            ValueError: bytes from there on are gone, or were never read.
        """
        if not self.acknowledged <= offset <= self.end:
            raise ValueError(f"cannot resume at {offset}: held are {self.acknowledged} to {self.end}")
        self.sent = offset
        self.acknowledge(offset)

    def discard(self) -> None:
        """Forget everything: nobody will ask for it."""
        self.acknowledged = self.sent = self.end
        self._bytes.clear()
