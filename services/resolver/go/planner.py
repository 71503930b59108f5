"""The planner for Go: a given lock first, then go.mod with go.sum, then detection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError, ToolchainMissingError
from services.resolver.failure_words import with_notes
from services.resolver.go import bundle, failures, lock, missing, progress
from services.resolver.go import target as targets
from services.resolver.go.assemble import assemble
from services.resolver.go.detect import Detector
from services.resolver.go.given import given_needs, is_given
from services.resolver.go.modules import find_modules
from services.resolver.go.names import ECOSYSTEM, language_of
from services.resolver.go.needs import Needs, Situation, declared_needs, detected_needs
from services.resolver.go.scan import is_source
from services.resolver.go.sources import MOD, SKIPPED, SUM, WORK, Sources
from services.resolver.go.table import package_table
from services.resolver.paths import with_parents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.resolver.model import (
        Context,
        ImportFinding,
        InstallFailure,
        LockedPackage,
        Lockfile,
        Options,
        PackageEvent,
        Plan,
        StageProgress,
        StepKind,
        Target,
        Unmanaged,
    )

TOOL = "go"


class GoPlanner:
    """Plans programs of Go."""

    ecosystem = ECOSYSTEM

    def claims(self, paths: Iterable[str], target: Target) -> int:
        """See Planner."""
        return targets.claims(paths, target)

    def manifests(self, path: str) -> bool:
        """See Planner."""
        return path.rpartition("/")[2] in {MOD, WORK} and not _is_passed_over(path)

    def declares(self, path: str) -> bool:
        """See Planner."""
        return path.rpartition("/")[2] == MOD and self.manifests(path)

    def sources(self, path: str) -> bool:
        """See Planner. Sums are read like programs: a plan can be made without them."""
        return (is_source(path) or path.rpartition("/")[2] == SUM) and not _is_passed_over(path)

    def searched(self, target: Target) -> Sequence[str]:
        """See Planner."""
        return with_parents(target.program.removeprefix("./"))

    def plan(self, files: Mapping[str, bytes], tree: Iterable[str], target: Target, context: Context) -> Plan:
        """See Planner."""
        toolchain = context.toolchain.get(TOOL, "")
        if not language_of(toolchain):
            raise ToolchainMissingError(tool=TOOL)
        sources = Sources(files, list(tree))
        program = targets.find_program(sources, target)
        modules = find_modules(sources, program, toolchain)
        detector = Detector(sources, modules)
        situation = Situation(
            sources=sources,
            modules=modules,
            program=program,
            detector=detector,
            reached=detector.reach(program),
            options=context.options,
            toolchain=toolchain,
        )
        return assemble(_needs(situation, context), situation, target, context)

    def progress(self, step: StepKind, line: bytes) -> PackageEvent | StageProgress | None:
        """See Planner."""
        return progress.parse_installer_line(step, line)

    def explain_failure(self, step: StepKind, exit_code: int, output: bytes) -> InstallFailure:
        """See Planner."""
        return with_notes(failures.explain_failure(step, exit_code, output), package_table().note)

    def explain_run(self, output: bytes, manifests: Sequence[str]) -> list[ImportFinding]:
        """See Planner."""
        return missing.explain_run(output, manifests)

    def verify_install(self, native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]) -> None:
        """See Planner."""
        del toolchain
        lock.verify_install(native_lock, inventory)

    def locked_packages(
        self, direct: Iterable[str], native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]
    ) -> list[LockedPackage]:
        """See Planner."""
        del toolchain
        return lock.locked_packages(direct, native_lock, inventory)

    def unmanaged_packages(self, inventory: bytes) -> Unmanaged:
        """See Planner."""
        return lock.unmanaged_packages(inventory)

    def public_lock(self, native_lock: bytes, registry_urls: Mapping[str, str]) -> bytes:
        """See Planner. A lock of Go's names no registry."""
        del registry_urls
        return native_lock

    def reads_lock(self, lockfile: Lockfile) -> bool:
        """See Planner."""
        return bundle.is_lock(lockfile)

    def read_lock(self, lockfile: Lockfile, toolchain: Mapping[str, str]) -> list[LockedPackage]:
        """See Planner."""
        del toolchain
        return lock.compared_packages(lockfile.content, lockfile.name)


def _needs(situation: Situation, context: Context) -> Needs:
    """A lock from outside decides, then go.mod with go.sum, then the imports."""
    _check_parts(situation, context.options)
    given = context.given_lock
    if given is not None and is_given(given):
        return given_needs(given, situation)
    file = situation.modules.main.file
    return detected_needs(situation) if file is None else declared_needs(situation, file)


def _check_parts(situation: Situation, options: Options) -> None:
    """Raise ManifestError for parts of a manifest that a go.mod does not have."""
    unknown = (*options.extras, *options.groups)
    if unknown and situation.modules.main.file is not None:
        reason = f"there is no group {unknown[0][:80]!r}; a go.mod has none"
        raise ManifestError(path=situation.modules.main.manifest, reason=reason)


def _is_passed_over(path: str) -> bool:
    return not SKIPPED.isdisjoint(path.split("/")[:-1])
