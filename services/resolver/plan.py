"""The resolver's core for callers: plan a run, read an installer's output, render a lock."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError, ToolchainError
from services.resolver.images import offered
from services.resolver.joined_locks import lock_for
from services.resolver.lockfile import lock_to_json
from services.resolver.model import InstallReport, PackageEvent, RenderedLock, RunReport, StageProgress
from services.resolver.planner import planner_for, planner_of
from services.resolver.selection import own_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.resolver.model import Context, Plan, StepKind, Target
    from services.resolver.planner import Planner


def plan(files: Mapping[str, bytes], tree: Iterable[str], target: Target, context: Context) -> Plan:
    """Plan one run of a workspace.

    `files` are the bytes of the selected files, `tree` the paths of all. Raises ManifestError, TargetNotFoundError,
    TargetAmbiguousError, TargetUnsupportedError, ToolchainMissingError, UnknownLanguageError, LockError.
    """
    own = own_files(tree)
    return plan_with(planner_for(own, target), files, own, target, context)


def plan_with(
    planner: Planner, files: Mapping[str, bytes], own: Sequence[str], target: Target, context: Context
) -> Plan:
    """Plan by one ecosystem; of a given lock of several projects, the part of the program's own counts."""
    try:
        return _planned(planner, files, own, target, context)
    except ToolchainError as error:
        # No planner knows of other images.
        reason = error.reason + offered(context.images, error.tool, error.word, error.fits)
        raise ManifestError(path=error.path, line=error.line, column=error.column, reason=reason) from error


def _planned(
    planner: Planner, files: Mapping[str, bytes], own: Sequence[str], target: Target, context: Context
) -> Plan:
    if context.given_lock is None:
        return planner.plan(files, own, target, context)
    directory = target.project_directory or target.program.removeprefix("./").rpartition("/")[0]
    lock, notices = lock_for(context.given_lock, planner.ecosystem, directory)
    planned = planner.plan(files, own, target, replace(context, given_lock=lock))
    return replace(planned, notices=(*notices, *planned.notices))


def verify_install(ecosystem: str, native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]) -> None:
    """Raise InstallMismatchError unless exactly what the lock says is installed, with all its files unchanged.

    Raises InventoryError or LockError if either cannot be read.
    """
    planner_of(ecosystem).verify_install(native_lock, inventory, toolchain)


def render_lock(
    ecosystem: str,
    direct: Iterable[str],
    native_lock: bytes,
    inventory: bytes,
    toolchain: Mapping[str, str],
    *,
    registry_urls: Mapping[str, str],
) -> RenderedLock:
    """qila.lock.json of a verified install: UTF-8 JSON, the same bytes for the same packages.

    `direct` holds the requirements in the ecosystem's own notation. Raises InventoryError or LockError.
    """
    planner = planner_of(ecosystem)
    packages = planner.locked_packages(direct, native_lock, inventory, toolchain)
    return RenderedLock(
        content=lock_to_json(ecosystem, packages, toolchain),
        package_count=len(packages),
        native_lock=planner.public_lock(native_lock, registry_urls),
    )


def explain_install(ecosystem: str, step: StepKind, output: bytes, failed_with: int | None = None) -> InstallReport:
    """What an installer's output tells of its progress and, given the exit code of a failed step, why it failed."""
    planner = planner_of(ecosystem)
    events = [planner.progress(step, line) for line in output.splitlines()]
    return InstallReport(
        packages=tuple(event for event in events if isinstance(event, PackageEvent)),
        stages=tuple(event for event in events if isinstance(event, StageProgress)),
        failure=None if failed_with is None else planner.explain_failure(step, failed_with, output),
    )


def explain_run(ecosystem: str, output: bytes, manifests: Sequence[str]) -> RunReport:
    """What the end of a failed program's stderr tells about imports that were not there."""
    return RunReport(missing=tuple(planner_of(ecosystem).explain_run(output, manifests)))


def plan_to_json(planned: Plan) -> str:
    """A plan as one line of JSON; staged content as text."""
    document = asdict(planned)
    for staged in document["staged"]:
        staged["content"] = staged["content"].decode("utf-8", "replace")
    return json.dumps(document, ensure_ascii=False, default=dict)
