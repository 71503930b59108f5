"""What a program needs: by a lock from outside, by its manifest, by JBang's lines, or by its imports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.resolver.errors import LockError, ManifestError
from services.resolver.java.coordinates import NEWEST, Coordinate, is_open, parse_coordinate
from services.resolver.java.declared import COMPILE, TEST, Declaration, Declared, PomFile
from services.resolver.java.given import exact_lock, pinned_poms
from services.resolver.java.locks import MavenLock, read_maven_lock
from services.resolver.java.pom_writer import OWN, with_dependencies, write_pom
from services.resolver.java.table import import_table
from services.resolver.model import ImportFinding, Notice, NoticeKind, Origin, OriginKind, Requirement, Source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from services.resolver.java.detect import Detection
    from services.resolver.java.jbang import Directives
    from services.resolver.model import Context, Lockfile, Options

ECOSYSTEM = "java"
ADDED = "what is to be added"
TRANSITIVE = "it is installed only because another package needs it"
OPEN = "the solve takes one version, and the lock keeps it"
SNAPSHOT = "Maven Central has releases only: name one instead"
# What these bring along is much of what a program imports, and only a solve can tell.
BRINGS_MUCH = (
    "org.springframework.boot:", "org.springframework.cloud:", "io.quarkus:", "io.micronaut", "io.helidon",
    "io.dropwizard:", "org.wildfly", "jakarta.platform:", "org.apache.spark:", "org.apache.hadoop:", "dev.langchain4j:",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a program needs; either `lock` decides what is installed, or `poms` are solved."""

    source: Source
    requirements: tuple[Requirement, ...] = ()
    manifests: tuple[str, ...] = ()
    poms: tuple[PomFile, ...] = ()
    lock: MavenLock | None = None
    highest: bool = False
    undeclared: tuple[ImportFinding, ...] = ()
    unknown: tuple[ImportFinding, ...] = ()
    notices: tuple[Notice, ...] = ()


def given_needs(lock: Lockfile, detection: Detection, options: Options) -> Needs:
    """What a lock from outside says. Raises LockError."""
    if options.added:
        raise LockError(name=lock.name, line=0, reason="decides what is installed: nothing can be added to it")
    exact = exact_lock(lock)
    if exact is not None:
        rows = [
            Declaration(coordinate=item.coordinate, path=lock.name, line=0) for item in exact.packages if item.direct
        ]
        poms: tuple[PomFile, ...] = ()
        everything = {item.coordinate.name for item in exact.packages}
    else:
        poms, pinned = pinned_poms(lock)
        rows, everything = list(pinned), {item.coordinate.name for item in pinned}
    missing, unknown = _missing(detection, everything, everything, "")
    return Needs(
        source=Source.LOCK,
        requirements=tuple(_requirement(item, OriginKind.LOCK) for item in rows),
        manifests=(lock.name,),
        poms=poms,
        lock=exact,
        highest=True,
        undeclared=(*missing, *unknown),
        notices=tuple(detection.notices),
    )


def declared_needs(
    declared: Declared, manifest: str, detection: Detection, context: Context, *, tests: bool, complete: bool
) -> Needs:
    """What a manifest asks for, and imports that it does not declare.

    `complete`: all sources of the module were looked at, so that what none imports is not used.
    """
    options = context.options
    applying = [item for item in declared.dependencies if tests or item.scope != TEST]
    names = {item.coordinate.name for item in applying}
    much = any(name.startswith(BRINGS_MUCH) for name in names)
    locked = _locked_names(context)
    extra = _added(options, names)
    if options.install_missing:
        taken = names.union(item.coordinate.name for item in extra)
        extra += [
            Declaration(coordinate=coordinate, path=manifest, line=0)
            for name, coordinate in sorted(detection.coordinates.items())
            if name not in taken and name not in locked and not much
        ]
    present = names.union(item.coordinate.name for item in extra)
    missing, unknown = _missing(detection, present, locked, manifest)
    if much:
        missing, unknown = [], []
    poms = declared.poms
    if extra:
        own = poms[0]
        poms = (PomFile(id=own.id, content=with_dependencies(own.content, extra)), *poms[1:])
    kinds = {id(item): OriginKind.ADDED for item in extra}
    requirements = [
        _requirement(item, kinds.get(id(item), OriginKind.MANIFEST)) for item in (*_unique(applying), *extra)
    ]
    return Needs(
        source=Source.LOCK if declared.pins and not extra else Source.MANIFEST,
        requirements=tuple(requirements),
        manifests=declared.paths,
        poms=poms,
        highest=declared.highest,
        undeclared=(*missing, *unknown),
        notices=(
            *declared.notices,
            *detection.notices,
            *_said(applying),
            *(_unused(applying, detection) if complete and not tests else ()),
        ),
    )


