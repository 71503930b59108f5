"""Exit codes of the `qila` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qila.gateway.v1 import gateway_pb2 as pb

TIMED_OUT: Final = 124
QILA_FAILED: Final = 125
CANNOT_EXECUTE: Final = 126
COMMAND_NOT_FOUND: Final = 127
SIGNAL_BASE: Final = 128
CANCELLED: Final = 130
KILLED: Final = 137
BROKEN_PIPE: Final = 141

HELP: Final = (
    "Exit code: the program's own; 128+N if signal N killed it; 124 timed out; 125 install failed, or Qila itself "
    "did; 126 the command cannot be executed; 127 it does not exist; 130 cancelled; 137 out of memory."
)


def exit_code(ended: pb.ExecEnded) -> int:  # noqa: PLR0911 - one for each way to end
    """The exit code that tells how an exec ended."""
    match ended.WhichOneof("end"):
        case "exited":
            return ended.exited
        case "signaled":
            return SIGNAL_BASE + ended.signaled
        case "timed_out":
            return TIMED_OUT
        case "oom_killed":
            return KILLED
        case "cancelled":
            return CANCELLED
        case "start_failed":
            return COMMAND_NOT_FOUND if ended.start_failed.error == "ENOENT" else CANNOT_EXECUTE
        case _:
            return QILA_FAILED
