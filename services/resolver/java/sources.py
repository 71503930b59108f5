"""The sources of a workspace: where they lie, and which of them a program is made of."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.resolver.java.scan import SUFFIX, Outline, Scan, outline, scan
from services.resolver.paths import join

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

MAIN, TEST = "src/main", "src/test"
DECLARATIONS = ("module-info.java", "package-info.java")


@dataclass(kw_only=True)
class SourceTree:
    """The files of a workspace, looked at when they are needed."""

    files: Mapping[str, bytes]
    tree: Collection[str]
    _scans: dict[str, Scan] = field(default_factory=dict)
    _outlines: dict[str, Outline] = field(default_factory=dict)

    def scan(self, path: str) -> Scan:
        """What a source says."""
        if path not in self._scans:
            self._scans[path] = scan(self.files[path])
        return self._scans[path]

    def outline(self, path: str) -> Outline:
        """What a glance at a source shows."""
        if path not in self._outlines:
            self._outlines[path] = outline(self.files[path])
        return self._outlines[path]

    def below(self, directory: str) -> list[str]:
        """The sources below a directory, in order."""
        start = f"{directory}/" if directory else ""
        return sorted(path for path in self.files if path.startswith(start) and is_source(path))

    def holds(self, directory: str) -> bool:
        """Whether any file lies below a directory."""
        return any(path.startswith(f"{directory}/") for path in self.tree)

    def packages(self) -> frozenset[str]:
        """The packages of all sources."""
        return frozenset(self.outline(path).package for path in self.files if is_source(path))

    def jars(self, directories: Iterable[str]) -> list[str]:
        """The jars in `lib` and `libs` of some directories."""
        places = {join(directory, name) for directory in directories for name in ("lib", "libs")}
        return sorted(path for path in self.tree if path.endswith(".jar") and path.rpartition("/")[0] in places)

    def reached(self, starts: Iterable[str], below: str) -> list[str]:
        """The sources that some lead to: each declares a type whose name stands in another.

        Of several that declare a type of one name, those in the same directory are meant, else all of them.
        """
        declaring: dict[str, list[str]] = {}
        for path in self.below(below):
            for name in self.outline(path).types:
                declaring.setdefault(name, []).append(path)
        found: set[str] = set()
        waiting = deque(starts)
        while waiting:
            path = waiting.popleft()
            if path in found or path not in self.files:
                continue
            found.add(path)
            glance = self.outline(path)
            for name in glance.words & declaring.keys():
                waiting.extend(self._meant(path, glance, name, declaring[name]))
        return sorted(found)

    def _meant(self, path: str, glance: Outline, name: str, places: list[str]) -> list[str]:
        if name in glance.types:
            return []
        near = [place for place in places if place.rpartition("/")[0] == path.rpartition("/")[0]]
        # A file beside this one is meant if its name says so: others may be programs of their own.
        named = [place for place in near if place.rpartition("/")[2] == f"{name}{SUFFIX}"]
        if named or near:
            return named or near
        imported = {item.name for item in self.scan(path).imports}
        exact = [place for place in places if f"{self.outline(place).package}.{name}" in imported]
        return exact or [place for place in places if self.outline(place).package]


def is_source(path: str) -> bool:
    """Whether a file is compiled."""
    return path.endswith(SUFFIX) and path.rpartition("/")[2] not in DECLARATIONS


def package_root(path: str, package: str) -> str:
    """The directory in which the packages of a source begin."""
    directory = path.rpartition("/")[0]
    place = package.replace(".", "/")
    if place and (directory == place or directory.endswith(f"/{place}")):
        return directory[: len(directory) - len(place)].rstrip("/")
    return directory
