"""Which package provides what a source imports: the JDK's own, and those that are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from services.resolver.java.coordinates import NEWEST, Coordinate

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA = files("services.resolver.java").joinpath("data")
# A column of the table: the package is of use without being imported.
UNSEEN = "unseen"


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What provides a prefix: the artefact, and those that come along where nothing else does their work."""

    coordinate: Coordinate
    companions: tuple[Coordinate, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportTable:
    """The known prefixes, the packages of the JDK, and notes on prefixes that nothing can provide."""

    known: Mapping[str, Known]
    jdk: frozenset[str]
    notes: Mapping[str, str]
    unseen: frozenset[str]

    def is_bundled(self, name: str) -> bool:
        """Whether the JDK has the package of an imported name; a longer known prefix is another's."""
        if name.startswith("java."):
            return True
        return next(
            (prefix in self.jdk for prefix in _prefixes(name) if prefix in self.jdk or prefix in self.known), False
        )

    def find(self, name: str) -> Known | None:
        """What provides an imported name, by its longest known prefix."""
        return next((self.known[prefix] for prefix in _prefixes(name) if prefix in self.known), None)

    def note(self, name: str) -> str:
        """What there is to say of a name that is not known; empty if nothing."""
        return next((self.notes[prefix] for prefix in _prefixes(name) if prefix in self.notes), "")

    def prefixes_of(self, artifact: str) -> tuple[str, ...]:
        """The prefixes that an artefact (`group:artifact`) provides."""
        return tuple(prefix for prefix, known in self.known.items() if known.coordinate.name == artifact)


@cache
def import_table() -> ImportTable:
    """The table, read once in a process."""
    known, unseen = {}, set()
    for line in _lines("packages.tsv"):
        prefix, coordinate, *rest = line.split("\t")
        companions = [item for item in (rest[0].split(";") if rest else []) if item]
        if UNSEEN in companions:
            companions.remove(UNSEEN)
            unseen.add(_coordinate(coordinate).name)
        unseen.update(_coordinate(item).name for item in companions)
        known[prefix] = Known(
            coordinate=_coordinate(coordinate), companions=tuple(_coordinate(item) for item in companions)
        )
    notes = dict(line.split("\t") for line in _lines("notes.tsv"))
    return ImportTable(known=known, jdk=frozenset(_lines("jdk_21.txt")), notes=notes, unseen=frozenset(unseen))


def _coordinate(text: str) -> Coordinate:
    group, artifact, version = (*text.split(":"), NEWEST)[:3]
    return Coordinate(group=group, artifact=artifact, version=version)


def _prefixes(name: str) -> list[str]:
    """A name and what is above it, longest first."""
    parts = name.removesuffix(".*").split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _lines(name: str) -> list[str]:
    text = DATA.joinpath(name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
