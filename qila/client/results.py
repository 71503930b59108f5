"""What a caller gives and gets beside messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from qila.client.position import Position

DEFAULT_RESULT_BYTES: Final = 16 << 20


class TerminalSize(NamedTuple):
    """Rows and columns of a terminal, each 1 to 4,096."""

    rows: int
    columns: int


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    """A finished exec: how it ended, and what its last run wrote.

    `stdout` also holds what came out of a terminal. `truncated_bytes` were written beyond what was to be kept.
    """

    sandbox_id: str
    exec_id: str
    ended: pb.ExecEnded
    stdout: bytes
    stderr: bytes
    truncated_bytes: int = 0

    @property
    def exit_code(self) -> int | None:
        """The program's own; None unless it exited by itself: `ended` says how it ended then."""
        return self.ended.exited if self.ended.HasField("exited") else None


@dataclass(kw_only=True)
class Collector:
    """Puts together what a run writes, at most `max_bytes` of it."""

    max_bytes: int
    _run: int = 0
    _stdout: bytearray = field(default_factory=bytearray)
    _stderr: bytearray = field(default_factory=bytearray)
    _truncated: int = 0

    def take(self, event: pb.ExecEvent) -> None:
        """Keeps the output of one event; what earlier runs of a program wrote goes."""
        output = event.output
        if output.phase != pb.PHASE_RUN:
            return
        if output.run != self._run:
            self._run, self._stdout, self._stderr, self._truncated = output.run, bytearray(), bytearray(), 0
        room = max(self.max_bytes - len(self._stdout) - len(self._stderr), 0)
        kept = self._stderr if output.stream == pb.STREAM_STDERR else self._stdout
        kept += output.data[:room]
        self._truncated += len(output.data[room:])

    def result(self, sandbox_id: str, exec_id: str, position: Position) -> ExecResult:
        """The whole; the exec has ended."""
        assert position.ended is not None
        return ExecResult(
            sandbox_id=sandbox_id,
            exec_id=exec_id,
            ended=position.ended,
            stdout=bytes(self._stdout),
            stderr=bytes(self._stderr),
            truncated_bytes=self._truncated,
        )
