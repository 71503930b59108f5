"""The first process: one thread that dials the executor, minds programs and calls, and reaps."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import forking, linux, relay
from .calls import Calls
from .connection import Connection
from .frames import FrameError, Header
from .loop import READ, Loop
from .ports import Ports
from .processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROTOCOL = 2
CONTROL = "/run/qila/control.sock"
TOOLCHAINS = Path("/usr/lib/qila/toolchains.json")
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
_RELAY_PAUSE_SECONDS = 0.1
_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)


class Daemon:
    """Everything the first process minds."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._toolchains: dict[str, Any] = json.loads(TOOLCHAINS.read_text(encoding="utf-8"))
        self._connection: Connection | None = None
        self._resumed = False
        self._pause = _FIRST_PAUSE_SECONDS
        self._relay = 0
        self._listeners = relay.listen()
        self._watch_signals()
        self._processes = Processes(self._loop, self._send, self._has_room)
        self._calls = Calls(self._loop, self._send, self._balance, self._reap)
        self._ports = Ports(self._loop, self._send, self._has_room)
        self._handlers = self._orders()
        self._start_relay()

    def run(self) -> None:
        """Serve until SIGTERM; the kernel then kills whatever is left of the container."""
        self._dial()
        while True:
            self._loop.run_once()

    def _watch_signals(self) -> None:
        awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, _note_signal)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

        def on_signals(_events: int) -> None:
            if signal.SIGTERM in os.read(awake, 4096):
                raise SystemExit
            self._reap()

        self._loop.watch(awake, READ, on_signals)

    def _reap(self) -> None:
        while True:
            try:
                process, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            if process == self._relay:
                self._loop.later(_RELAY_PAUSE_SECONDS, self._start_relay)

    def _start_relay(self) -> None:
        try:
            kept = {listener.fileno() for listener in self._listeners.values()}
            self._relay = forking.fork(lambda: relay.run(self._listeners), kept)
        except OSError:
            # At the limit of processes; until then nothing gets out.
            self._loop.later(_RELAY_PAUSE_SECONDS, self._start_relay)

    def _dial(self) -> None:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # It waits only while the executor's queue of unaccepted connections is full.
            stream.settimeout(1)
            stream.connect(CONTROL)
        except OSError:
            stream.close()
            self._dial_later()
            return
        self._connection = Connection(self._loop, stream, self._receive, self._balance)
        welcome = {"type": "welcome", "protocol": PROTOCOL, "toolchains": self._toolchains}
        self._connection.send(welcome | {"processes": self._processes.welcome()}, b"")

    def _dial_later(self) -> None:
        self._loop.later(self._pause, self._dial)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)

    def _hang_up(self) -> None:
        assert self._connection is not None
        self._connection.close()
        self._connection = None
        self._resumed = False
        self._processes.disconnect()
        self._calls.abort_all()
        self._ports.drop_all()
        self._dial_later()

    def _receive(self) -> None:
        assert self._connection is not None
        try:
            for header, payload in self._connection.receive():
                self._dispatch(header, payload)
        except ConnectionError:
            self._hang_up()
        except (FrameError, KeyError, TypeError, ValueError) as error:
            sys.stderr.write(f"sandboxd: the executor broke the protocol: {error!r}\n")
            self._hang_up()

    def _dispatch(self, header: Header, payload: bytes) -> None:
        kind = header["type"]
        if not self._resumed and kind != "resume":
            raise FrameError(f"{kind} before resume")
        handler = self._handlers.get(kind)
        if handler is None:
            raise FrameError(f"unknown type {kind}")
        handler(header, payload)

    def _orders(self) -> Mapping[str, Callable[[Header, bytes], None]]:
        """What is done with a frame of each type."""
        processes, calls, ports = self._processes, self._calls, self._ports
        return {
            "resume": lambda header, _: self._resume(header),
            "start": lambda header, _: processes.start(header),
            "ack": lambda header, _: processes.acknowledge(header),
            "input": processes.input,
            "resize": lambda header, _: processes.resize(header),
            "signal": lambda header, _: processes.signal(header),
            "cancel": lambda header, _: processes.cancel(header),
            "forget": lambda header, _: processes.forget(header),
            "call": lambda header, _: calls.start(header),
            "chunk": calls.tell,
            "credit": calls.tell,
            "abort": lambda header, _: calls.abort(header),
            "connect": lambda header, _: ports.connect(header),
            **dict.fromkeys(("bytes", "taken", "shut", "drop"), ports.tell),
        }

    def _resume(self, header: Header) -> None:
        self._resumed = True
        self._pause = _FIRST_PAUSE_SECONDS
        self._processes.resume(header)

    def _send(self, header: Header, payload: bytes) -> None:
        if self._connection is not None:
            self._connection.send(header, payload)
            self._balance_calls()

    def _has_room(self) -> bool:
        return self._connection is not None and self._connection.has_room

    def _balance(self) -> None:
        """Read each side only while the other takes what it says."""
        self._balance_calls()
        self._processes.pump()
        self._ports.pump()
        if self._connection is not None:
            self._connection.read_on(wanted=not self._calls.is_full)

    def _balance_calls(self) -> None:
        self._calls.pause(paused=not self._has_room())


def _note_signal(_number: int, _frame: object) -> None:
    """Only the wakeup descriptor matters."""


def main() -> None:
    """Run as the container's first process."""
    linux.set_undumpable()
    Daemon().run()
