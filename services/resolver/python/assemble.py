"""From what a program needs to the plan that installs and launches it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from services.resolver.errors import LockError
from services.resolver.fingerprint import fingerprint
from services.resolver.install import environment_path
from services.resolver.model import (
    Launch,
    Link,
    LockLine,
    Notice,
    NoticeKind,
    Origin,
    OriginKind,
    Plan,
    Requirement,
    Source,
    UnmanagedInventory,
)
from services.resolver.paths import WORKSPACE
from services.resolver.python import installer
from services.resolver.python.artefacts import fitting_files
from services.resolver.python.findings import describe, undeclared_imports
from services.resolver.python.lock import read_native_lock
from services.resolver.python.manifests.locked import all_pins
from services.resolver.python.manifests.requirements_file import parse_requirement
from services.resolver.python.target import PYTHON, launch_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.resolver.model import Context, ImportFinding, Options, Target
    from services.resolver.python.detection import Detection
    from services.resolver.python.locks.model import Lock
    from services.resolver.python.manifests.manifest import Manifest
    from services.resolver.python.manifests.request import Request
    from services.resolver.python.manifests.requirements_file import Declared
    from services.resolver.python.native_pylock import Pin
    from services.resolver.python.target import Program

ECOSYSTEM = "python"
PEOPLE_LINKS = (Link(path="deps", directory="lib"),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a program needs, from its manifest or from its imports. `locked` is set where the manifest is a lock."""

    source: Source
    requirements: tuple[Requirement, ...]
    manifests: Mapping[str, bytes]
    constraints: tuple[str, ...] = ()
    locked: tuple[Declared, ...] = ()
    preferred_lock: bytes = b""
    added: tuple[str, ...] = ()
    lock_lines: tuple[LockLine, ...] = ()
    undeclared: tuple[ImportFinding, ...] = ()
    unknown: tuple[ImportFinding, ...] = ()
    optional_skipped: tuple[ImportFinding, ...] = ()
    notices: tuple[Notice, ...] = ()


def detected_needs(detection: Detection, passed_over: Sequence[Notice], options: Options) -> Needs:
    """What the imports ask for, if they are to be heard; `passed_over` tells of manifests that say nothing."""
    detected = sorted(detection.requirements.values(), key=lambda item: item.name) if options.detect else []
    requirements = (*detected, *_added(options, {item.name for item in detected}))
    undeclared = () if options.detect else describe(undeclared_imports(detection, set()), {})
    return Needs(
        source=Source.DETECTED if requirements else Source.NONE,
        requirements=requirements,
        manifests={},
        undeclared=undeclared,
        unknown=tuple(detection.unknown),
        optional_skipped=describe(detection.optional_skipped, {}),
        notices=(*passed_over, *detection.notices),
    )


def declared_needs(manifest: Manifest, detection: Detection, request: Request, options: Options) -> Needs:
    """What the manifest asks for; imports that it does not declare are reported, and installed only if asked for."""
    applying = [item for item in manifest.requirements if request.applies(item.specifier.marker)]
    requirements = tuple(_requirement(item, manifest.lock) for item in applying)
    pins = all_pins(manifest.lock) if manifest.lock and not manifest.drifted else ()
    declared = {item.name for item in requirements} | {item.specifier.name for item in pins}
    undeclared = describe(undeclared_imports(detection, declared), manifest.files)
    added = _additions(undeclared, declared, options)
    in_force = bool(pins)
    hashed = in_force and all(item.hashes for item in pins)
    # A lock that is not installed as it stands still decides the versions.
    pinned = [str(item.specifier) for item in pins] if added or not hashed else []
    return Needs(
        source=Source.LOCK if in_force else Source.MANIFEST,
        requirements=(*requirements, *added),
        manifests=manifest.files,
        constraints=(*(str(item.specifier) for item in manifest.constraints), *pinned),
        locked=_locked(applying, pins, hashed=hashed, manifest=manifest),
        preferred_lock=_preferences(manifest),
        added=tuple(item.specifier for item in added),
        lock_lines=_lock_lines(manifest.lock) if manifest.lock and in_force else (),
        undeclared=undeclared,
        optional_skipped=describe(detection.optional_skipped, manifest.files),
        notices=(
            *manifest.notices,
            *(item for item in detection.notices if not _says_nothing_new(item, declared, manifest)),
        ),
    )


def _locked(
    applying: Sequence[Declared], pins: Sequence[Declared], *, hashed: bool, manifest: Manifest
) -> tuple[Declared, ...]:
    """What is installed without a solve: all pins of a hashed lock, or a manifest that is its own lock."""
    if pins:
        return tuple(pins) if hashed else ()
    return tuple(applying) if manifest.is_lock else ()


