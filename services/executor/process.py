"""One process: what was to run, what is known of it, how it ended."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.executor.errors import NoTerminalError, ProcessEndedError
from services.executor.spool import STREAMS, Spool
from services.executor.stdin import Stdin


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """What to run. Times in milliseconds, 0 for no limit; limits in bytes; a terminal as rows and columns."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    user: str
    timeout_ms: int
    output_limit_bytes: int
    end_at_output_limit: bool
    background: bool
    stdin: bool = False
    terminal: tuple[int, int] | None = None
    merge_output: bool = False
    idle_timeout_ms: int = 0

    @property
    def has_input(self) -> bool:
        """Whether somebody may write its input."""
        return self.stdin or self.terminal is not None

    @property
    def needs_new_agent(self) -> bool:
        """Whether it asks for what sandboxd's first protocol does not have."""
        return self.has_input or self.merge_output or self.idle_timeout_ms > 0

    @classmethod
    def recorded(cls, fields: Mapping[str, Any]) -> ProcessSpec:
        """From the log, where tuples are lists; what an earlier executor did not know is as it was then."""
        terminal = fields.get("terminal")
        lists = {"argv": tuple(fields["argv"]), "terminal": None if terminal is None else tuple(terminal)}
        return cls(**{**fields, **lists})

    def order(self, environment: Mapping[str, str]) -> dict[str, Any]:
        """What sandboxd is told; variables of the environment give way to the spec's."""
        order: dict[str, Any] = {
            "argv": list(self.argv),
            "env": {**environment, **self.env},
            "cwd": self.cwd,
            "user": self.user,
            "timeout_ms": self.timeout_ms,
            "background": self.background,
            "stdin": self.stdin,
            "merge_output": self.merge_output,
            "idle_timeout_ms": self.idle_timeout_ms,
        }
        if self.terminal is not None:
            order["terminal"] = dict(zip(("rows", "columns"), self.terminal, strict=True))
        return order

    def digest(self) -> str:
        """The same spec has the same digest."""
        return hashlib.sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ProcessEnd:
    """How a process ended: `kind` is a field of the wire's oneof; the rest as far as it applies."""

    kind: str
    time: str
    lengths: Mapping[str, int]
    dropped_bytes: int
    oom_kills: int = 0
    code: int = 0
    error: str = ""
    detail: str = ""
    # Of `timed_out`: by the idle timeout.
    idle: bool = False

    @classmethod
    def lost(cls, lengths: Mapping[str, int], detail: str, time: str) -> ProcessEnd:
        """Nobody knows how it ended, and what came beyond the output limit is lost with it."""
        return cls(kind="sandbox_lost", time=time, lengths=lengths, dropped_bytes=0, detail=detail)

    @classmethod
    def recorded(cls, fields: Mapping[str, Any]) -> ProcessEnd:
        """From the log; an earlier executor had fewer streams."""
        return cls(**{**fields, "lengths": {**dict.fromkeys(STREAMS, 0), **fields["lengths"]}})


@dataclass(frozen=True, kw_only=True)
class Started:
    """The first event of a stream, but of one that has nothing to tell but the end."""

    time: str


@dataclass(kw_only=True)
class Process:
    """One process; `changed` is set, and replaced, whenever a watcher may find something new."""

    id: str
    spec: ProcessSpec
    directory: Path
    spool: Spool
    start_time: str = ""
    end: ProcessEnd | None = None
    # The end that was asked for by the executor itself; sandboxd reports the kill as `cancelled`.
    verdict: str | None = None
    # None if its input is not open.
    stdin: Stdin | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    # Of the call that started it, for the log; empty after a restart of the executor.
    log_ids: Mapping[str, Any] = field(default_factory=dict)

    def check_terminal(self) -> None:
        """NoTerminalError, ProcessEndedError."""
        if self.spec.terminal is None:
            raise NoTerminalError(self.id)
        self.check_running()

    def check_running(self) -> None:
        """ProcessEndedError."""
        if self.end is not None:
            raise ProcessEndedError(self.id)

    @property
    def is_gone(self) -> bool:
        """Whether its output was removed; an executor that died before it said so leaves the rest."""
        return self.end is not None and any(self.end.lengths.values()) and not self.directory.exists()

    def notify(self) -> None:
        """Wakes every watcher."""
        event, self.changed = self.changed, asyncio.Event()
        event.set()
