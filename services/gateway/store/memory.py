# ruff: noqa: D102  # the proto and the port specify the calls
"""The store in memory: for tests, under the same contract as SQLite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.store.port import (
    MAX_ANSWERS,
    MAX_INVENTORY_BYTES,
    MAX_LOCK_BYTES,
    PROJECTS_MARK,
    CurrentLock,
    EnvironmentRecord,
    ExecOutline,
    ExecRecord,
    GivenLock,
    InventoryKey,
    LockRecord,
    SandboxMissingError,
    SandboxRecord,
    StoredEvent,
)


class MemoryStore:
    """Dictionaries with the store's semantics."""

    def __init__(self) -> None:
        self._sandboxes: dict[str, SandboxRecord] = {}
        self._execs: dict[tuple[str, str], ExecRecord] = {}
        self._events: dict[tuple[str, str], list[StoredEvent]] = {}
        self._environments: dict[tuple[str, str, str], EnvironmentRecord] = {}
        self._given_locks: dict[str, GivenLock] = {}
        self._locks: dict[tuple[str, str], LockRecord] = {}
        self._inventories: dict[tuple[str, InventoryKey], bytes] = {}
        self._additions: dict[tuple[str, str], str] = {}
        self._answers: dict[tuple[str, str, str], bytes] = {}

    async def add_sandbox(self, record: SandboxRecord, lock: GivenLock | None = None) -> None:
        self._sandboxes[record.sandbox_id] = record
        if lock is not None:
            self._given_locks[record.sandbox_id] = lock

    async def given_lock(self, sandbox_id: str) -> GivenLock | None:
        return self._given_locks.get(sandbox_id)

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        return self._sandboxes.get(sandbox_id)

    async def sandboxes(self) -> Sequence[SandboxRecord]:
        return sorted(self._sandboxes.values(), key=lambda record: record.create_time_ns, reverse=True)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self._sandboxes.pop(sandbox_id, None)
        self._execs = {key: value for key, value in self._execs.items() if key[0] != sandbox_id}
        self._events = {key: value for key, value in self._events.items() if key[0] != sandbox_id}
        self._environments = {key: value for key, value in self._environments.items() if key[0] != sandbox_id}
        self._given_locks.pop(sandbox_id, None)
        self._locks = {key: value for key, value in self._locks.items() if key[0] != sandbox_id}
        self._inventories = {key: value for key, value in self._inventories.items() if key[0] != sandbox_id}
        self._additions = {key: value for key, value in self._additions.items() if key[0] != sandbox_id}
        self._answers = {key: value for key, value in self._answers.items() if key[0] != sandbox_id}

    async def save_plan(self, sandbox_id: str, plan_key: str, plan: bytes) -> None:
        if sandbox_id in self._sandboxes:
            self._sandboxes[sandbox_id] = replace(self._sandboxes[sandbox_id], plan_key=plan_key, plan=plan)

    async def save_additions(self, sandbox_id: str, program: str, added: str) -> None:
        if sandbox_id in self._sandboxes:
            self._additions[sandbox_id, program] = added

    async def additions(self, sandbox_id: str, program: str) -> str:
        return self._additions.get((sandbox_id, program), "")

    async def save_answer(self, sandbox_id: str, ecosystem: str, fingerprint: str, content: bytes) -> None:
        if sandbox_id not in self._sandboxes:
            return
        self._answers.pop((sandbox_id, ecosystem, fingerprint), None)
        self._answers[sandbox_id, ecosystem, fingerprint] = content
        for key in [key for key in self._answers if key[0] == sandbox_id][:-MAX_ANSWERS]:
            del self._answers[key]

    async def answer(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> bytes | None:
        return self._answers.get((sandbox_id, ecosystem, fingerprint))

    async def has_room_for(self, sandbox_id: str, exec_id: str) -> bool:
        if sandbox_id not in self._sandboxes:
            raise SandboxMissingError
        return (sandbox_id, exec_id) not in self._execs

    async def add_exec(self, record: ExecRecord, events: Sequence[StoredEvent]) -> ExecRecord | None:
        if record.sandbox_id not in self._sandboxes:
            raise SandboxMissingError
        key = (record.sandbox_id, record.exec_id)
        if key in self._execs:
            return self._execs[key]
        self._execs[key] = record
        self._events[key] = list(events)
        return None

    async def remove_exec(self, sandbox_id: str, exec_id: str) -> None:
        self._execs.pop((sandbox_id, exec_id), None)
        self._events.pop((sandbox_id, exec_id), None)

    async def exec(self, sandbox_id: str, exec_id: str) -> ExecRecord | None:
        return self._execs.get((sandbox_id, exec_id))

    async def list_execs(
        self, sandbox_id: str, *, before: tuple[int, str] | None, limit: int, running_only: bool
    ) -> Sequence[ExecOutline]:
        found = [
            record
            for record in self._execs.values()
            if record.sandbox_id == sandbox_id
            and not (running_only and record.end_time_ns)
            and (before is None or (record.create_time_ns, record.exec_id) < before)
        ]
        found.sort(key=lambda record: (record.create_time_ns, record.exec_id), reverse=True)
        names = [field.name for field in fields(ExecOutline)]
        return [ExecOutline(**{name: getattr(record, name) for name in names}) for record in found[:limit]]

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
            lock = LockRecord(
                lock=record.lock, native_lock=record.native_lock, native_lock_name=record.native_lock_name
            )
            self._locks.setdefault((record.sandbox_id, record.lock_digest), lock)
            await self._drop_locks(record.sandbox_id)

    async def _drop_locks(self, sandbox_id: str) -> None:
        wanted = {item.lock_digest for item in await self.present_environments(sandbox_id)}
        locks = [(key, lock) for key, lock in self._locks.items() if key[0] == sandbox_id]
        kept = sum(len(lock.lock) + len(lock.native_lock) for _, lock in locks)
        for key, lock in locks:
            if kept > MAX_LOCK_BYTES and key[1] not in wanted:
                del self._locks[key]
                kept -= len(lock.lock) + len(lock.native_lock)

    async def environment(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> EnvironmentRecord | None:
        found = self._environments.get((sandbox_id, ecosystem, fingerprint))
        return found if found is not None and (sandbox_id, found.lock_digest) in self._locks else None

    async def present_lock(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> str:
        found = self._environments.get((sandbox_id, ecosystem, fingerprint))
        return found.lock_digest if found is not None and found.present else ""

    async def lock(self, sandbox_id: str, digest: str) -> LockRecord | None:
        return self._locks.get((sandbox_id, digest))

    async def mark_current(self, sandbox_id: str, ecosystem: str, fingerprint: str, time_ns: int) -> None:
        key = (sandbox_id, ecosystem, fingerprint)
        if key in self._environments:
            self._environments[key] = replace(self._environments[key], switch_time_ns=time_ns)

    async def current_locks(self, sandbox_id: str) -> Mapping[str, CurrentLock]:
        found = sorted(
            await self.present_environments(sandbox_id), key=lambda item: (item.switch_time_ns, item.create_time_ns)
        )
        return {item.ecosystem: CurrentLock(fingerprint=item.fingerprint, digest=item.lock_digest) for item in found}

    async def add_inventory(self, sandbox_id: str, key: InventoryKey, content: bytes) -> bool:
        if sandbox_id not in self._sandboxes:
            return False
        kept = sum(len(value) for owner, value in self._inventories.items() if owner[0] == sandbox_id)
        if (sandbox_id, key) not in self._inventories and kept + len(content) > MAX_INVENTORY_BYTES:
            return False
        self._inventories.setdefault((sandbox_id, key), content)
        return True

    async def inventory(self, sandbox_id: str, key: InventoryKey) -> bytes | None:
        return self._inventories.get((sandbox_id, key))

    async def has_inventory(self, sandbox_id: str, key: InventoryKey) -> bool:
        return (sandbox_id, key) in self._inventories

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
            if (
                (record.sandbox_id, record.ecosystem, record.fingerprint) in self._environments
                or PROJECTS_MARK in record.importable
            )
            and record.sandbox_id == sandbox_id
            and _ran(record)
        ]
        return max(found, key=lambda record: record.create_time_ns, default=None)

    async def newest_run_exec(self, sandbox_id: str) -> ExecRecord | None:
        found = [item for item in self._execs.values() if item.sandbox_id == sandbox_id and _ran(item)]
        return max(found, key=lambda record: record.create_time_ns, default=None)

    async def close(self) -> None:
        """Nothing is held."""


def _ran(record: ExecRecord) -> bool:
    return bool(record.importable) or record.phase == pb.PHASE_RUN
