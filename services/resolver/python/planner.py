"""The planner for Python: manifest first, then detection."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from services.resolver.errors import ToolchainMissingError
from services.resolver.paths import directories_above, with_parents
from services.resolver.python import target as targets
from services.resolver.python.assemble import ECOSYSTEM, assemble, declared_needs, detected_needs
from services.resolver.python.detect import Detector
from services.resolver.python.environment import SANDBOX_PYTHON
from services.resolver.python.failures import explain_failure
from services.resolver.python.findings import describe
from services.resolver.python.launching import Launcher
from services.resolver.python.lock import locked_packages, unmanaged_packages, verify_install
from services.resolver.python.locks.formats import format_of_name
from services.resolver.python.locks.outside import locked_by, reads_lock
from services.resolver.python.manifests.find import decisive_manifest, is_manifest
from services.resolver.python.manifests.readers import READERS, keep_imported
from services.resolver.python.manifests.request import request_of
from services.resolver.python.modules import SOURCE_SUFFIXES, LocalModules
from services.resolver.python.native_pylock import public_lock
from services.resolver.python.notebook import NOTEBOOK_SUFFIX
from services.resolver.python.progress import parse_installer_line
from services.resolver.python.run_failures import explain_run
from services.resolver.python.table import import_table, standard_library
from services.resolver.python.unused import misleading_names, unused_requirements

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

PROGRAM_SUFFIXES = (*SOURCE_SUFFIXES, NOTEBOOK_SUFFIX)


class PythonPlanner:
    """Plans Python programs, by their manifest, else by their imports."""

    ecosystem = ECOSYSTEM

    def claims(self, paths: Iterable[str], target: Target) -> int:
        """See Planner."""
        names = set(paths)
        if target.program:
            main = f"{target.program.removeprefix('./').rstrip('/')}/{targets.MAIN_FILE}"
            return 2 if target.program.endswith(PROGRAM_SUFFIXES) or main in names else 0
        if target.module:
            return 2
        if not names.isdisjoint((*targets.ENTRIES, *READERS)):
            return 2
        return 1 if any(path.endswith(PROGRAM_SUFFIXES) for path in names) else 0

    def manifests(self, path: str) -> bool:
        """See Planner."""
        return is_manifest(path)

    def declares(self, path: str) -> bool:
        """See Planner."""
        name = path.rpartition("/")[2]
        return name in READERS or format_of_name(name) is not None

    def sources(self, path: str) -> bool:
        """See Planner."""
        return path.endswith(SOURCE_SUFFIXES) or ("/" not in path and path.endswith(NOTEBOOK_SUFFIX))

    def searched(self, target: Target) -> Sequence[str]:
        """See Planner."""
        return directories_above(target.program.removeprefix("./"))

    def plan(self, files: Mapping[str, bytes], tree: Iterable[str], target: Target, context: Context) -> Plan:
        """See Planner."""
        python = context.toolchain.get("python", "")
        if not re.fullmatch(r"\d+(\.\d+)+", python):
            raise ToolchainMissingError(tool="python")
        version = tuple(int(part) for part in python.split("."))
        paths = list(tree)
        modules = LocalModules(paths)
        launcher = Launcher(files=files, paths=paths, modules=modules, python=version)
        program = launcher.choose(target, has_manifest=any(self.manifests(path) for path in files))
        detector = Detector(
            files=files,
            modules=modules,
            roots=(*program.roots, *program.test_roots),
            python=version,
            table=import_table(),
            library=standard_library(),
        )
        if program.runs:
            detector.require(program.runs)
        detection = detector.run(program.starts)
        directories = with_parents(target.project_directory) if target.project else directories_above(program.path)
        request = request_of(files, context)
        manifest, notices = decisive_manifest(
            program.path, directories, request, context.given_lock, detection.requirements
        )
        if manifest is not None:
            manifest, left_out = keep_imported(manifest, detection.requirements)
            notices += left_out
        if manifest is None:
            needs = detected_needs(detection, notices, context.options)
        else:
            written = manifest.written if program.starts else ()
            words = (*program.runs.split("."), *target.command, *target.args)
            notices += (*manifest.notices, *misleading_names(written))
            # What is for another platform is of no use here, and nobody's mistake.
            applying = [item for item in written if request.applies(item.specifier.marker)]
            notices += tuple(unused_requirements(applying, detection, files, words))
            needs = declared_needs(replace(manifest, notices=notices), detection, request, context.options)
        return assemble(needs, program, target, context)

    def progress(self, step: StepKind, line: bytes) -> PackageEvent | StageProgress | None:
        """See Planner."""
        del step
        return parse_installer_line(line)

    def explain_failure(self, step: StepKind, exit_code: int, output: bytes) -> InstallFailure:
        """See Planner."""
        return explain_failure(step, exit_code, output)

    def explain_run(self, output: bytes, manifests: Sequence[str]) -> list[ImportFinding]:
        """See Planner."""
        return list(describe(explain_run(output), dict.fromkeys(manifests, b"")))

    def verify_install(self, native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]) -> None:
        """See Planner."""
        verify_install(native_lock, inventory, toolchain)

    def locked_packages(
        self, direct: Iterable[str], native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]
    ) -> list[LockedPackage]:
        """See Planner."""
        return locked_packages(direct, native_lock, inventory, toolchain)

    def unmanaged_packages(self, inventory: bytes) -> Unmanaged:
        """See Planner."""
        return unmanaged_packages(inventory, SANDBOX_PYTHON)

    def public_lock(self, native_lock: bytes, registry_urls: Mapping[str, str]) -> bytes:
        """See Planner."""
        return public_lock(native_lock, registry_urls)

    def reads_lock(self, lockfile: Lockfile) -> bool:
        """See Planner."""
        return reads_lock(lockfile)

    def read_lock(self, lockfile: Lockfile, toolchain: Mapping[str, str]) -> list[LockedPackage]:
        """See Planner."""
        return locked_by(lockfile, toolchain)
