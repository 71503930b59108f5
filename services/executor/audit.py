"""The audit of all sandboxes: takes what the doors decided, says which exec asked, keeps it, and lets it be watched."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from services.executor.audit_log import AuditLog, AuditReader, Entry
from services.executor.egress.records import INSTALL_UID, EgressRecord, Verdict
from services.executor.errors import LimitError
from services.executor.process import Process

MAX_WATCHERS = 32
# A record may come behind the end of the process that asked.
LATE_S = 2.0

log = structlog.get_logger()


class Processes(Protocol):
    """The processes of one sandbox, as `ProcessTable` has them."""

    @property
    def all(self) -> Sequence[Process]:
        """Those that run and those that are kept, oldest first."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which records somebody wants; an empty exec id, or no verdict, wants all."""

    exec_id: str = ""
    verdict: Verdict | None = None
    after: int = 0

    def holds(self, entry: Entry) -> bool:
        """Whether the entry is wanted."""
        return self.exec_id in {"", entry.exec_id} and self.verdict in {None, entry.record.verdict}


@dataclass(kw_only=True)
class _Ledger:
    log: AuditLog
    processes: Processes
    watchers: int = 0
    closed: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def notify(self) -> None:
        event, self.changed = self.changed, asyncio.Event()
        event.set()


class Audit:
    """The records of every sandbox that is open here."""

    def __init__(self) -> None:
        self._ledgers: dict[str, _Ledger] = {}

    def open(self, sandbox_id: str, directory: Path, processes: Processes) -> None:
        """Takes records of a sandbox from now on, and keeps them in the directory."""
        self._ledgers[sandbox_id] = _Ledger(log=AuditLog(directory), processes=processes)

    def close(self, sandbox_id: str) -> None:
        """Takes no more; who watches comes to an end. What is on disk stays."""
        ledger = self._ledgers.pop(sandbox_id, None)
        if ledger is not None:
            ledger.closed = True
            ledger.log.close()
            ledger.notify()

    def last_sequence(self, sandbox_id: str) -> int:
        """Of the newest record; 0 if there is none."""
        ledger = self._ledgers.get(sandbox_id)
        return 0 if ledger is None else ledger.log.last_sequence

    def take(self, record: EgressRecord) -> None:
        """Logs a record and keeps it; one of a sandbox that is gone is logged alone."""
        now = datetime.datetime.now(datetime.UTC)
        ledger = self._ledgers.get(record.sandbox)
        exec_id = "" if ledger is None else exec_of(record, ledger.processes.all, now)
        fields = {key: value for key, value in record.to_message().items() if key != "type"}
        log.info("egress", exec=exec_id, **fields)
        if ledger is not None:
            try:
                ledger.log.append(time=now.isoformat(), exec_id=exec_id, record=record)
            except OSError as error:
                log.warning("an egress record is logged alone", sandbox=record.sandbox, error=str(error))
            ledger.notify()

    async def watch(self, sandbox_id: str, wanted: Wanted, *, follow: bool) -> AsyncGenerator[Sequence[Entry], None]:
        """Batches of entries; ends behind the newest, or with `follow` when the sandbox is closed. LimitError."""
        ledger = self._ledgers.get(sandbox_id)
        if ledger is None:
            return
        if ledger.watchers >= MAX_WATCHERS:
            raise LimitError("streams of egress records of one sandbox", MAX_WATCHERS)
        ledger.watchers += 1
        reader = AuditReader(ledger.log, wanted.after)
        last = ledger.log.last_sequence
        try:
            while True:
                changed = ledger.changed
                entries = reader.read()
                found = [entry for entry in entries if wanted.holds(entry) and (follow or entry.sequence <= last)]
                if found:
                    yield found
                if entries and (follow or entries[-1].sequence < last):
                    # Nothing else may have waited for anything: the others have their turn.
                    await asyncio.sleep(0)
                elif not follow or ledger.closed:
                    return
                else:
                    await changed.wait()
        finally:
            reader.close()
            ledger.watchers -= 1


def exec_of(record: EgressRecord, processes: Sequence[Process], now: datetime.datetime) -> str:
    """The exec that asked, as far as it is unambiguous; else empty. `processes`: oldest first."""
    user = "install" if record.uid == INSTALL_UID else "program"
    owned = [process for process in processes if not process.spec.background and process.spec.user == user]
    if record.phase == "INSTALL":
        # One install runs at a time, and the latest process of its user is its latest step.
        return _exec_id(owned[-1]) if owned else ""
    execs = {_exec_id(process) for process in owned if process.end is None}
    if not execs:
        execs = {_exec_id(process) for process in owned if _ended_lately(process, now)}
    return execs.pop() if len(execs) == 1 else ""


def _exec_id(process: Process) -> str:
    return process.id.partition(".")[0]


def _ended_lately(process: Process, now: datetime.datetime) -> bool:
    if process.end is None:
        return False
    with suppress(ValueError):
        return (now - datetime.datetime.fromisoformat(process.end.time)).total_seconds() <= LATE_S
    return False