def directive_needs(path: str, directives: Directives, detection: Detection, context: Context) -> Needs:
    """What JBang's lines ask for; a file that has some declares by them all that it needs."""
    declared = Declared(
        paths=(path,),
        directory="",
        dependencies=directives.dependencies,
        poms=(PomFile(id=OWN, content=write_pom(OWN, directives.dependencies, directives.managed)),),
        highest=True,
        notices=directives.notices,
    )
    needs = declared_needs(declared, path, detection, context, tests=False, complete=False)
    return replace(needs, poms=needs.poms if needs.requirements else ())


def detected_needs(detection: Detection, options: Options, notices: Sequence[Notice], manifest: str) -> Needs:
    """What the imports ask for."""
    found = detection.requirements if options.detect or options.install_missing else {}
    wanted = [Declaration(coordinate=detection.coordinates[name], path="", line=0) for name in sorted(found)]
    extra = _added(options, found)
    missing: list[ImportFinding] = []
    if not found:
        missing, _ = _missing(detection, {item.coordinate.name for item in extra}, (), manifest)
    requirements = (*found.values(), *(_requirement(item, OriginKind.ADDED) for item in extra))
    poms = (PomFile(id=OWN, content=write_pom(OWN, [*wanted, *extra])),) if requirements else ()
    return Needs(
        source=Source.DETECTED if requirements else Source.NONE,
        requirements=tuple(sorted(requirements, key=lambda item: item.name)),
        poms=poms,
        highest=True,
        undeclared=tuple(missing),
        unknown=tuple(detection.unknown),
        notices=(*notices, *detection.notices),
    )


def finding_of(
    module: str, path: str, line: int, manifest: str, *, coordinate: Coordinate | None, note: str = ""
) -> ImportFinding:
    """An import that nothing declared provides, and what to add where if the package is known."""
    if coordinate is None:
        return ImportFinding(module=module, path=path, line=line, note=note)
    return ImportFinding(
        module=module,
        path=path,
        line=line,
        suggestion=coordinate.specifier,
        package=coordinate.name,
        manifest=manifest or path,
        declaration=declaration_of(coordinate, manifest or path),
        note=note,
    )


def declaration_of(coordinate: Coordinate, manifest: str) -> str:
    """The text that declares an artefact in a manifest of this name."""
    version = coordinate.version or NEWEST
    if manifest.endswith(".xml"):
        return (
            f"<dependency><groupId>{coordinate.group}</groupId><artifactId>{coordinate.artifact}</artifactId>"
            f"<version>{version}</version></dependency>"
        )
    if manifest.endswith((".gradle", ".kts")):
        return f'implementation("{coordinate.name}:{"+" if version == NEWEST else version}")'
    return f"//DEPS {coordinate.name}:{version}"


def _missing(
    detection: Detection, declared: Collection[str], locked: Collection[str], manifest: str
) -> tuple[list[ImportFinding], list[ImportFinding]]:
    """Imports of known packages that nothing declared provides, and of those that are not known."""
    missing = []
    for name, requirement in detection.requirements.items():
        if name in declared or _has_group(detection.coordinates[name].group, declared):
            continue
        note = TRANSITIVE if name in locked else ""
        missing += [
            finding_of(
                origin.module, origin.path, origin.line, manifest, coordinate=detection.coordinates[name], note=note
            )
            for origin in requirement.origins
            if origin.module
        ]
    unknown = [item for item in detection.unknown if not _may_provide(item.module, declared)]
    return missing, unknown


