"""The store's port and the records that go through it. Times are nanoseconds since 1970 UTC."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

# In an exec's `importable`, if all projects of its workspace were installed and one has a lock.
PROJECTS_MARK: Final = '"projects": [{'
# Of the inventories of one sandbox, together.
MAX_INVENTORY_BYTES: Final = 64 << 20
MAX_LOCK_BYTES: Final = 256 << 20
# Of the answers of one sandbox; beyond that the oldest go.
MAX_ANSWERS: Final = 16


@dataclass(frozen=True, kw_only=True)
class SandboxRecord:
    """A sandbox, its limits as they were granted, and the last plan that was made for it.

    `plan_key` stands for all that the plan was made from; `plan` the resolver's serialised answer, without staged
    files;
    `lock_digest` the SHA-256 of the lock that it was made with, empty if it was made without; `image` the name of the
    image that it was made from.
    """

    sandbox_id: str
    language: str
    create_time_ns: int
    cpu_millis: int
    memory_bytes: int
    pids: int
    disk_bytes: int = 0
    plan_key: str = ""
    plan: bytes = b""
    lock_digest: str = ""
    image: str = "default"


@dataclass(frozen=True, kw_only=True)
class GivenLock:
    """The lockfile that a sandbox was made with."""

    name: str
    content: bytes

    @property
    def digest(self) -> str:
        """SHA-256 over the name and the content."""
        return hashlib.sha256(self.name.encode() + b"\0" + self.content).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ExecRecord:
    """An exec.

    Attributes:
        request: the serialised ExecRequest; `digest` its SHA-256.
        phase: number of the gateway's `Phase`.
        end_time_ns: 0 until it has ended.
        ended: the serialised ExecEnded, empty until it has ended.
        failure: the serialised google.rpc.Status, if it could not be started.
        plan: the serialised plan, without staged files; empty for a command.
        last_sequence: of its control events.
        attempt: how often it was taken up again after a restart of the gateway.
        run: which of a program's runs it is in or before; 0 is the first.
        added: JSON, a list of the requirements that earlier runs showed to be missing; empty for none.
        last_end: the serialised ExecEnded of the run before this one; empty before the second.
        importable: JSON of what could be imported when the run began; see `importable.py`. Empty until then.
    """

    sandbox_id: str
    exec_id: str
    request: bytes
    digest: str
    create_time_ns: int
    phase: int
    last_sequence: int
    end_time_ns: int = 0
    ended: bytes = b""
    failure: bytes = b""
    ecosystem: str = ""
    fingerprint: str = ""
    plan: bytes = b""
    attempt: int = 0
    run: int = 0
    added: str = ""
    last_end: bytes = b""
    importable: str = ""


@dataclass(frozen=True, kw_only=True)
class ExecOutline:
    """What a list tells of an exec; the fields are those of `ExecRecord`."""

    sandbox_id: str
    exec_id: str
    create_time_ns: int
    phase: int
    end_time_ns: int
    ended: bytes
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """One control event: the serialised ExecEvent."""

    sequence: int
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class EnvironmentRecord:
    """An environment whose install succeeded.

    `present` is false once its directory was collected; `switch_time_ns` is when it last became the current one.
    """

    sandbox_id: str
    ecosystem: str
    fingerprint: str
    lock: bytes
    native_lock: bytes
    native_lock_name: str
    create_time_ns: int
    present: bool = True
    switch_time_ns: int = 0

    @property
    def lock_digest(self) -> str:
        """Names what was installed: an install of the same fingerprint may find other versions later."""
        return hashlib.sha256(self.lock + b"\0" + self.native_lock).hexdigest()


@dataclass(frozen=True, kw_only=True)
class LockRecord:
    """What an install once found: it stays as long as the sandbox, within MAX_LOCK_BYTES."""

    lock: bytes
    native_lock: bytes
    native_lock_name: str


@dataclass(frozen=True, kw_only=True)
class CurrentLock:
    """The lock of an ecosystem's current environment."""

    fingerprint: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class InventoryKey:
    """A directory in which programs install by themselves, as it once was."""

    ecosystem: str
    path: str
    digest: str


class SandboxMissingError(Exception):
    """The sandbox has no record (any more)."""


