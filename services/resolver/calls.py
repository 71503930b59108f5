"""The calls that worker processes answer: their requests, their answers, and the errors that they may raise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import Any

from services.resolver import errors
from services.resolver.diff import diff_locks
from services.resolver.lockfile import read_qila_lock
from services.resolver.locks import read_all_locks
from services.resolver.model import (
    Context,
    InstallReport,
    LockDiff,
    Lockfile,
    Plan,
    Plans,
    RenderedLock,
    RunReport,
    Sbom,
    SbomFormat,
    SbomSubject,
    Selection,
    StepKind,
    Target,
    Unmanaged,
    WorkspaceFile,
)
from services.resolver.plan import explain_install, explain_run, plan, render_lock, verify_install
from services.resolver.planner import planner_of
from services.resolver.projects import plan_all
from services.resolver.sbom import render_sbom
from services.resolver.selection import select_files


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectFiles:
    """Ask which files to read."""

    files: tuple[WorkspaceFile, ...]
    target: Target

    def run(self) -> Selection:
        """Answer in this process."""
        return select_files(self.files, self.target)


@dataclass(frozen=True, kw_only=True, slots=True)
class MakePlan:
    """Ask for a plan."""

    files: Mapping[str, bytes]
    tree: tuple[str, ...]
    target: Target
    context: Context

    def run(self) -> Plan:
        """Answer in this process."""
        return plan(self.files, self.tree, self.target, self.context)


@dataclass(frozen=True, kw_only=True, slots=True)
class MakePlans:
    """Ask for the plan of a program, and those of all other projects of its workspace."""

    files: Mapping[str, bytes]
    tree: tuple[str, ...]
    target: Target
    context: Context

    def run(self) -> Plans:
        """Answer in this process."""
        return plan_all(self.files, self.tree, self.target, self.context)


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeLock:
    """Ask for the verified lock of an install; `direct` holds the plan's specifiers."""

    ecosystem: str
    direct: tuple[str, ...]
    native_lock: bytes
    inventory: bytes
    toolchain: Mapping[str, str]
    registry_urls: Mapping[str, str]

    def run(self) -> RenderedLock:
        """Answer in this process."""
        verify_install(self.ecosystem, self.native_lock, self.inventory, self.toolchain)
        return render_lock(
            self.ecosystem,
            self.direct,
            self.native_lock,
            self.inventory,
            self.toolchain,
            registry_urls=self.registry_urls,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainInstall:
    """Ask what an installer's output says; `failed_with` is the exit code of a failed step."""

    ecosystem: str
    step: StepKind
    output: bytes
    failed_with: int | None = None

    def run(self) -> InstallReport:
        """Answer in this process."""
        return explain_install(self.ecosystem, self.step, self.output, self.failed_with)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainRun:
    """Ask what the end of a failed program's stderr says about its imports."""

    ecosystem: str
    output: bytes
    manifests: tuple[str, ...]

    def run(self) -> RunReport:
        """Answer in this process."""
        return explain_run(self.ecosystem, self.output, self.manifests)


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffLocks:
    """Ask what differs between two sets of locks; `toolchain` decides which entries of native locks apply."""

    before: tuple[Lockfile, ...]
    after: tuple[Lockfile, ...]
    toolchain: Mapping[str, str]

    def run(self) -> LockDiff:
        """Answer in this process."""
        return diff_locks(read_all_locks(self.before, self.toolchain), read_all_locks(self.after, self.toolchain))


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """An inventory of packages that no lock stands behind."""

    ecosystem: str
    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderSbom:
    """Ask for the SBOM of an exec; `locks` are the bytes of qila.lock.json."""

    subject: SbomSubject
    locks: tuple[bytes, ...]
    unmanaged: tuple[Inventory, ...]
    format: SbomFormat

    def run(self) -> Sbom:
        """Answer in this process."""
        locks = [read_qila_lock(lock) for lock in self.locks]
        found = [_unmanaged(item) for item in self.unmanaged]
        known = self.subject.unmanaged_known and all(item.complete for item in found)
        subject = replace(self.subject, unmanaged_known=known)
        return render_sbom(subject, locks, chain.from_iterable(item.packages for item in found), self.format)


def _unmanaged(item: Inventory) -> Unmanaged:
    """The packages of an inventory; where it is none, a program may have made it so, and the SBOM says it."""
    try:
        return planner_of(item.ecosystem).unmanaged_packages(item.content)
    except errors.InventoryError:
        return Unmanaged(packages=(), complete=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """Which kind of message a body holds; sent in front of it."""

    kind: str


CALLS: Mapping[str, Any] = MappingProxyType(
    {
        call.__name__: call
        for call in (SelectFiles, MakePlan, MakePlans, MakeLock, ExplainInstall, ExplainRun, DiffLocks, RenderSbom)
    }
)
ANSWERS: Mapping[str, Any] = MappingProxyType(
    {
        "SelectFiles": Selection,
        "MakePlan": Plan,
        "MakePlans": Plans,
        "MakeLock": RenderedLock,
        "ExplainInstall": InstallReport,
        "ExplainRun": RunReport,
        "DiffLocks": LockDiff,
        "RenderSbom": Sbom,
    }
)
ERRORS: Mapping[str, Any] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            errors.ManifestError,
            errors.ManifestTooLargeError,
            errors.TargetNotFoundError,
            errors.TargetAmbiguousError,
            errors.TargetUnsupportedError,
            errors.UnknownEcosystemError,
            errors.UnknownLanguageError,
            errors.ToolchainMissingError,
            errors.InventoryError,
            errors.LockError,
            errors.InstallMismatchError,
        )
    }
)
OUT_OF_MEMORY = "OutOfMemory"
FAULT = "Fault"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A worker failed in a way that no input should be able to cause."""

    detail: str