def _lock_lines(lock: Lock) -> tuple[LockLine, ...]:
    """Where a lock that is in force says what it installs."""
    return tuple(LockLine(name=pin.name, version=pin.version, path=lock.path, line=pin.line) for pin in lock.pins)


def _preferences(manifest: Manifest) -> bytes:
    """The versions of a lock that has drifted, as requirements."""
    if manifest.lock is None or not manifest.drifted:
        return b""
    return "".join(f"{pin.name}=={pin.version}\n" for pin in manifest.lock.pins).encode()


def _says_nothing_new(notice: Notice, declared: set[str], manifest: Manifest) -> bool:
    """Whether a notice of the imports does not matter where a manifest decides."""
    if notice.kind is NoticeKind.INSTALL_HINT:
        return not manifest.written or notice.subject in declared
    return notice.kind is NoticeKind.ALIAS_USED


def _additions(undeclared: Sequence[ImportFinding], declared: set[str], options: Options) -> tuple[Requirement, ...]:
    """What the exec adds to a manifest: what it names, and if it says so what is imported and not declared."""
    added = _added(options, declared)
    if options.install_missing and options.detect:
        added += _missing(undeclared, {item.name for item in added})
    return tuple(added)


def _added(options: Options, present: set[str]) -> list[Requirement]:
    """What the exec adds to what is there already; raises ManifestError for what is no requirement."""
    found = {}
    for text in options.added:
        name = str(canonicalize_name(parse_requirement("added", 0, text).name))
        if name not in present:
            origin = Origin(kind=OriginKind.ADDED, path="", line=0, note="asked for by the exec")
            found[name] = Requirement(specifier=text, name=name, origins=(origin,))
    return list(found.values())


def _missing(undeclared: Sequence[ImportFinding], present: set[str]) -> list[Requirement]:
    """What undeclared imports need, as far as it is known."""
    found: dict[str, Requirement] = {}
    for item in undeclared:
        if not item.package or item.package in present:
            continue
        origin = Origin(
            kind=OriginKind.ADDED, path=item.path, line=item.line, module=item.module, note="imported, not declared"
        )
        known = found[item.package].origins if item.package in found else ()
        found[item.package] = Requirement(specifier=item.suggestion, name=item.package, origins=(*known, origin))
    return list(found.values())


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
            added=needs.added,
            settings=_settings(context.options),
        )
    environment = environment_path(ECOSYSTEM, digest)
    command = target.command or (PYTHON, *program.argv)
    launch = Launch(argv=(*command, *target.args), env=launch_environment(program, environment))
    install = installer.install_commands(
        environment,
        installer.Wanted(
            requirements=[item.specifier for item in needs.requirements],
            constraints=needs.constraints,
            locked=[_fitting(item, context) for item in needs.locked],
            added=needs.added if needs.manifests else (),
            preferred=_preferred(needs, context),
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
        native_lock_staged=install.native_lock_staged,
        lock_lines=needs.lock_lines,
    )


def _fitting(item: Declared, context: Context) -> Declared:
    """A pin without the names of files that are for other systems."""
    return replace(item, files=fitting_files(item.files, context.toolchain["python"]))


def _settings(options: Options) -> Mapping[str, Sequence[str]]:
    """What an exec chooses beside its requirements, as far as it decides what is installed and how."""
    chosen = {
        "extras": sorted(options.extras),
        "groups": sorted(options.groups),
        "builds": [] if options.scripts else ["no"],
    }
    return {name: values for name, values in chosen.items() if values}


def _preferred(needs: Needs, context: Context) -> Sequence[Pin]:
    """The pins of a lock that has drifted, else those of the last install; one that cannot be read is no preference."""
    lock = needs.preferred_lock or context.previous_locks.get(ECOSYSTEM, b"")
    try:
        return read_native_lock(lock, context.toolchain["python"])
    except LockError:
        return ()


def _unmanaged(python: str) -> tuple[UnmanagedInventory, ...]:
    """Where `pip install` of a program puts packages."""
    path = f"{WORKSPACE}/.local/lib/python{'.'.join(python.split('.')[:2])}/site-packages"
    return (UnmanagedInventory(path=path, argv=installer.inventory_command(path)),)


def _requirement(item: Declared, lock: Lock | None) -> Requirement:
    from_lock = lock is not None and item.path == lock.path
    kind = OriginKind.LOCK if from_lock else OriginKind.MANIFEST
    return Requirement(
        specifier=str(item.specifier),
        name=str(canonicalize_name(item.specifier.name)),
        origins=(Origin(kind=kind, path=item.path, line=item.line),),
    )