def _has_group(group: str, declared: Collection[str]) -> bool:
    """Whether another artefact of the same project is declared: it may well bring this one along."""
    return any(name.startswith(f"{group}:") for name in declared)


def _may_provide(module: str, declared: Collection[str]) -> bool:
    """Whether a declared artefact has a group that an import's package begins with, or shares two parts with."""
    lead = ".".join(module.split(".")[:2])
    return any(name.startswith((f"{lead}.", f"{lead}:")) for name in declared)


def _requirement(item: Declaration, kind: OriginKind) -> Requirement:
    origin = Origin(kind=kind, path=item.path, line=item.line, note=item.scope if item.scope != COMPILE else "")
    return Requirement(specifier=item.coordinate.specifier, name=item.coordinate.name, origins=(origin,))


def _unique(items: Iterable[Declaration]) -> list[Declaration]:
    """One for each artefact: a processor is often named twice."""
    found: dict[tuple[str, str, str], Declaration] = {}
    for item in items:
        key = (item.coordinate.name, item.coordinate.classifier, item.coordinate.extension)
        known = found.get(key)
        if known is None or (not known.coordinate.version and item.coordinate.version):
            found[key] = item
    return sorted(found.values(), key=lambda item: item.coordinate)


def _added(options: Options, present: Collection[str] | Mapping[str, object]) -> list[Declaration]:
    """The requirements that the exec adds, but those that are there already."""
    found = {}
    for text in options.added:
        coordinate = parse_coordinate(text)
        if coordinate is None:
            raise ManifestError(path=ADDED, reason=f"{text[:100]!r} is not written group:artifact:version")
        if coordinate.name not in present:
            filled = replace(coordinate, version=coordinate.version or NEWEST)
            found[coordinate.name] = Declaration(coordinate=filled, path="", line=0)
    return list(found.values())


def _locked_names(context: Context) -> frozenset[str]:
    """The packages of the last install: they need no table to be known."""
    previous = context.previous_locks.get(ECOSYSTEM)
    if not previous:
        return frozenset()
    try:
        return frozenset(item.coordinate.name for item in read_maven_lock(previous).packages)
    except LockError:
        return frozenset()


def _said(declarations: Iterable[Declaration]) -> list[Notice]:
    """What a manifest leaves open, and what cannot be had."""
    notices = []
    for item in declarations:
        version = item.coordinate.version
        if is_open(version):
            kind, detail = NoticeKind.DYNAMIC_DEPENDENCIES, f"{version}: {OPEN}"
        elif version.endswith("-SNAPSHOT"):
            kind, detail = NoticeKind.NAME_UNKNOWN, f"{version}: {SNAPSHOT}"
        else:
            continue
        notices.append(Notice(kind=kind, path=item.path, line=item.line, subject=item.coordinate.name, detail=detail))
    return notices


def _unused(declarations: Iterable[Declaration], detection: Detection) -> list[Notice]:
    """Artefacts whose packages are known and imported nowhere."""
    table = import_table()
    notices = []
    for item in declarations:
        name = item.coordinate.name
        prefixes = table.prefixes_of(name)
        if item.scope != COMPILE or not prefixes or name in table.unseen or name.startswith(BRINGS_MUCH):
            continue
        used = any(
            module == prefix or module.startswith(f"{prefix}.") for module in detection.imported for prefix in prefixes
        )
        if not used and not any(prefix.startswith("jdbc:") for prefix in prefixes):
            notices.append(
                Notice(
                    kind=NoticeKind.UNUSED_REQUIREMENT,
                    path=item.path,
                    line=item.line,
                    subject=name,
                    detail="no source imports it",
                )
            )
    return notices
