"""The planner for Node: a given lock first, then the manifest with its own lock, then detection."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from services.resolver.errors import TargetAmbiguousError, TargetNotFoundError, ToolchainMissingError
from services.resolver.failure_words import with_notes
from services.resolver.node import failures, lock, missing, progress
from services.resolver.node import target as targets
from services.resolver.node.assemble import TOOLS, assemble
from services.resolver.node.detect import Detector
from services.resolver.node.manifest import (
    DEVELOPMENT_GROUP,
    find_package,
    manifest_notices,
    read_manifest,
    root_of,
    settings_ignored,
    wants_development,
)
from services.resolver.node.modules import LocalFiles
from services.resolver.node.needs import ECOSYSTEM, Needs, declared_needs, detected_needs, given_needs, is_given
from services.resolver.node.package import MANIFEST, Packages, Workspace
from services.resolver.node.project_lock import LOCK_NAMES, find_lock
from services.resolver.node.table import package_table
from services.resolver.node.unused import unused_requirements
from services.resolver.paths import directories_above, join, normal

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
    from services.resolver.node.detect import Detection
    from services.resolver.node.package import Package

TSCONFIG = re.compile(r"tsconfig[\w.-]*\.json")


class NodePlanner:
    """Plans programs of JavaScript and TypeScript."""

    ecosystem = ECOSYSTEM

    def claims(self, paths: Iterable[str], target: Target) -> int:
        """See Planner."""
        if target.module:
            return 0
        if target.program:
            return 2 if targets.is_program(target.program) else 0
        names = set(paths)
        if target.script:
            return 2 if MANIFEST in names else 0
        programs = any(targets.is_program(path) for path in names)
        if targets.has_entry(names) or (programs and MANIFEST in names):
            return 2
        return 1 if programs or MANIFEST in names else 0

    def manifests(self, path: str) -> bool:
        """See Planner."""
        return path.rpartition("/")[2] == MANIFEST

    def declares(self, path: str) -> bool:
        """See Planner."""
        return self.manifests(path)

    def sources(self, path: str) -> bool:
        """See Planner. Locks and settings of compilers are read like programs: a plan can be made without them."""
        name = path.rpartition("/")[2]
        return targets.is_program(path) or name in LOCK_NAMES or bool(TSCONFIG.fullmatch(name))

    def searched(self, target: Target) -> Sequence[str]:
        """See Planner."""
        return directories_above(target.program.removeprefix("./"))

    def plan(self, files: Mapping[str, bytes], tree: Iterable[str], target: Target, context: Context) -> Plan:
        """See Planner."""
        for tool in TOOLS:
            if not re.fullmatch(r"\d+(\.\d+)+", context.toolchain.get(tool, "")):
                raise ToolchainMissingError(tool=tool)
        workspace = Workspace(files=files, tree=frozenset(tree), packages=Packages(files))
        program = _program(workspace, target)
        detector = Detector(
            files=files, local=LocalFiles(workspace.tree), packages=workspace.packages, table=package_table()
        )
        detection = detector.run(_starts(program, target, workspace))
        run = targets.Run(program=program, target=target, detection=detection)
        return assemble(_needs(workspace, run, context), run, context, workspace.tree)

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
        lock.verify_install(native_lock, inventory, toolchain)

    def locked_packages(
        self, direct: Iterable[str], native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]
    ) -> list[LockedPackage]:
        """See Planner."""
        return lock.locked_packages(direct, native_lock, inventory, toolchain)

    def unmanaged_packages(self, inventory: bytes) -> Unmanaged:
        """See Planner."""
        return lock.unmanaged_packages(inventory)

    def public_lock(self, native_lock: bytes, registry_urls: Mapping[str, str]) -> bytes:
        """See Planner."""
        return lock.public_lock(native_lock, registry_urls)

    def reads_lock(self, lockfile: Lockfile) -> bool:
        """See Planner."""
        return lock.reads_lock(lockfile)

    def read_lock(self, lockfile: Lockfile, toolchain: Mapping[str, str]) -> list[LockedPackage]:
        """See Planner."""
        return lock.read_lock(lockfile, toolchain)


def _program(workspace: Workspace, target: Target) -> targets.Program:
    """What is run; a command of the client's own may need no file of the workspace."""
    if target.project:
        return targets.program_of_project(workspace, target.project_directory)
    try:
        return targets.find_program(workspace.tree, workspace.packages, target)
    except (TargetNotFoundError, TargetAmbiguousError):
        if target.command and not target.program and not target.script:
            return targets.Program()
        raise


def _starts(program: targets.Program, target: Target, workspace: Workspace) -> list[str]:
    """The files at which the scan begins: the program, or those that a command names."""
    found = [program.path] if program.path else []
    words = list(target.command)
    package = workspace.packages.at(program.directory) if program.script else None
    if package is not None:
        names = (f"pre{program.script}", program.script, f"post{program.script}")
        words += [word for name in names for word in package.scripts.get(name, "").split()]
    for word in words:
        path = normal(join(program.directory, word.strip("'\"")))
        if path in workspace.tree and targets.is_program(path):
            found.append(path)
    return found


def _needs(workspace: Workspace, run: targets.Run, context: Context) -> Needs:
    """A lock from outside decides, then the manifest with its own lock, then the imports."""
    options, packages, detection = context.options, workspace.packages, run.detection
    if context.given_lock is not None and is_given(context.given_lock):
        return given_needs(context.given_lock, detection, options, _links(workspace, detection))
    package, passed_over = find_package(packages, run.program.path or join(run.program.directory, MANIFEST))
    if package is None:
        notices = [*passed_over, *settings_ignored(workspace.tree, ())]
        return detected_needs(detection, options, notices, _links(workspace, detection))
    _check_parts(package, options)
    root = root_of(packages, package, workspace.tree)
    development = wants_development(package, root, run, options.groups)
    manifest = read_manifest(packages, package, root, detection, development=development)
    notices = [*passed_over, *manifest_notices(manifest, workspace.tree, package_table(), context)]
    if run.program.path and not run.target.command:
        notices += unused_requirements(manifest.declared.values(), workspace, detection, package_table())
    return declared_needs(manifest, find_lock(workspace, manifest), detection, options, notices)


def _links(workspace: Workspace, detection: Detection) -> dict[str, str]:
    """The directories of the workspace's own packages that are imported by name."""
    places = ((workspace.packages.at(place), place) for place in detection.local_packages)
    return {own.name: place for own, place in places if own is not None and own.name}


def _check_parts(package: Package, options: Options) -> None:
    """Raise ManifestError for parts of a manifest that a package.json does not have."""
    unknown = [*options.extras, *(group for group in options.groups if group != DEVELOPMENT_GROUP)]
    if unknown:
        raise package.text.error(f"there is no group {unknown[0][:80]!r}; a package.json has {DEVELOPMENT_GROUP!r}")
