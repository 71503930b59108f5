"""The interface that each ecosystem implements, and the choice between its implementations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from services.resolver.errors import (
    TargetNotFoundError,
    TargetUnsupportedError,
    UnknownEcosystemError,
    UnknownLanguageError,
)
from services.resolver.go.planner import GoPlanner
from services.resolver.java.planner import JavaPlanner
from services.resolver.node.planner import NodePlanner
from services.resolver.python.planner import PythonPlanner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.resolver.model import (
        Context,
        ImportFinding,
        InstallFailure,
        LockedPackage,
        Lockfile,
        PackageEvent,
        Plan,
        StageProgress,
        StepKind,
        Target,
        Unmanaged,
    )


class Planner(Protocol):
    """Everything that the resolver knows about one ecosystem."""

    ecosystem: str

    def claims(self, paths: Iterable[str], target: Target) -> int:
        """How well this planner fits the target: 0 not at all, 1 it holds such files, 2 there is a clear entry."""

    def manifests(self, path: str) -> bool:
        """Whether the file may decide requirements, so that leaving it out is an error."""

    def declares(self, path: str) -> bool:
        """Whether the file makes the directory that it lies in a project: what is declared there can be installed."""

    def sources(self, path: str) -> bool:
        """Whether the file is a program of this ecosystem."""

    def searched(self, target: Target) -> Sequence[str]:
        """The directories whose manifests count for the target, nearest first; the root is the empty string."""

    def plan(self, files: Mapping[str, bytes], tree: Iterable[str], target: Target, context: Context) -> Plan:
        """Plan one run, or the environment of a target's project, whose launch then means nothing.

        Raises ManifestError, TargetNotFoundError, TargetAmbiguousError, ToolchainMissingError.
        """

    def progress(self, step: StepKind, line: bytes) -> PackageEvent | StageProgress | None:
        """What one line of the installer's output tells."""

    def explain_failure(self, step: StepKind, exit_code: int, output: bytes) -> InstallFailure:
        """Why a step failed, from the end of its output."""

    def explain_run(self, output: bytes, manifests: Sequence[str]) -> list[ImportFinding]:
        """The imports that a failed run did not find, from the end of its stderr; empty if that was not it."""

    def verify_install(self, native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]) -> None:
        """Raise InstallMismatchError unless exactly the lock is installed; InventoryError, LockError if unreadable."""

    def locked_packages(
        self, direct: Iterable[str], native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]
    ) -> list[LockedPackage]:
        """The packages of a verified install; `direct` holds the specifiers of the plan's requirements."""

    def unmanaged_packages(self, inventory: bytes) -> Unmanaged:
        """The packages of an inventory that no lock stands behind; raises InventoryError."""

    def public_lock(self, native_lock: bytes, registry_urls: Mapping[str, str]) -> bytes:
        """The native lock as others can use it: what names a door of the sandbox names the registry instead."""

    def reads_lock(self, lockfile: Lockfile) -> bool:
        """Whether this is a native lock of the ecosystem, by its name or its bytes."""

    def read_lock(self, lockfile: Lockfile, toolchain: Mapping[str, str]) -> list[LockedPackage]:
        """What a native lock pins, as far as it says; raises LockError with the line."""


PLANNERS: tuple[Planner, ...] = (PythonPlanner(), NodePlanner(), GoPlanner(), JavaPlanner())


def planner_of(ecosystem: str) -> Planner:
    """The planner of an ecosystem; raises UnknownEcosystemError."""
    for planner in PLANNERS:
        if planner.ecosystem == ecosystem:
            return planner
    raise UnknownEcosystemError(ecosystem=ecosystem)


def planner_for(paths: Sequence[str], target: Target, planners: Sequence[Planner] = PLANNERS) -> Planner:
    """The planner that fits a target best, or of the language that it requires; its other language breaks ties.

    Raises TargetUnsupportedError if no planner runs such a file, TargetNotFoundError if there is nothing to run,
    UnknownLanguageError for a language that nobody serves.
    """
    language = target.required_language
    if language:
        known = tuple(planner.ecosystem for planner in planners)
        planners = [planner for planner in planners if planner.ecosystem == language]
        if not planners:
            raise UnknownLanguageError(language=language, known=known)
    ranked = [(planner.claims(paths, target), planner.ecosystem == target.language, planner) for planner in planners]
    claim, _, planner = max(ranked, key=lambda entry: entry[:2])
    if claim:
        return planner
    if target.program and target.program.removeprefix("./") in paths:
        raise TargetUnsupportedError(program=target.program, language=language)
    if language and (target.module or target.script):
        what = f"{'module' if target.module else 'script'} of {language}"
        raise TargetNotFoundError(program=target.module or target.script, what=what)
    raise TargetNotFoundError(program=target.program)
