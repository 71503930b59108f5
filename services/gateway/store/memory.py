# ruff: noqa: D102  # the proto and the port specify the calls
"""The store in memory: for tests, under the same contract as SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.gateway.store.port import EnvironmentRecord, ExecRecord, SandboxMissingError, SandboxRecord, StoredEvent


class MemoryStore:
    """Dictionaries with the store's semantics."""

    def __init__(self) -> None:
        self._sandboxes: dict[str, SandboxRecord] = {}
        self._execs: dict[tuple[str, str], ExecRecord] = {}
        self._events: dict[tuple[str, str], list[StoredEvent]] = {}
        self._environments: dict[tuple[str, str, str], EnvironmentRecord] = {}

    async def add_sandbox(self, record: SandboxRecord) -> None:
        self._sandboxes[record.sandbox_id] = record

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        return self._sandboxes.get(sandbox_id)

    async def sandboxes(self) -> Sequence[SandboxRecord]:
        return sorted(self._sandboxes.values(), key=lambda record: record.create_time_ns, reverse=True)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self._sandboxes.pop(sandbox_id, None)
        self._execs = {key: value for key, value in self._execs.items() if key[0] != sandbox_id}
        self._events = {key: value for key, value in self._events.items() if key[0] != sandbox_id}
        self._environments = {key: value for key, value in self._environments.items() if key[0] != sandbox_id}

    async def save_plan(self, sandbox_id: str, plan_key: str, plan: bytes) -> None:
        if sandbox_id in self._sandboxes:
            self._sandboxes[sandbox_id] = replace(self._sandboxes[sandbox_id], plan_key=plan_key, plan=plan)

    async def add_exec(self, record: ExecRecord, events: Sequence[StoredEvent]) -> ExecRecord | None:
        if record.sandbox_id not in self._sandboxes:
            raise SandboxMissingError
        key = (record.sandbox_id, record.exec_id)
        if key in self._execs:
            return self._execs[key]
        self._execs[key] = record
        self._events[key] = list(events)
        return None

    async def exec(self, sandbox_id: str, exec_id: str) -> ExecRecord | None:
        return self._execs.get((sandbox_id, exec_id))

    async def unended_execs(self) -> Sequence[ExecRecord]:
        found = [record for record in self._execs.values() if not record.end_time_ns]
        return sorted(found, key=lambda record: record.create_time_ns)

    async def save_exec(self, record: ExecRecord, events: Sequence[StoredEvent]) -> None:
        key = (record.sandbox_id, record.exec_id)
        if key in self._execs:
            self._execs[key] = record
            self._events[key].extend(events)

    async def events(self, sandbox_id: str, exec_id: str, after: int, limit: int) -> Sequence[StoredEvent]:
        found = self._events.get((sandbox_id, exec_id), [])
        return [event for event in found if event.sequence > after][:limit]

    async def save_environment(self, record: EnvironmentRecord) -> None:
        if record.sandbox_id in self._sandboxes:
            self._environments[record.sandbox_id, record.ecosystem, record.fingerprint] = record

    async def environment(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> EnvironmentRecord | None:
        return self._environments.get((sandbox_id, ecosystem, fingerprint))

    async def present_environments(self, sandbox_id: str) -> Sequence[EnvironmentRecord]:
        found = [item for item in self._environments.values() if item.sandbox_id == sandbox_id and item.present]
        return sorted(found, key=lambda record: record.create_time_ns, reverse=True)

    async def mark_collected(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> None:
        key = (sandbox_id, ecosystem, fingerprint)
        if key in self._environments:
            self._environments[key] = replace(self._environments[key], present=False)

    async def newest_locked_exec(self, sandbox_id: str) -> ExecRecord | None:
        found = [
            record
            for record in self._execs.values()
            if (record.sandbox_id, record.ecosystem, record.fingerprint) in self._environments
            and record.sandbox_id == sandbox_id
        ]
        return max(found, key=lambda record: record.create_time_ns, default=None)

    async def close(self) -> None:
        """Nothing is held."""
