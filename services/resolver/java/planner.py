"""The planner for Java: a given lock first, then the manifest, then JBang's lines, then the imports."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError, TargetAmbiguousError, TargetNotFoundError, ToolchainMissingError
from services.resolver.java import catalog, failures, gradle, jbang, lock, missing, progress
from services.resolver.java import target as targets
from services.resolver.java.assemble import TOOLS, assemble
from services.resolver.java.detect import detect
from services.resolver.java.given import is_given, reads_lock
from services.resolver.java.gradle_lock import NAME as GRADLE_LOCK
from services.resolver.java.gradle_question import UnansweredError, is_build_file
from services.resolver.java.gradle_reading import read_build
from services.resolver.java.maven import MavenWorkspace
from services.resolver.java.needs import (
    ECOSYSTEM,
    Needs,
    declared_needs,
    detected_needs,
    directive_needs,
    given_needs,
)
from services.resolver.java.pom import MANIFEST as POM
from services.resolver.java.release import release_of
from services.resolver.java.scan import SUFFIX
from services.resolver.java.sources import SourceTree
from services.resolver.model import Notice, NoticeKind, Unmanaged
from services.resolver.paths import directories_above, join

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.resolver.java.declared import Declared
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
    )

SCRIPTS = (POM, *gradle.SCRIPTS)
# Files that a tool of Java's would read and Qila does not: each could redirect an install or run something.
IGNORED = {
    ".mvn/extensions.xml": "extensions of Maven are not loaded",
    ".mvn/maven.config": "options of Maven are not taken from a workspace",
    ".mvn/jvm.config": "options of the JVM are not taken from a workspace",
    ".mvn/settings.xml": "packages come from Maven Central, through Qila's mirror",
    "settings.xml": "packages come from Maven Central, through Qila's mirror",
    "init.gradle": "init scripts of Gradle are not taken from a workspace",
}


class JavaPlanner:
    """Plans programs of Java."""

    ecosystem = ECOSYSTEM

    def claims(self, paths: Iterable[str], target: Target) -> int:
        """See Planner."""
        if target.program:
            return 2 if target.program.endswith(SUFFIX) else 0
        names = set(paths)
        sources = any(path.endswith(SUFFIX) for path in names)
        if target.module:
            end = f"{target.module.replace('.', '/')}{SUFFIX}"
            return 2 if any(f"/{path}".endswith(f"/{end}") for path in names) else 0
        if target.script:
            return 2 if target.script == targets.TESTS and sources and not names.isdisjoint(SCRIPTS) else 0
        entry = not names.isdisjoint((*SCRIPTS, *targets.USUAL_ENTRIES))
        return 2 if sources and entry else 1 if sources else 0

    def manifests(self, path: str) -> bool:
        """See Planner."""
        return path.rpartition("/")[2] in SCRIPTS

    def declares(self, path: str) -> bool:
        """See Planner."""
        return self.manifests(path)

    def sources(self, path: str) -> bool:
        """See Planner. Settings and locks of Gradle are read like programs: a plan can be made without them."""
        name = path.rpartition("/")[2]
        others = (*gradle.SETTINGS, gradle.PROPERTIES, GRADLE_LOCK)
        if path.endswith((SUFFIX, catalog.NAME)) or name in others:
            return True
        return name.endswith((".gradle", ".gradle.kts")) or is_build_file(path)

    def searched(self, target: Target) -> Sequence[str]:
        """See Planner."""
        return directories_above(target.program.removeprefix("./"))

    def plan(self, files: Mapping[str, bytes], tree: Iterable[str], target: Target, context: Context) -> Plan:
        """See Planner."""
        for tool in TOOLS:
            if not re.fullmatch(r"\d+(\.\d+)+", context.toolchain.get(tool, "")):
                raise ToolchainMissingError(tool=tool)
        try:
            return self._plan(files, tree, target, context)
        except UnansweredError as error:
            return error.question.plan()

    def _plan(self, files: Mapping[str, bytes], tree: Iterable[str], target: Target, context: Context) -> Plan:
        """Raises UnansweredError where the sandbox's Gradle has to be asked before."""
        if context.options.extras or context.options.groups:
            name = (*context.options.extras, *context.options.groups)[0]
            reason = (
                f"there is no extra or group {name[:80]!r}: Java has scopes, and tests are run by the script 'test'"
            )
            raise ManifestError(path=POM, reason=reason)
        release = release_of(context.toolchain["java"])
        workspace = SourceTree(files=files, tree=frozenset(tree))
        tests = target.script == targets.TESTS
        path = "" if target.project else _entry(workspace, target, context)
        manifest = _manifest_of(files, join(target.project_directory, POM) if target.project else path)
        for_tests = tests or bool(path and targets.is_test_path(path))
        near = (path or manifest).rpartition("/")[0]
        declared = _read(files, manifest, near, context, tests=for_tests)
        directives = jbang.read_directives(path, files[path], release) if path else jbang.Directives()
        main_class = directives.main_class or (declared.main_class if declared else "")
        if tests:
            directory = manifest.rpartition("/")[0]
            program = targets.tests_of(workspace, directory, declared, directives)
        elif path:
            program = targets.program_of(workspace, path, declared, directives, main_class)
        else:
            program = targets.Program()
        if program.with_tests and not for_tests:
            declared = _read(files, manifest, near, context, tests=True)
        needs = _needs(workspace, program, declared, manifest, directives, context)
        return assemble(needs, program, target, context, files)

    def progress(self, step: StepKind, line: bytes) -> PackageEvent | StageProgress | None:
        """See Planner."""
        return progress.parse_installer_line(step, line)

    def explain_failure(self, step: StepKind, exit_code: int, output: bytes) -> InstallFailure:
        """See Planner."""
        return failures.explain_failure(step, exit_code, output)

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
        """See Planner. The lock holds no address."""
        del registry_urls
        return native_lock

    def reads_lock(self, lockfile: Lockfile) -> bool:
        """See Planner."""
        return reads_lock(lockfile)

    def read_lock(self, lockfile: Lockfile, toolchain: Mapping[str, str]) -> list[LockedPackage]:
        """See Planner."""
        del toolchain
        return lock.read_lock(lockfile)


