"""All programs of the sandbox, and what is said of them on the control socket."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from .ends import Ends
from .environment import environment
from .frames import MAXIMUM_PAYLOAD, Header
from .inputs import CRAMPED_WAITING, MAXIMUM_WAITING, ROOMY_INPUTS
from .linux import USERS
from .paths import WORKSPACE
from .process import STREAMS, Process
from .supervisors import Order, Supervisor, Supervisors

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

# The next supervisor is spawned when the program that took the last one has surely been started.
_SPARE_SECONDS = 0.02
_AT_LIMIT = "no new process: the sandbox is at its limit"
_NO_TERMINAL = "no new terminal: the machine is at its limit"


class Processes:
    """Starts, tells of and ends programs.

    Args:
        loop: the first process's.
        send: sends a frame to the executor.
        has_room: whether the connection takes output now.
    """

    def __init__(self, loop: Loop, send: Callable[[Header, bytes], None], has_room: Callable[[], bool]) -> None:
        self._loop = loop
        self._send = send
        self._has_room = has_room
        self._known: dict[str, Process] = {}
        self._failed: dict[str, dict[str, Any]] = {}
        # Forgotten, but with descendants that a cancel must still reach.
        self._lingering: dict[str, Process] = {}
        self._told_started: set[str] = set()
        self._told_ended: set[str] = set()
        self._connected = False
        self._supervisors = Supervisors()
        self._supervisors.prepare()

    def welcome(self) -> list[dict[str, Any]]:
        """Rows of the `welcome` frame."""
        rows: list[dict[str, Any]] = []
        for name, process in self._known.items():
            offsets = {"offsets": process.offsets(), "held": process.held()}
            row: dict[str, Any] = {"process": name, "state": "running", **offsets}
            if process.input is not None:
                row["input"] = process.input.state()
            if process.end is not None:
                row |= {"state": "ended", "end": process.end, "oom_kills": process.oom_kills}
            rows.append(row)
        rows += [
            {"process": name, "state": "ended", "end": end, "oom_kills": 0, "offsets": dict.fromkeys(STREAMS, 0)}
            for name, end in self._failed.items()
        ]
        return rows

    def resume(self, header: Header) -> None:
        """Go on where the executor stands; what it does not name is killed and forgotten."""
        offsets = header["processes"]
        for name in self._known.keys() - offsets.keys():
            self._known[name].kill("cancelled")
            self._drop(name)
        self._failed = {name: end for name, end in self._failed.items() if name in offsets}
        for name, process in self._known.items():
            process.resume(offsets[name])
            _tell_input_again(process)
        self._told_ended.clear()
        self._connected = True
        self.pump()

    def disconnect(self) -> None:
        """Nobody listens: programs go on."""
        self._connected = False

    def start(self, header: Header) -> None:
        """Start a program; one that is known is only told of again."""
        name = header["process"]
        if name not in self._known and name not in self._failed:
            self._start(name, header)
        elif name in self._known:
            _tell_input_again(self._known[name])
        self._told_started.discard(name)
        self._told_ended.discard(name)
        self.pump()

    def input(self, header: Header, payload: bytes) -> None:
        """Bytes for a program, or their end; for one that has ended they are dropped."""
        process = self._known.get(header["process"])
        if process is not None and process.input is not None:
            process.input.receive(header["offset"], payload, end=bool(header.get("end")))
            self.pump()

    def resize(self, header: Header) -> None:
        """Set the size of a program's terminal."""
        process = self._known.get(header["process"])
        if process is not None:
            process.resize(header["rows"], header["columns"])

    def signal(self, header: Header) -> None:
        """Signal a program's group."""
        process = self._known.get(header["process"])
        if process is not None:
            process.signal(header["signal"])

    def acknowledge(self, header: Header) -> None:
        """The executor has stored up to here."""
        process = self._known.get(header["process"])
        if process is not None:
            process.acknowledge(header)
            self.pump()

    def cancel(self, header: Header) -> None:
        """Kill the lineage."""
        name = header["process"]
        process = self._known.get(name) or self._lingering.get(name)
        if process is not None:
            process.kill("cancelled")

    def forget(self, header: Header) -> None:
        """The executor has stored the end."""
        self._failed.pop(header["process"], None)
        if header["process"] in self._known:
            self._drop(header["process"])

    def pump(self) -> None:
        """Send what there is to send, a frame of each stream in turn, while the connection takes it."""
        for name in [name for name, process in self._lingering.items() if not process.supervised]:
            del self._lingering[name]
        if not self._connected:
            return
        self._tell_started()
        self._tell_inputs()
        more = True
        while more:
            more = False
            for name, process in self._known.items():
                for stream in process.streams:
                    is_told_of = process.pid is not None or process.end is not None
                    if not is_told_of or stream.spool.sent == stream.spool.end:
                        continue
                    if not self._has_room():
                        return
                    offset, data = stream.spool.take(MAXIMUM_PAYLOAD)
                    self._send({"type": "output", "process": name, "stream": stream.name, "offset": offset}, data)
                    more = True
        self._tell_ended()

    def _start(self, name: str, header: Header) -> None:
        if not header["argv"]:
            self._failed[name] = {"kind": "start_failed", "error": "EINVAL", "detail": "argv is empty"}
            return
        if name in self._lingering:
            self._failed[name] = {"kind": "start_failed", "error": "EEXIST", "detail": "the id was used before"}
            return
        order = _order(header)
        try:
            packed = order.packed()
        except ValueError as error:
            detail = f"program {order.argv[0]}: {error}"
            self._failed[name] = {"kind": "start_failed", "error": "EINVAL", "detail": detail}
            return
        try:
            supervisor, ends = self._equip(order)
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "EIO")
            detail = _NO_TERMINAL if error.errno == errno.ENOSPC else _AT_LIMIT
            self._failed[name] = {"kind": "start_failed", "error": code, "detail": detail}
            return
        supervisor.start(packed, ends.theirs)
        ends.handed_over()
        self._known[name] = Process(
            self._loop,
            supervisor,
            order,
            ends,
            timeout_seconds=header["timeout_ms"] / 1000,
            idle_seconds=header.get("idle_timeout_ms", 0) / 1000,
            changed=self.pump,
        )
        self._loop.later(_SPARE_SECONDS, self._supervisors.prepare)

    def _equip(self, order: Order) -> tuple[Supervisor, Ends]:
        open_inputs = sum(process.input is not None for process in self._known.values())
        ends = Ends(order, MAXIMUM_WAITING if open_inputs < ROOMY_INPUTS else CRAMPED_WAITING)
        try:
            return self._supervisors.take(), ends
        except OSError:
            ends.close()
            raise

    def _drop(self, name: str) -> None:
        process = self._known.pop(name)
        process.forget()
        self._told_started.discard(name)
        self._told_ended.discard(name)
        if process.supervised:
            self._lingering[name] = process

    def _tell_started(self) -> None:
        for name, process in self._known.items():
            if process.pid is not None and process.end is None and name not in self._told_started:
                self._told_started.add(name)
                self._send({"type": "started", "process": name, "pid": process.pid}, b"")

    def _tell_inputs(self) -> None:
        for name, process in self._known.items():
            news = process.input.news() if process.input is not None else None
            if news is not None:
                self._send({"type": "input", "process": name, **news}, b"")

    def _tell_ended(self) -> None:
        for name, process in self._known.items():
            if process.end is not None and name not in self._told_ended:
                self._tell_end(name, process.end, process.offsets(), process.oom_kills)
        for name, end in self._failed.items():
            if name not in self._told_ended:
                self._tell_end(name, end, dict.fromkeys(STREAMS, 0), 0)

    def _tell_end(self, name: str, end: dict[str, Any], offsets: dict[str, int], oom_kills: int) -> None:
        self._told_ended.add(name)
        header = {"type": "ended", "process": name, "end": end, "offsets": offsets, "oom_kills": oom_kills}
        self._send(header, b"")


def _tell_input_again(process: Process) -> None:
    if process.input is not None:
        process.input.tell_again()


def _order(header: Header) -> Order:
    user = USERS[header["user"]]
    terminal = header.get("terminal")
    return Order(
        argv=header["argv"],
        env=environment(user, header["env"], has_terminal=terminal is not None),
        cwd=os.path.join(WORKSPACE, header["cwd"]),  # noqa: PTH118 - texts of the sandbox, not paths of ours
        user=user,
        background=header["background"],
        stdin=bool(header.get("stdin")),
        merged=bool(header.get("merge_output")),
        size=None if terminal is None else (terminal["rows"], terminal["columns"]),
    )
