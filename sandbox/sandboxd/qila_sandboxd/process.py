"""One program as the first process sees it: its supervisor, its pipes or its terminal, how it ended."""

from __future__ import annotations

import errno
import functools
import os
import signal
from typing import TYPE_CHECKING, Any

from . import linux
from .idle import IdleClock
from .loop import READ, Loop, Timer
from .spool import MAXIMUM_UNACKNOWLEDGED, Spool
from .supervisors import FAILED, LEADER, STARTED, SWEPT, Order, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from .ends import Ends
    from .inputs import Input

STREAMS = ("stdout", "stderr", "terminal")
_READ_BYTES = 1 << 16
_QUIET_SECONDS = 0.05
_DRAIN_SECONDS = 1.0
# A program may make a pipe hold so much.
_PIPE_BYTES = 1 << 20


class Stream:
    """One pipe of the program, or its terminal.

    `descriptor` is None when every writer has gone. Of what is read after the leader's end, so many bytes `from_leader`
    may be its own; the rest, from which on it is negative, is its children's.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.descriptor: int | None = descriptor
        self.spool = Spool()
        self.from_leader = _PIPE_BYTES


class Process:
    """A program from its start order until its last descendant is gone.

    Args:
        loop: where its descriptors and timers are watched.
        supervisor: one that has its order.
        order: that order.
        ends: ours of what the program reads and writes.
        timeout_seconds: 0 for none.
        idle_seconds: how long neither output nor input may rest; 0 for ever.
        changed: called when there is something new to send.
    """

    def __init__(
        self,
        loop: Loop,
        supervisor: Supervisor,
        order: Order,
        ends: Ends,
        *,
        timeout_seconds: float,
        idle_seconds: float,
        changed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._changed = changed
        self._supervisor = supervisor
        self._order = order
        self.streams = tuple(Stream(name, reader) for name, reader in ends.readers(supervisor).items())
        # One callback object per stream, or the loop would take it for a new one each time.
        self._readers = {stream.name: functools.partial(self._on_readable, stream) for stream in self.streams}
        self._terminal = ends.terminal
        self.input: Input | None = ends.open_input(loop, self._on_input)
        # Known when its start is to be told: it has run for a moment then.
        self.pid: int | None = None
        self.end: dict[str, Any] | None = None
        self.oom_kills = 0
        self.supervised = True
        self._oom_kills_before = linux.read_oom_kills()
        self._outcome: dict[str, Any] | None = None
        self._kill_end: dict[str, Any] | None = None
        self._killed_by_us = False
        self._forgotten = False
        self._quiet: Timer | None = None
        self._limit: Timer | None = None
        loop.watch(supervisor.orders.fileno(), READ, self._hear_supervisor)
        self._timeout = loop.later(timeout_seconds, lambda: self.kill("timed_out")) if timeout_seconds else None
        self._idle = IdleClock(loop, idle_seconds, self._is_held, lambda: self.kill("timed_out", idle=True))
        self._watch_pipes()

    def kill(self, kind: str, **fields: bool) -> None:
        """Kill the whole lineage; `kind` is how the program ended if its leader dies of that."""
        self._stop_clocks()
        if self.supervised and self._kill_end is None:
            self._kill_end = {"kind": kind, **fields}
            self._supervisor.kill()

    def signal(self, number: int) -> None:
        """Signal the leader's group, or the one in the foreground of its terminal."""
        if self.supervised and self._outcome is None:
            group, session = (0, 0) if self._terminal is None else self._terminal.foreground()
            self._supervisor.signal(number, group, session)

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size."""
        if self._terminal is not None and self._outcome is None:
            self._terminal.resize(rows, columns)

    def forget(self) -> None:
        """Nobody will ask any more: what comes from now on is read and dropped."""
        self._forgotten = True
        for stream in self.streams:
            stream.spool.discard()
        self._watch_pipes()

    def acknowledge(self, offsets: dict[str, int]) -> None:
        """Drop what the executor has stored. ValueError if it names bytes that were not sent."""
        for stream in self.streams:
            stream.spool.acknowledge(offsets[stream.name])
        self._watch_pipes()

    def resume(self, offsets: dict[str, int]) -> None:
        """Send again from these offsets. ValueError if those bytes are not held."""
        for stream in self.streams:
            stream.spool.resume(offsets[stream.name])
        self._watch_pipes()

    def offsets(self) -> dict[str, int]:
        """What was read so far of each stream."""
        return dict.fromkeys(STREAMS, 0) | {stream.name: stream.spool.end for stream in self.streams}

    def held(self) -> dict[str, int]:
        """From where on each stream is held: what is below was stored by an executor."""
        return dict.fromkeys(STREAMS, 0) | {stream.name: stream.spool.acknowledged for stream in self.streams}

    @property
    def _discarding(self) -> bool:
        return self._forgotten or self.end is not None

    def _room(self) -> int:
        held = sum(stream.spool.end - stream.spool.acknowledged for stream in self.streams)
        return max(0, MAXIMUM_UNACKNOWLEDGED - held)

    def _watch_pipes(self) -> None:
        wanted = self._discarding or self._room() > 0
        awaits_leader = self._awaits_leader()
        for stream in self.streams:
            if stream.descriptor is None:
                continue
            # Children that never stop on one stream must not take the room of what the leader wrote on the other.
            if wanted and (stream.from_leader > 0 or not awaits_leader):
                self._loop.watch(stream.descriptor, READ, self._readers[stream.name])
            else:
                self._loop.unwatch(stream.descriptor)
        self._adjust_drain(paused=not wanted)

    def _awaits_leader(self) -> bool:
        """Whether what the leader wrote before it ended may not have come yet."""
        draining = self._outcome is not None and not self._discarding
        return draining and any(stream.from_leader > 0 for stream in self.streams if stream.descriptor is not None)

    def _is_held(self) -> bool:
        return not self._discarding and self._room() == 0

    def _on_readable(self, stream: Stream, _events: int) -> None:
        self._after_read(self._read(stream))

    def _on_input(self) -> None:
        self._idle.move()
        self._changed()

    def _read(self, stream: Stream) -> bool:
        """Take what one look at the pipe gives; False when there is nothing to take now."""
        room = _READ_BYTES if self._discarding else min(_READ_BYTES, self._room())
        if stream.descriptor is None or not room:
            return False
        try:
            data = os.read(stream.descriptor, room)
        except BlockingIOError:
            self._note_read(stream, stream.from_leader)
            return False
        except OSError as error:
            # How a terminal that nobody holds any more says it.
            if error.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self._loop.unwatch(stream.descriptor)
            os.close(stream.descriptor)
            stream.descriptor = None
            return False
        self._note_read(stream, len(data))
        self._idle.move()
        if not self._discarding:
            stream.spool.append(data)
        return True

    def _note_read(self, stream: Stream, count: int) -> None:
        if self._outcome is not None:
            stream.from_leader -= max(count, 0)

    def _after_read(self, more: bool) -> None:  # noqa: FBT001 - the answer of _read
        if self._discarding:
            return
        if more and self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        self._watch_pipes()
        self._finish_if_drained()
        self._changed()

    def _hear_supervisor(self, _events: int) -> None:
        reports = self._supervisor.reports()
        if reports is None:
            self._lose_supervisor()
            return
        for kind, value, detail in reports:
            if kind == STARTED:
                self.pid = value
            elif kind == FAILED:
                code = errno.errorcode.get(value, "EIO")
                explained = f"{self._order.stage(detail)}: {os.strerror(value)}"
                self._conclude({"kind": "start_failed", "error": code, "detail": explained})
            elif kind == LEADER:
                self._judge(value, by_kill=bool(detail))
            elif kind == SWEPT:
                self._after_sweep(clean=bool(value))
        self._changed()

    def _judge(self, status: int, *, by_kill: bool) -> None:
        self.oom_kills = linux.read_oom_kills() - self._oom_kills_before
        if by_kill:
            # The end is told when the sweep has shown that nobody is left.
            self._killed_by_us = True
        elif os.WIFEXITED(status):
            self._conclude({"kind": "exited", "code": os.WEXITSTATUS(status)})
        elif os.WTERMSIG(status) == signal.SIGKILL and self.oom_kills > 0:
            self._conclude({"kind": "oom_killed", "signal": int(signal.SIGKILL)})
        else:
            self._conclude({"kind": "signaled", "signal": os.WTERMSIG(status)})

    def _after_sweep(self, *, clean: bool) -> None:
        if not clean:
            self._conclude({"kind": "unkillable", "detail": "processes were left after the kill"})
        elif self._killed_by_us:
            self._conclude(self._kill_end or {"kind": "cancelled"})

    def _lose_supervisor(self) -> None:
        self.supervised = False
        self._loop.unwatch(self._supervisor.orders.fileno())
        self._supervisor.close()
        if self._outcome is None:
            self._conclude({"kind": "unkillable", "detail": "the supervisor was lost, and with it the lineage"})
        self._changed()

    def _conclude(self, outcome: dict[str, Any]) -> None:
        """The leader's end is known; take what is still in the pipes."""
        if self._outcome is not None and outcome["kind"] != "unkillable":
            return
        self._outcome = outcome
        self._stop_clocks()
        if self.input is not None:
            self.input.close()
        if self._terminal is not None:
            self._terminal.close_slave()
        for stream in self.streams:
            while stream.from_leader > 0 and self._read(stream):
                continue
        self._watch_pipes()
        self._finish_if_drained()

    def _stop_clocks(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
        self._idle.stop()

    def _adjust_drain(self, *, paused: bool) -> None:
        """Run the drain's clocks only while the pipes are being read. Children that outrun the executor have no 1 s."""
        if self._outcome is None or self.end is not None:
            return
        if paused and not self._awaits_leader() and self._from_children() > MAXIMUM_UNACKNOWLEDGED:
            self._finish()
        elif paused:
            for timer in (self._quiet, self._limit):
                if timer is not None:
                    timer.cancel()
            self._quiet = self._limit = None
        else:
            self._quiet = self._quiet or self._loop.later(_QUIET_SECONDS, self._finish)
            self._limit = self._limit or self._loop.later(_DRAIN_SECONDS, self._finish)

    def _from_children(self) -> int:
        """How much was read that cannot be the leader's."""
        return -sum(min(stream.from_leader, 0) for stream in self.streams)

    def _finish_if_drained(self) -> None:
        if self._outcome is not None and all(stream.descriptor is None for stream in self.streams):
            self._finish()

    def _finish(self) -> None:
        if self.end is not None:
            return
        self.end = self._outcome
        for timer in (self._quiet, self._limit):
            if timer is not None:
                timer.cancel()
        self._watch_pipes()
        self._changed()
