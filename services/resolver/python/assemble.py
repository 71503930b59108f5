"""From what a program needs to the plan that installs and launches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from services.resolver.fingerprint import fingerprint
from services.resolver.model import (
    ImportFinding,
    Launch,
    Link,
    Notice,
    NoticeKind,
    Origin,
    OriginKind,
    Plan,
    Requirement,
    Source,
)
from services.resolver.python import installer
from services.resolver.python.manifests.locked import all_pins
from services.resolver.python.table import import_table
from services.resolver.python.target import PYTHON, launch_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.resolver.model import Context, Target
    from services.resolver.python.detect import Detection
    from services.resolver.python.locks.model import Lock
    from services.resolver.python.manifests.manifest import Manifest
    from services.resolver.python.manifests.request import Request
    from services.resolver.python.manifests.requirements_file import Declared
    from services.resolver.python.target import Program

ECOSYSTEM = "python"


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a program needs, from its manifest or from its imports.

    `locked` is set where a lock says exactly what is installed. `preferred_lock` holds the versions of a lock that does
    not hold any more, as hashless requirements.
    """

    source: Source
    requirements: tuple[Requirement, ...]
    manifests: Mapping[str, bytes]
    constraints: tuple[str, ...] = ()
    locked: tuple[Declared, ...] = ()
    preferred_lock: bytes = b""
    undeclared: tuple[ImportFinding, ...] = ()
    unknown: tuple[ImportFinding, ...] = ()
    optional_skipped: tuple[ImportFinding, ...] = ()
    notices: tuple[Notice, ...] = ()


def detected_needs(detection: Detection, passed_over: Sequence[Notice]) -> Needs:
    """What the imports ask for; `passed_over` tells of manifests that say nothing about dependencies."""
    requirements = sorted(detection.requirements.values(), key=lambda item: item.name)
    return Needs(
        source=Source.DETECTED if requirements else Source.NONE,
        requirements=tuple(requirements),
        manifests={},
        unknown=tuple(detection.unknown),
        optional_skipped=tuple(detection.optional_skipped),
        notices=(*passed_over, *detection.notices),
    )


def declared_needs(manifest: Manifest, detection: Detection, request: Request) -> Needs:
    """What the manifest asks for; imports that it does not declare are reported, not installed."""
    applying = [item for item in manifest.requirements if request.applies(item.specifier.marker)]
    requirements = tuple(_requirement(item, manifest.lock) for item in applying)
    pins = all_pins(manifest.lock) if manifest.lock and not manifest.drifted else ()
    declared = {item.name for item in requirements} | {item.specifier.name for item in pins}
    constraints = tuple(str(item.specifier) for item in manifest.constraints)
    in_force = bool(pins)
    hashed = in_force and all(item.hashes for item in pins)
    return Needs(
        source=Source.LOCK if in_force else Source.MANIFEST,
        requirements=requirements,
        manifests=manifest.files,
        constraints=constraints if hashed or not in_force else (*constraints, *(str(item.specifier) for item in pins)),
        locked=_locked(applying, pins, hashed=hashed, manifest=manifest),
        preferred_lock=_preferences(manifest),
        undeclared=tuple(_undeclared(detection, declared)),
        optional_skipped=tuple(detection.optional_skipped),
        notices=(*manifest.notices, *(item for item in detection.notices if item.kind is not NoticeKind.ALIAS_USED)),
    )


def _locked(
    applying: Sequence[Declared], pins: Sequence[Declared], *, hashed: bool, manifest: Manifest
) -> tuple[Declared, ...]:
    """What is installed without a solve: all pins of a hashed lock, or a manifest that is its own lock."""
    if pins:
        return tuple(pins) if hashed else ()
    return tuple(applying) if manifest.is_lock else ()


def _preferences(manifest: Manifest) -> bytes:
    """The versions of a lock that has drifted, as requirements."""
    if manifest.lock is None or not manifest.drifted:
        return b""
    return "".join(f"{pin.name}=={pin.version}\n" for pin in manifest.lock.pins).encode()


def assemble(needs: Needs, program: Program, target: Target, context: Context) -> Plan:
    """The whole plan; without requirements there is nothing to install and no fingerprint."""
    digest = ""
    if needs.requirements:
        digest = fingerprint(
            ecosystem=ECOSYSTEM,
            manifests=needs.manifests,
            requirements=[item.specifier for item in needs.requirements],
            toolchain={"python": context.toolchain["python"]},
            platform=context.platform,
            package_policy=context.package_policy,
        )
    environment = installer.environment_path(digest) if digest else ""
    launch = Launch(argv=(PYTHON, *program.argv, *target.args), env=launch_environment(program, environment))
    install = installer.install_commands(
        environment,
        requirements=[item.specifier for item in needs.requirements],
        constraints=needs.constraints,
        locked=needs.locked,
        previous_lock=needs.preferred_lock or context.previous_locks.get(ECOSYSTEM),
    )
    return Plan(
        ecosystem=ECOSYSTEM,
        source=needs.source,
        launch=launch,
        manifests=tuple(needs.manifests),
        requirements=needs.requirements,
        undeclared=needs.undeclared,
        unknown=needs.unknown,
        optional_skipped=needs.optional_skipped,
        notices=needs.notices,
        staged=install.staged,
        steps=install.steps,
        fingerprint=digest,
        environment=environment,
        native_lock=installer.LOCK if digest else "",
        inventory_argv=install.inventory_argv,
        compile_argv=install.compile_argv,
        links=(Link(path="deps", directory="lib"),) if digest else (),
        caches=(".qila/home/.cache",) if digest else (),
    )


def _requirement(item: Declared, lock: Lock | None) -> Requirement:
    from_lock = lock is not None and item.path == lock.path
    kind = OriginKind.LOCK if from_lock else OriginKind.MANIFEST
    return Requirement(
        specifier=str(item.specifier),
        name=str(canonicalize_name(item.specifier.name)),
        origins=(Origin(kind=kind, path=item.path, line=item.line),),
    )


def _undeclared(detection: Detection, declared: set[str]) -> Sequence[ImportFinding]:
    """Imports that nothing declared provides. One that shares its name with a declared package is not among them."""
    modules = {name.replace("-", "_") for name in declared}
    missing = [
        ImportFinding(module=origin.module, path=origin.path, line=origin.line, suggestion=requirement.specifier)
        for requirement in detection.requirements.values()
        if requirement.name not in declared
        for origin in requirement.origins
        if origin.module.partition(".")[0].lower() not in modules
        and declared.isdisjoint(import_table().alternatives(origin.module))
    ]
    missing += [item for item in detection.unknown if item.module.partition(".")[0].lower() not in modules]
    return sorted(missing, key=lambda item: (item.path, item.line, item.module))
