"""Calls of the executor: one child each, whose frames the first process checks and carries."""

from __future__ import annotations

import collections
import functools
import os
import signal
import socket
from typing import TYPE_CHECKING

from . import forking, linux
from .files import OPERATIONS, answer
from .frames import Decoder, FrameError, Header, encode
from .loop import READ, WRITE, Loop, Timer
from .paths import WORKSPACE
from .surveying import Surveys
from .sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Callable

_SURVEY = "survey"
_WATCH = "watch"
_ANSWERS = frozenset({"data", "result", "error"})
MAXIMUM_CALLS = 32
_MAXIMUM_WAITING_BYTES = 8 << 20
# Above this the executor is not read until the child has taken some; a child that takes none for so long is killed.
FULL_BYTES = 1 << 20
_STALLED_SECONDS = 10.0
_SWEEP_SECONDS = 5.0
_RECEIVE_BYTES = 1 << 18
# By then what waits for the survey is most likely under way.
_SPARE_SECONDS = 0.1


class Call:
    """One call under way or waiting; `pending` are frames that its child has not taken."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.number: int = header["call"]
        self.pending = bytearray()
        self.decoder = Decoder()
        self.child = 0
        self.connection: socket.socket | None = None
        self.stalled: Timer | None = None
        self.callback: Callable[[int], None] = _not_started


def _not_started(_events: int) -> None:
    raise AssertionError


class Calls:
    """Starts the calls' children and carries frames between them and the executor.

    Args:
        loop: the first process's.
        send: sends a frame to the executor.
        changed: called when `is_full` may have changed.
        reap: collects ended children.
    """

    def __init__(
        self,
        loop: Loop,
        send: Callable[[Header, bytes], None],
        changed: Callable[[], None],
        reap: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._send = send
        self._changed = changed
        self._reap = reap
        self._running: dict[int, Call] = {}
        self._waiting: collections.OrderedDict[int, Call] = collections.OrderedDict()
        self._paused = False
        self._surveys = Surveys()
        self._surveys.prepare()

    @property
    def is_full(self) -> bool:
        """Whether a child has so much to take that the executor should not be read now."""
        return any(len(call.pending) > FULL_BYTES for call in self._running.values())

    def start(self, header: Header) -> None:
        """Begin a call, or let it wait for its turn."""
        call = Call(header)
        if call.number in self._running or call.number in self._waiting:
            raise FrameError(f"call {call.number} is under way")
        if header["op"] == "kill_user":
            self._kill_user(call)
        elif header["op"] not in OPERATIONS and header["op"] != _SURVEY:
            self._fail(call, "io", "no such operation")
        else:
            self._waiting[call.number] = call
            self._start_waiting()

    def tell(self, header: Header, payload: bytes) -> None:
        """Carry a `chunk` or a `credit` to the call's child; what comes after its end is dropped."""
        number = header["call"]
        call = self._running.get(number) or self._waiting.get(number)
        if call is None:
            return
        call.pending += encode(header, payload)
        if call.connection is not None:
            self._flush(call)
        elif len(call.pending) > _MAXIMUM_WAITING_BYTES:
            del self._waiting[number]
            self._fail(call, "io", f"{MAXIMUM_CALLS} calls are under way; send again when one has ended")

    def abort(self, header: Header) -> None:
        """Drop a call: its child cleans up and leaves."""
        self._waiting.pop(header["call"], None)
        call = self._running.get(header["call"])
        if call is not None:
            self._close(call)

    def abort_all(self) -> None:
        """The executor has gone."""
        self._waiting.clear()
        for call in list(self._running.values()):
            self._close(call)

    def pause(self, *, paused: bool) -> None:
        """Read the children only while the connection takes their answers."""
        if paused != self._paused:
            self._paused = paused
            for call in self._running.values():
                self._watch(call)

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < MAXIMUM_CALLS:
            _, call = self._waiting.popitem(last=False)
            try:
                call.child, ours = self._start_child(call.header)
            except OSError as error:
                self._fail(call, "io", f"no new process: {error.strerror}")
                continue
            ours.setblocking(False)
            call.connection = ours
            call.callback = functools.partial(self.ready, call)
            self._running[call.number] = call
            self._flush(call)

    def _start_child(self, header: Header) -> tuple[int, socket.socket]:
        if header["op"] == _SURVEY:
            survey = self._surveys.start(header.get("known", ""))
            self._loop.later(_SPARE_SECONDS, self._surveys.prepare)
            return survey.process, survey.connection
        return _fork(header)

    def _fail(self, call: Call, kind: str, message: str) -> None:
        self._send({"type": "error", "call": call.number, "kind": kind, "message": message}, b"")

    def _watch(self, call: Call) -> None:
        assert call.connection is not None
        events = (0 if self._paused else READ) | (WRITE if call.pending else 0)
        if events:
            self._loop.watch(call.connection.fileno(), events, call.callback)
        else:
            self._loop.unwatch(call.connection.fileno())

    def _flush(self, call: Call) -> None:
        assert call.connection is not None
        try:
            while call.pending:
                del call.pending[: call.connection.send(call.pending)]
                self._reset_stalled(call)
        except BlockingIOError:
            if call.stalled is None:
                call.stalled = self._loop.later(_STALLED_SECONDS, lambda: self._give_up(call))
        except BrokenPipeError:
            # The child has ended; what it said last is still to be read.
            call.pending.clear()
            self._reset_stalled(call)
        self._watch(call)
        self._changed()

    def _reset_stalled(self, call: Call) -> None:
        if call.stalled is not None:
            call.stalled.cancel()
            call.stalled = None

    def _give_up(self, call: Call) -> None:
        if call.number in self._running and len(call.pending) > FULL_BYTES:
            self._close(call, kill=True)
            self._fail(call, "io", f"nothing was taken for {_STALLED_SECONDS:.0f} s")

    def ready(self, call: Call, events: int) -> None:
        """The child takes or gives frames."""
        if events & WRITE:
            self._flush(call)
        if events & READ and call.connection is not None:
            self._receive(call)

    def _receive(self, call: Call) -> None:
        assert call.connection is not None
        try:
            data = call.connection.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._close(call)
            self._fail(call, "io", "the call's process was killed")
            return
        call.decoder.feed(data)
        try:
            self._carry(call)
        except FrameError as error:
            self._close(call, kill=True)
            self._fail(call, "io", str(error))

    def _carry(self, call: Call) -> None:
        while (frame := call.decoder.next()) is not None:
            header, payload = frame
            if header["type"] not in _ANSWERS:
                raise FrameError(f"unknown type {header['type']}")
            self._send(header | {"call": call.number}, payload)
            if header["type"] != "data":
                self._close(call)
                return

    def _close(self, call: Call, *, kill: bool = False) -> None:
        assert call.connection is not None
        self._reset_stalled(call)
        self._loop.unwatch(call.connection.fileno())
        call.connection.close()
        call.connection = None
        del self._running[call.number]
        if kill:
            os.kill(call.child, signal.SIGKILL)
        self._start_waiting()
        self._changed()

    def _kill_user(self, call: Call) -> None:
        """Needs no fork, so that it works at the limit of processes too."""
        if call.header["user"] != "install":
            self._fail(call, "io", "only processes of `install` can be killed")
            return
        killed, clean = sweep(lambda: linux.processes_of_user(linux.INSTALL_USER), self._reap, _SWEEP_SECONDS)
        if clean:
            self._send({"type": "result", "call": call.number, "killed": killed}, b"")
        else:
            self._fail(call, "io", "processes of `install` are left after the kill")


def _fork(header: Header) -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            child = _child(theirs, header)
            return forking.fork(child, {theirs.fileno()}), ours
        except OSError:
            ours.close()
            raise


def _child(connection: socket.socket, header: Header) -> Callable[[], None]:
    # Named here: what is no user's name is the parent's error.
    user = linux.USERS[header["user"]]

    def run() -> None:
        linux.raise_oom_score(0)
        if header["op"] == _WATCH:
            linux.become_observer()
        else:
            linux.become(user)
        answer(connection, WORKSPACE, header)

    return run