def _entry(workspace: SourceTree, target: Target, context: Context) -> str:
    """The program's path; empty where tests, or a command of the client's own, need none."""
    if target.script:
        if target.script != targets.TESTS:
            raise TargetNotFoundError(program=target.script, candidates=(targets.TESTS,), what="script")
        return ""
    main_class = ""
    if not target.program and not target.module:
        declared = _read(workspace.files, _manifest_of(workspace.files, ""), "", context, tests=False)
        main_class = declared.main_class if declared else ""
    try:
        return targets.entry_of(workspace, target, main_class)
    except (TargetNotFoundError, TargetAmbiguousError):
        if target.command and not target.program:
            return ""
        raise


def _manifest_of(files: Mapping[str, bytes], path: str) -> str:
    """The nearest manifest above a program: Maven's before Gradle's."""
    for directory in directories_above(path):
        for name in SCRIPTS:
            if join(directory, name) in files:
                return join(directory, name)
    return ""


def _read(files: Mapping[str, bytes], manifest: str, near: str, context: Context, *, tests: bool) -> Declared | None:
    """What a manifest declares for what lies in a directory; raises UnansweredError, ManifestError, LockError."""
    if not manifest:
        return None
    release = release_of(context.toolchain["java"])
    if manifest.rpartition("/")[2] == POM:
        return MavenWorkspace(files, release).read(manifest)
    return read_build(files, manifest, near, release, context, tests=tests)


def _needs(  # noqa: PLR0917 -- all that may decide
    workspace: SourceTree,
    program: targets.Program,
    declared: Declared | None,
    manifest: str,
    directives: jbang.Directives,
    context: Context,
) -> Needs:
    """A lock from outside decides, then the manifest, then the file's own lines, then the imports."""
    detection = detect(workspace, program.sources)
    detection.notices += _ignored(workspace, manifest)
    if context.given_lock is not None and is_given(context.given_lock):
        return given_needs(context.given_lock, detection, context.options)
    # A file with lines of its own is a program by itself, whatever lies above it.
    if directives.dependencies:
        return directive_needs(program.path, directives, detection, context)
    if declared is not None:
        own = [path for path in workspace.below(declared.directory) if not targets.is_test_path(path)]
        complete = bool(program.sources) and set(own) <= set(program.sources)
        return declared_needs(declared, manifest, detection, context, tests=program.with_tests, complete=complete)
    return detected_needs(detection, context.options, directives.notices, program.path)


def _ignored(workspace: SourceTree, manifest: str) -> list[Notice]:
    """Settings of tools beside the manifest, or at the root."""
    places = dict.fromkeys(("", manifest.rpartition("/")[0]))
    return [
        Notice(kind=NoticeKind.SETTING_IGNORED, path=join(place, name), subject=name, detail=detail)
        for place in places
        for name, detail in IGNORED.items()
        if join(place, name) in workspace.tree
    ]
