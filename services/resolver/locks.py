"""Lockfiles of any kind, read as one list of packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.errors import LockError
from services.resolver.joined_locks import parts_of
from services.resolver.lockfile import is_qila_lock, read_qila_lock
from services.resolver.planner import PLANNERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.resolver.model import LockedPackage, Lockfile
    from services.resolver.planner import Planner


def read_any_lock(
    lockfile: Lockfile, toolchain: Mapping[str, str], planners: Sequence[Planner] = PLANNERS
) -> tuple[str, list[LockedPackage]]:
    """The ecosystem and the packages of a qila.lock.json or a native lock; raises LockError with the line.

    `toolchain` decides which entries of a native lock apply.
    """
    if is_qila_lock(lockfile):
        lock = read_qila_lock(lockfile.content, lockfile.name)
        return lock.ecosystem, list(lock.packages)
    for planner in planners:
        if planner.reads_lock(lockfile):
            return planner.ecosystem, _read_native(planner, lockfile, toolchain)
    raise LockError(name=lockfile.name, line=0, reason="is neither a qila.lock.json nor a lock of a known ecosystem")


def read_all_locks(lockfiles: Iterable[Lockfile], toolchain: Mapping[str, str]) -> list[LockedPackage]:
    """The packages of several locks, of which each may be of several projects; raises LockError with name and line."""
    return [
        package
        for lockfile in lockfiles
        for part in parts_of(lockfile)
        for package in read_any_lock(part, toolchain)[1]
    ]


def _read_native(planner: Planner, lockfile: Lockfile, toolchain: Mapping[str, str]) -> list[LockedPackage]:
    try:
        return planner.read_lock(lockfile, toolchain)
    except LockError as error:
        # With two sets of locks at hand, a line alone does not say where.
        raise LockError(name=error.name or lockfile.name, line=error.line, reason=error.reason) from error
