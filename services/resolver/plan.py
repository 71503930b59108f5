"""The resolver's core for callers: plan a run, read an installer's output, render a lock."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from services.resolver.model import InstallReport, RenderedLock
from services.resolver.planner import planner_for, planner_of
from services.resolver.selection import own_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.resolver.model import Context, LockedPackage, Plan, StepKind, Target

LOCK_FORMAT = 1


def plan(files: Mapping[str, bytes], tree: Iterable[str], target: Target, context: Context) -> Plan:
    """Plan one run of a workspace.

    `files` are the bytes of the selected files, `tree` the paths of all. Raises ManifestError, TargetNotFoundError,
    TargetAmbiguousError, TargetUnsupportedError, ToolchainMissingError.
    """
    own = own_files(tree)
    return planner_for(own, target).plan(files, own, target, context)


def verify_install(ecosystem: str, native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]) -> None:
    """Raise InstallMismatchError unless exactly what the lock says is installed, with all its files unchanged.

    Raises InventoryError or LockError if either cannot be read.
    """
    planner_of(ecosystem).verify_install(native_lock, inventory, toolchain)


def render_lock(
    ecosystem: str, direct: Iterable[str], native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]
) -> RenderedLock:
    """qila.lock.json of a verified install: UTF-8 JSON, the same bytes for the same packages.

    `direct` holds the requirements in the ecosystem's own notation. Raises InventoryError or LockError.
    """
    packages = planner_of(ecosystem).locked_packages(direct, native_lock, inventory, toolchain)
    document = {
        "format": LOCK_FORMAT,
        "ecosystem": ecosystem,
        "toolchain": dict(toolchain),
        "packages": [_package_to_json(package) for package in sorted(packages, key=lambda package: package.purl)],
    }
    content = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    return RenderedLock(content=content.encode(), package_count=len(packages))


def explain_install(ecosystem: str, step: StepKind, output: bytes, failed_with: int | None = None) -> InstallReport:
    """The packages that an installer's output names and, given the exit code of a failed step, why it failed."""
    planner = planner_of(ecosystem)
    events = (planner.package_event(line) for line in output.splitlines())
    failure = None if failed_with is None else planner.explain_failure(step, failed_with, output)
    return InstallReport(packages=tuple(event for event in events if event), failure=failure)


def plan_to_json(planned: Plan) -> str:
    """A plan as JSON for people and scripts; staged content as text."""
    document = asdict(planned)
    for staged in document["staged"]:
        staged["content"] = staged["content"].decode("utf-8", "replace")
    return json.dumps(document, indent=2, ensure_ascii=False, default=dict)


def _package_to_json(package: LockedPackage) -> dict[str, object]:
    document = asdict(package)
    if not package.license_text:
        del document["license_text"]
    return document
