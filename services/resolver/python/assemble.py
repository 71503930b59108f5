"""From what a program needs to the plan that installs and launches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from services.resolver.errors import LockError
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
    UnmanagedInventory,
)
from services.resolver.python import installer
from services.resolver.python.environment import marker_environment
from services.resolver.python.lock import read_native_lock
from services.resolver.python.table import import_table
from services.resolver.python.target import PYTHON, WORKSPACE, launch_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.resolver.model import Context, Target
    from services.resolver.python.detect import Detection
    from services.resolver.python.manifest import Manifest
    from services.resolver.python.native_pylock import Pin
    from services.resolver.python.requirements_file import Declared
    from services.resolver.python.target import Program

ECOSYSTEM = "python"
PEOPLE_LINKS = (Link(path="deps", directory="lib"),)
CACHES = (".qila/home/.cache",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a program needs, from its manifest or from its imports. `locked` is set where the manifest is a lock."""

    source: Source
    requirements: tuple[Requirement, ...]
    manifests: Mapping[str, bytes]
    constraints: tuple[str, ...] = ()
    locked: tuple[Declared, ...] = ()
    added: tuple[str, ...] = ()
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


def declared_needs(manifest: Manifest, detection: Detection, python: str) -> Needs:
    """What the manifest asks for; imports that it does not declare are reported, not installed."""
    applying = [item for item in manifest.requirements if _applies(item, python)]
    requirements = tuple(_requirement(item) for item in applying)
    declared = {item.name for item in requirements}
    return Needs(
        source=Source.MANIFEST,
        requirements=requirements,
        manifests=manifest.files,
        constraints=tuple(str(item.specifier) for item in manifest.constraints),
        locked=tuple(applying) if manifest.is_lock else (),
        undeclared=tuple(_undeclared(detection, declared)),
        optional_skipped=tuple(detection.optional_skipped),
        notices=(*manifest.notices, *(item for item in detection.notices if item.kind is not NoticeKind.ALIAS_USED)),
    )


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
    command = target.command or (PYTHON, *program.argv)
    launch = Launch(argv=(*command, *target.args), env=launch_environment(program, environment))
    install = installer.install_commands(
        environment,
        installer.Wanted(
            requirements=[item.specifier for item in needs.requirements],
            constraints=needs.constraints,
            locked=needs.locked,
            added=needs.added if needs.manifests else (),
            preferred=_preferred(context),
            builds=context.options.scripts,
        ),
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
        native_lock=install.native_lock,
        inventory_argv=install.inventory_argv,
        compile_argv=install.compile_argv,
        links=PEOPLE_LINKS if digest else (),
        unmanaged=_unmanaged(context.toolchain["python"]),
        caches=CACHES,
    )


def _preferred(context: Context) -> Sequence[Pin]:
    """The pins of the last install; a lock that cannot be read is no preference."""
    try:
        return read_native_lock(context.previous_locks.get(ECOSYSTEM, b""), context.toolchain["python"])
    except LockError:
        return ()


def _unmanaged(python: str) -> tuple[UnmanagedInventory, ...]:
    """Where `pip install` of a program puts packages."""
    path = f"{WORKSPACE}/.local/lib/python{'.'.join(python.split('.')[:2])}/site-packages"
    return (UnmanagedInventory(path=path, argv=installer.inventory_command(path)),)


def _applies(item: Declared, python: str) -> bool:
    marker = item.specifier.marker
    return marker is None or marker.evaluate(marker_environment(python))


def _requirement(item: Declared) -> Requirement:
    return Requirement(
        specifier=str(item.specifier),
        name=str(canonicalize_name(item.specifier.name)),
        origins=(Origin(kind=OriginKind.MANIFEST, path=item.path, line=item.line),),
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
