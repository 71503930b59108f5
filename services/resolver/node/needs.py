"""What a program needs: by a lock from outside, by its package.json, or by its imports."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.lockfile import is_qila_lock
from services.resolver.model import ImportFinding, LockLine, Notice, NoticeKind, Origin, OriginKind, Requirement, Source
from services.resolver.node.detect import ANY_VERSION, Detection
from services.resolver.node.installer import given_lock_files
from services.resolver.node.lock import reads_lock
from services.resolver.node.locks import lock_lines
from services.resolver.node.manifest import Manifest, detected_package_json
from services.resolver.node.package import MANIFEST
from services.resolver.node.project_lock import ProjectLock
from services.resolver.node.specifier import split_package

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.resolver.model import Lockfile, Options

ECOSYSTEM = "node"
NAME_NOTICES = frozenset({NoticeKind.NAME_CONFUSED, NoticeKind.NAME_GENERIC, NoticeKind.NAME_UNKNOWN})
# A range of npm's registry without anything that leads elsewhere.
RANGE = re.compile(r"[\w.^~<>=|*+ -]{1,200}")
ADDED = "what is to be added"
TRANSITIVE = "it is installed only because another package needs it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a program needs; `links` are local packages, by name, that others import by name."""

    source: Source
    requirements: tuple[Requirement, ...] = ()
    manifests: tuple[str, ...] = ()
    package_json: bytes = b""
    lock: Lockfile | None = None
    frozen: bool = False
    lock_lines: tuple[LockLine, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    undeclared: tuple[ImportFinding, ...] = ()
    unknown: tuple[ImportFinding, ...] = ()
    optional_skipped: tuple[ImportFinding, ...] = ()
    notices: tuple[Notice, ...] = ()


def given_needs(lock: Lockfile, detection: Detection, options: Options, links: Mapping[str, str]) -> Needs:
    """What a lock from outside says. Raises LockError."""
    package_json, _ = given_lock_files(lock)
    document = json.loads(package_json)
    ranges = {**document.get("optionalDependencies", {}), **document.get("dependencies", {})}
    origin = Origin(kind=OriginKind.LOCK, path=lock.name, line=0)
    locked = [_requirement(name, value, (origin,)) for name, value in sorted(ranges.items())]
    extra = _added(options, ranges)
    if extra:
        document.setdefault("dependencies", {}).update(_ranges(extra))
        package_json = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    return Needs(
        source=Source.LOCK,
        requirements=(*locked, *extra),
        manifests=(lock.name,),
        package_json=package_json,
        lock=lock,
        frozen=not extra,
        lock_lines=lock_lines(lock),
        links=links,
        undeclared=tuple(_undeclared(detection, {*ranges, *_ranges(extra)}, MANIFEST)),
        unknown=tuple(detection.foreign),
        optional_skipped=tuple(detection.optional_skipped),
        notices=tuple(_notices(detection, ranges)),
    )


def is_given(lock: Lockfile | None) -> bool:
    """Whether a lock from outside is one of this ecosystem."""
    if lock is None:
        return False
    if not is_qila_lock(lock):
        return reads_lock(lock)
    return bool(re.search(rb'"ecosystem"\s*:\s*"node"', lock.content))


def declared_needs(
    manifest: Manifest, lock: ProjectLock, detection: Detection, options: Options, notices: Sequence[Notice]
) -> Needs:
    """What the manifest asks for; imports that it does not declare are reported, and added where the exec asks so."""
    declared = [
        _requirement(item.name, item.range, (Origin(kind=OriginKind.MANIFEST, path=item.path, line=item.line),))
        for item in sorted(manifest.declared.values(), key=lambda item: item.name)
    ]
    names = {*manifest.declared, *manifest.links}
    extra = _added(options, names)
    if options.install_missing:
        taken = names.union(_ranges(extra))
        found = {**_transitive(detection, lock.names), **detection.requirements}
        extra += [item for name, item in sorted(found.items()) if name not in taken]
    locks = (lock.file.name,) if lock.file else ()
    return Needs(
        source=Source.LOCK if lock.holds and not extra else Source.MANIFEST,
        requirements=(*declared, *extra),
        manifests=(*manifest.paths, *locks),
        package_json=manifest.package_json(_ranges(extra)),
        lock=lock.file,
        frozen=lock.holds and not extra,
        links=manifest.links,
        undeclared=tuple(_undeclared(detection, names.union(_ranges(extra)), manifest.package.path, lock.names)),
        unknown=tuple(detection.foreign),
        optional_skipped=tuple(item for item in detection.optional_skipped if item.package not in names),
        notices=(*notices, *lock.notices, *_notices(detection, lock.names.union(names))),
    )


def detected_needs(
    detection: Detection, options: Options, passed_over: Sequence[Notice], links: Mapping[str, str]
) -> Needs:
    """What the imports ask for; `passed_over` tells of manifests that say nothing about dependencies."""
    found = detection.requirements if options.detect or options.install_missing else {}
    requirements = [item for _, item in sorted(found.items())]
    requirements += _added(options, found)
    names = frozenset(item.name for item in requirements)
    unknown = [item for item in detection.unknown if _package_of(item) not in names]
    return Needs(
        source=Source.DETECTED if requirements else Source.NONE,
        requirements=tuple(requirements),
        package_json=detected_package_json(_ranges(requirements)),
        links=links,
        undeclared=() if found else tuple(_findings(detection.requirements, names, MANIFEST, frozenset())),
        unknown=tuple(sorted([*unknown, *detection.foreign], key=_place)),
        optional_skipped=tuple(detection.optional_skipped),
        notices=(*passed_over, *_notices(detection, names)),
    )


def finding_of(module: str, path: str, line: int, manifest: str, *, package: str, note: str = "") -> ImportFinding:
    """An import that nothing declared provides, and what to add where if the package is known."""
    return ImportFinding(
        module=module,
        path=path,
        line=line,
        suggestion=f"{package}@{ANY_VERSION}" if package else "",
        package=package,
        manifest=manifest if package else "",
        declaration=f'"{package}": "{ANY_VERSION}"' if package else "",
        note=note,
    )


def _undeclared(
    detection: Detection, names: Iterable[str], manifest: str, locked: frozenset[str] = frozenset()
) -> list[ImportFinding]:
    """Imports that nothing declared provides; `locked` names the packages that are installed all the same."""
    declared = frozenset(names)
    transitive = _transitive(detection, locked)
    unknown = [item for item in detection.unknown if _package_of(item) not in {*declared, *transitive}]
    known = _findings({**detection.requirements, **transitive}, declared, manifest, locked)
    return sorted([*known, *unknown], key=_place)


def _transitive(detection: Detection, locked: frozenset[str]) -> dict[str, Requirement]:
    """Imports of what a lock holds: the name needs no table to be known."""
    return {
        name: _requirement(name, ANY_VERSION, (origin,))
        for name, origin in detection.used.items()
        if name in locked and name not in detection.requirements
    }


def _package_of(item: ImportFinding) -> str:
    return split_package(item.module)[0]


def _findings(
    found: Mapping[str, Requirement], declared: frozenset[str], manifest: str, locked: frozenset[str]
) -> list[ImportFinding]:
    return [
        finding_of(
            origin.module,
            origin.path,
            origin.line,
            manifest,
            package=name,
            note=TRANSITIVE if name in locked else "",
        )
        for name, requirement in found.items()
        if name not in declared
        for origin in requirement.origins
    ]


def _place(item: ImportFinding) -> tuple[str, int, str]:
    return item.path, item.line, item.module


def _notices(detection: Detection, declared: Iterable[str]) -> list[Notice]:
    names = frozenset(declared)
    return [item for item in detection.notices if item.kind not in NAME_NOTICES or item.subject not in names]


def _requirement(name: str, wanted: str, origins: tuple[Origin, ...]) -> Requirement:
    return Requirement(specifier=f"{name}@{wanted}", name=name, origins=origins)


def _ranges(requirements: Iterable[Requirement]) -> dict[str, str]:
    return {item.name: item.specifier[len(item.name) + 1 :] for item in requirements}


def _added(options: Options, present: Iterable[str]) -> list[Requirement]:
    """The requirements that the exec adds, but those that are there already."""
    names = frozenset(present)
    origin = Origin(kind=OriginKind.ADDED, path="", line=0)
    found = {}
    for text in options.added:
        name, separator, wanted = text.strip().rpartition("@")
        if not separator or not name:
            name, wanted = text.strip(), ANY_VERSION
        if split_package(name) != (name, "") or not RANGE.fullmatch(wanted):
            raise ManifestError(path=ADDED, reason=f"{text[:100]!r} is not written name@range")
        if name not in names:
            found[name] = _requirement(name, wanted, (origin,))
    return list(found.values())
