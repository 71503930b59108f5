"""The requests of both clients."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypedDict

from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from qila.client.results import TerminalSize

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"

What = pb.Program | pb.Command | str | Sequence[str]
"""What an exec runs: a Program or its file's name; a Command or its words."""


class ExecOptions(TypedDict, total=False):
    """How an exec is run; what is left out takes the gateway's default.

    Attributes:
        exec_id: "ex_" and 26 of [a-z2-7]; the same id with the same request joins an exec that is there.
        env: variables on top of the sandbox's own.
        run_seconds: how long the run may take; 10 minutes by default, at most 24 hours.
        install_seconds: how long an install may take; 15 minutes by default, at most an hour.
        idle_seconds: ends a run that neither wrote nor was written to for that long.
        output_limit_bytes: beyond it the bytes of a run are dropped and counted; 64 MiB by default.
        end_at_output_limit: ends the exec there.
        install_missing: what the program imports and its manifest forgot is installed too.
        no_detection: nothing is installed that no manifest or lock names.
        extras: the manifest's extras.
        groups: its dependency groups.
        install_all: every project of the workspace is installed too.
        stdin: the program's input is open for `write_stdin`.
        terminal: the program has a terminal of that size, and its input is open.
        merge_output: stderr goes where stdout goes, in the order of the writes.
        detach: iteration stops after `created`; the exec goes on.
    """

    exec_id: str
    env: Mapping[str, str] | None
    run_seconds: float | None
    install_seconds: float | None
    idle_seconds: float | None
    output_limit_bytes: int
    end_at_output_limit: bool
    install_missing: bool
    no_detection: bool
    extras: Sequence[str]
    groups: Sequence[str]
    install_all: bool
    stdin: bool
    terminal: TerminalSize | None
    merge_output: bool
    detach: bool


_DURATIONS: Final = {
    "run_seconds": "run_timeout",
    "install_seconds": "install_timeout",
    "idle_seconds": "idle_timeout",
}


def new_exec_id() -> str:
    """A new exec id: "ex_" and 26 random characters of [a-z2-7]."""
    return "ex_" + "".join(secrets.choice(_ALPHABET) for _ in range(26))


def exec_request(sandbox_id: str, what: What, options: ExecOptions) -> pb.ExecRequest:
    """The request of one exec, with an id."""
    plain = {name: value for name, value in options.items() if name not in _DURATIONS and name != "terminal"}
    plain["exec_id"] = options.get("exec_id") or new_exec_id()
    request = pb.ExecRequest(sandbox_id=sandbox_id, **plain)  # type: ignore[arg-type]  # ExecOptions types them
    for name, field in _DURATIONS.items():
        seconds = options.get(name)
        if isinstance(seconds, int | float):
            getattr(request, field).FromTimedelta(timedelta(seconds=seconds))
    terminal = options.get("terminal")
    if terminal is not None:
        request.terminal.CopyFrom(pb.Terminal(rows=terminal.rows, columns=terminal.columns))
    _set_what(request, what)
    return request


def _set_what(request: pb.ExecRequest, what: What) -> None:
    if isinstance(what, pb.Program):
        request.program.CopyFrom(what)
    elif isinstance(what, pb.Command):
        request.command.CopyFrom(what)
    elif isinstance(what, str):
        request.program.file = what
    else:
        request.command.argv.extend(what)


def attach_request(
    sandbox_id: str, exec_id: str, after_sequence: int, offsets: pb.OutputOffsets | None
) -> pb.AttachExecRequest:
    """The request to watch an exec from a position."""
    return pb.AttachExecRequest(
        sandbox_id=sandbox_id, exec_id=exec_id, after_sequence=after_sequence, **{"from": offsets}
    )


def resize_request(sandbox_id: str, exec_id: str, size: TerminalSize) -> pb.ResizeTerminalRequest:
    """The request to give a terminal another size."""
    terminal = pb.Terminal(rows=size.rows, columns=size.columns)
    return pb.ResizeTerminalRequest(sandbox_id=sandbox_id, exec_id=exec_id, terminal=terminal)
