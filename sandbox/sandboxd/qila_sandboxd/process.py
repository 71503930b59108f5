"""One program as the first process sees it: its supervisor, its two pipes, how it ended."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any

from . import linux
from .loop import READ, Loop, Timer
from .spool import MAXIMUM_UNACKNOWLEDGED, Spool
from .supervisors import FAILED, LEADER, STARTED, SWEPT, Order, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

_READ_BYTES = 1 << 16
_QUIET_SECONDS = 0.05
_DRAIN_SECONDS = 1.0


class Stream:
    """One pipe of the program; `descriptor` is None when every writer has gone."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.descriptor: int | None = descriptor
        self.spool = Spool()


class Process:
    """A program from its start order until its last descendant is gone.

    Args:
        loop: where its descriptors and timers are watched.
        supervisor: one that has its order.
        order: that order.
        timeout_seconds: 0 for none.
        changed: called when there is something new to send.
    """

    def __init__(
        self, loop: Loop, supervisor: Supervisor, order: Order, timeout_seconds: float, changed: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._changed = changed
        self._supervisor = supervisor
        self._order = order
        self.streams = (Stream("stdout", supervisor.readers[0]), Stream("stderr", supervisor.readers[1]))
        # Known when its start is to be told: it has run for a moment then.
        self.pid: int | None = None
        self.end: dict[str, Any] | None = None
        self.oom_kills = 0
        self.supervised = True
        self._oom_kills_before = linux.read_oom_kills()
        self._outcome: dict[str, Any] | None = None
        self._kill_kind: str | None = None
        self._killed_by_us = False
        self._forgotten = False
        self._quiet: Timer | None = None
        self._limit: Timer | None = None
        loop.watch(supervisor.orders.fileno(), READ, self._hear_supervisor)
        self._timeout = loop.later(timeout_seconds, lambda: self.kill("timed_out")) if timeout_seconds else None
        self._watch_pipes()

    def kill(self, kind: str) -> None:
        """Kill the whole lineage; `kind` is how the program ended if its leader dies of that."""
        if self._timeout is not None:
            self._timeout.cancel()
        if self.supervised and self._kill_kind is None:
            self._kill_kind = kind
            self._supervisor.kill()

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
        return {stream.name: stream.spool.end for stream in self.streams}

    @property
    def _discarding(self) -> bool:
        return self._forgotten or self.end is not None

    def _room(self) -> int:
        held = sum(stream.spool.end - stream.spool.acknowledged for stream in self.streams)
        return max(0, MAXIMUM_UNACKNOWLEDGED - held)

    def _watch_pipes(self) -> None:
        wanted = self._discarding or self._room() > 0
        for stream in self.streams:
            if stream.descriptor is None:
                continue
            if wanted:
                # One callback object per stream, or the loop would take it for a new one each time.
                self._loop.watch(stream.descriptor, READ, self._readers()[stream.name])
            else:
                self._loop.unwatch(stream.descriptor)
        self._adjust_drain(paused=not wanted)

    def _readers(self) -> dict[str, Callable[[int], None]]:
        return {"stdout": self._read_stdout, "stderr": self._read_stderr}

    def _read_stdout(self, _events: int) -> None:
        self._after_read(self._read(self.streams[0]))

    def _read_stderr(self, _events: int) -> None:
        self._after_read(self._read(self.streams[1]))

    def _read(self, stream: Stream) -> bool:
        """Take what one look at the pipe gives; False when there is nothing to take now."""
        room = _READ_BYTES if self._discarding else min(_READ_BYTES, self._room())
        if stream.descriptor is None or not room:
            return False
        try:
            data = os.read(stream.descriptor, room)
        except BlockingIOError:
            return False
        if not data:
            self._loop.unwatch(stream.descriptor)
            os.close(stream.descriptor)
            stream.descriptor = None
            return False
        if not self._discarding:
            stream.spool.append(data)
        return True

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
            self._conclude({"kind": self._kill_kind})

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
        if self._timeout is not None:
            self._timeout.cancel()
        for stream in self.streams:
            while self._read(stream):
                continue
        self._watch_pipes()
        self._finish_if_drained()

    def _adjust_drain(self, *, paused: bool) -> None:
        """Run the drain's clocks only while the pipes are being read."""
        if self._outcome is None or self.end is not None:
            return
        if paused:
            for timer in (self._quiet, self._limit):
                if timer is not None:
                    timer.cancel()
            self._quiet = self._limit = None
            return
        if self._quiet is None:
            self._quiet = self._loop.later(_QUIET_SECONDS, self._finish)
        if self._limit is None:
            self._limit = self._loop.later(_DRAIN_SECONDS, self._finish)

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
