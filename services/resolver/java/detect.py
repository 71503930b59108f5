"""What the sources of a program import: from the JDK, from the workspace, from known packages, or from nowhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.resolver.java.table import import_table
from services.resolver.model import ImportFinding, Notice, NoticeKind, Origin, OriginKind, Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.resolver.java.coordinates import Coordinate
    from services.resolver.java.scan import Import
    from services.resolver.java.sources import SourceTree

OWN = "no source in the workspace declares this package, and no known artefact has it"
MAX_ORIGINS = 20
# Each of these does the work that others' companion would do.
LOGGERS = frozenset(
    {
        "ch.qos.logback:logback-classic", "org.apache.logging.log4j:log4j-core", "org.slf4j:slf4j-simple",
        "org.springframework.boot:spring-boot-starter", "org.springframework.boot:spring-boot-starter-web",
        "org.springframework.boot:spring-boot-starter-data-jpa",
    }
)  # fmt: skip
COMPANION = "comes along with {name}"


@dataclass(kw_only=True, slots=True)
class Detection:
    """What was found. `requirements` and `coordinates` go by `group:artifact`."""

    requirements: dict[str, Requirement] = field(default_factory=dict)
    coordinates: dict[str, Coordinate] = field(default_factory=dict)
    unknown: list[ImportFinding] = field(default_factory=list)
    imported: set[str] = field(default_factory=set)
    notices: list[Notice] = field(default_factory=list)


def detect(tree: SourceTree, sources: Iterable[str]) -> Detection:
    """Look at every import of these sources."""
    table, local = import_table(), tree.packages()
    found = Detection()
    places: dict[str, list[Origin]] = {}
    companions: dict[str, list[str]] = {}
    for path in sources:
        scanned = tree.scan(path)
        if scanned.broken_line:
            found.notices.append(Notice(kind=NoticeKind.BROKEN_FILE, path=path, line=scanned.broken_line, subject=path))
        for name, line in [*_names(scanned.imports), *scanned.urls]:
            found.imported.add(name)
            if table.is_bundled(name) or _is_local(name, local):
                continue
            known = table.find(name)
            if known is None:
                found.unknown.append(ImportFinding(module=name, path=path, line=line, note=table.note(name) or OWN))
                continue
            artifact = known.coordinate.name
            found.coordinates[artifact] = known.coordinate
            origin = Origin(kind=OriginKind.IMPORT, path=path, line=line, module=name)
            places.setdefault(artifact, []).append(origin)
            for other in known.companions:
                companions.setdefault(artifact, []).append(other.name)
                found.coordinates.setdefault(other.name, other)
    _add_companions(companions, places)
    for artifact, origins in sorted(places.items()):
        specifier = found.coordinates[artifact].specifier
        found.requirements[artifact] = Requirement(
            specifier=specifier, name=artifact, origins=tuple(origins[:MAX_ORIGINS])
        )
    found.coordinates = {name: item for name, item in found.coordinates.items() if name in places}
    return found


def _add_companions(companions: dict[str, list[str]], places: dict[str, list[Origin]]) -> None:
    for artifact, others in companions.items():
        for other in dict.fromkeys(others):
            if other in places or (other in LOGGERS and not LOGGERS.isdisjoint(places)):
                continue
            first = places[artifact][0]
            note = COMPANION.format(name=artifact)
            places[other] = [Origin(kind=OriginKind.IMPORT, path=first.path, line=first.line, module="", note=note)]


def _names(imports: Iterable[Import]) -> list[tuple[str, int]]:
    """Of a static import the class is meant, not its member."""
    return [(item.name.rpartition(".")[0] if item.static else item.name, item.line) for item in imports]


def _is_local(name: str, packages: frozenset[str]) -> bool:
    parts = name.removesuffix(".*").split(".")
    return any(".".join(parts[:count]) in packages for count in range(1, len(parts) + 1))