class Store(Protocol):
    """Records. What a call has returned from survives the process."""

    async def add_sandbox(self, record: SandboxRecord, lock: GivenLock | None = None) -> None:
        """Adds a sandbox, with the lock that it is made with; its id is new."""

    async def given_lock(self, sandbox_id: str) -> GivenLock | None:
        """The lock that the sandbox was made with."""

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        """One sandbox."""

    async def sandboxes(self) -> Sequence[SandboxRecord]:
        """All, newest first."""

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Removes it with all its records; OK if there is none."""

    async def save_plan(self, sandbox_id: str, plan_key: str, plan: bytes) -> None:
        """Keeps the last plan; OK if the sandbox is gone."""

    async def save_additions(self, sandbox_id: str, program: str, added: str) -> None:
        """Keeps what runs of a program showed to be missing, as in `ExecRecord.added`; OK if the sandbox is gone."""

    async def additions(self, sandbox_id: str, program: str) -> str:
        """What runs of a program showed to be missing; empty if nothing did."""

    async def save_answer(self, sandbox_id: str, ecosystem: str, fingerprint: str, content: bytes) -> None:
        """Keeps what the steps of a preliminary plan left, in place of an earlier answer; OK if the sandbox is gone.

        Of more than MAX_ANSWERS the oldest go.
        """

    async def answer(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> bytes | None:
        """What the steps of a preliminary plan left; None also if it had to go."""

    async def has_room_for(self, sandbox_id: str, exec_id: str) -> bool:
        """Whether no exec has the id.

        Raises:
            SandboxMissingError: no such sandbox.
        """

    async def add_exec(self, record: ExecRecord, events: Sequence[StoredEvent]) -> ExecRecord | None:
        """Adds an exec with its first events, in one transaction; gives the one that has the id already, if any.

        Raises:
            SandboxMissingError: no such sandbox.
        """

    async def remove_exec(self, sandbox_id: str, exec_id: str) -> None:
        """Removes an exec with its events; OK if there is none."""

    async def exec(self, sandbox_id: str, exec_id: str) -> ExecRecord | None:
        """One exec."""

    async def list_execs(
        self, sandbox_id: str, *, before: tuple[int, str] | None, limit: int, running_only: bool
    ) -> Sequence[ExecOutline]:
        """The sandbox's execs, newest first: those that come after the one with this time and id in that order."""

    async def unended_execs(self) -> Sequence[ExecRecord]:
        """Those that have not ended, oldest first."""

    async def save_exec(self, record: ExecRecord, events: Sequence[StoredEvent]) -> None:
        """Replaces what may change in an exec and adds events, in one transaction; OK if the sandbox is gone."""

    async def events(self, sandbox_id: str, exec_id: str, after: int, limit: int) -> Sequence[StoredEvent]:
        """Control events after a sequence, in order."""

    async def save_environment(self, record: EnvironmentRecord) -> None:
        """Adds or replaces an environment; OK if the sandbox is gone.

        Where the sandbox's locks hold more than MAX_LOCK_BYTES, the oldest that belong to no present environment go.
        """

    async def environment(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> EnvironmentRecord | None:
        """One environment, present or not."""

    async def present_lock(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> str:
        """The lock's digest of an environment that is present; empty if it is not."""

    async def lock(self, sandbox_id: str, digest: str) -> LockRecord | None:
        """What an install once found; None also if it had to go."""

    async def mark_current(self, sandbox_id: str, ecosystem: str, fingerprint: str, time_ns: int) -> None:
        """The environment became its ecosystem's current one."""

    async def current_locks(self, sandbox_id: str) -> Mapping[str, CurrentLock]:
        """By ecosystem, the lock of the present environment that became current last."""

    async def add_inventory(self, sandbox_id: str, key: InventoryKey, content: bytes) -> bool:
        """Keeps an inventory; the first one of a key stays.

        False if it is not kept: the sandbox is gone, or its inventories would hold more than MAX_INVENTORY_BYTES.
        """

    async def inventory(self, sandbox_id: str, key: InventoryKey) -> bytes | None:
        """An inventory."""

    async def has_inventory(self, sandbox_id: str, key: InventoryKey) -> bool:
        """Whether there is one."""

    async def present_environments(self, sandbox_id: str) -> Sequence[EnvironmentRecord]:
        """Those whose directory is there, newest first."""

    async def mark_collected(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> None:
        """The directory is about to be removed; the lock stays."""

    async def newest_locked_exec(self, sandbox_id: str) -> ExecRecord | None:
        """The newest exec whose run has begun and whose environment, or another project's, has a lock."""

    async def newest_run_exec(self, sandbox_id: str) -> ExecRecord | None:
        """The newest exec whose run has begun."""

    async def close(self) -> None:
        """Gives back what the store holds."""
