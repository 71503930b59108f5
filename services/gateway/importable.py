"""What an exec could import when its run began: the locks of its environments, and what programs had installed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Final

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.store.port import CurrentLock, ExecRecord, InventoryKey, Store

_REMEMBERED_SANDBOXES: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class InstalledProject:
    """The environment of a project, and the digest of its lock."""

    project: str
    ecosystem: str
    fingerprint: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Importable:
    """Digests of locks, keys of inventories; `unmanaged_unknown` if nobody looked what programs had installed.

    `projects` are those that have an environment, the program's first, where all of the workspace were installed.
    """

    projects: tuple[InstalledProject, ...] = ()
    locks: tuple[str, ...] = ()
    inventories: tuple[InventoryKey, ...] = ()
    unmanaged_unknown: bool = False

    def to_text(self) -> str:
        """As an exec's record keeps it."""
        return _text(self)


@lru_cache(maxsize=1024)
def _text(importable: Importable) -> str:
    # Kept: it is the same for one exec after the other.
    return json.dumps(asdict(importable))


def importable_of(text: str) -> Importable:
    """From an exec's record."""
    document = json.loads(text)
    return Importable(
        # An earlier version of Qila recorded none.
        projects=tuple(InstalledProject(**item) for item in document.get("projects", ())),
        locks=tuple(document["locks"]),
        inventories=tuple(InventoryKey(**key) for key in document["inventories"]),
        unmanaged_unknown=document["unmanaged_unknown"],
    )


class CurrentLocks:
    """Which lock is each ecosystem's current one in a sandbox; in memory, so that a command need not ask for it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, dict[str, CurrentLock]] = {}

    async def of(self, sandbox_id: str) -> Mapping[str, CurrentLock]:
        """By ecosystem."""
        known = self._known.get(sandbox_id)
        if known is None:
            if len(self._known) >= _REMEMBERED_SANDBOXES:
                self._known.clear()
            known = self._known[sandbox_id] = dict(await self._store.current_locks(sandbox_id))
        return known

    async def note(self, sandbox_id: str, ecosystem: str, lock: CurrentLock) -> None:
        """The ecosystem's current environment is the one with this lock."""
        known = await self.of(sandbox_id)
        if known.get(ecosystem) != lock:
            await self._store.mark_current(sandbox_id, ecosystem, lock.fingerprint, time.time_ns())
            self._known[sandbox_id] = {**known, ecosystem: lock}

    def forget(self, sandbox_id: str) -> None:
        """The sandbox is removed."""
        self._known.pop(sandbox_id, None)


async def what_was_importable(store: Store, record: ExecRecord) -> Importable:
    """Of an exec, also of one that an earlier version of Qila recorded."""
    if record.importable:
        return importable_of(record.importable)
    if record.phase != pb.PHASE_RUN:
        return Importable()
    environment = record.fingerprint and await store.environment(
        record.sandbox_id, record.ecosystem, record.fingerprint
    )
    return Importable(locks=(environment.lock_digest,) if environment else (), unmanaged_unknown=True)
