"""The POM of a program with those of its workspace around it: parents, and modules that it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.java.coordinates import VERSION, Coordinate, parse_coordinate
from services.resolver.java.declared import PROVIDED, SYSTEM, Declaration, Declared, PomFile
from services.resolver.java.pom import MANIFEST, Pom, interpolate, read_pom
from services.resolver.java.pom_writer import write_pom
from services.resolver.java.release import check_release
from services.resolver.model import Notice, NoticeKind
from services.resolver.paths import directories_above, join, normal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_POMS = 500
MAX_PARENTS = 30
PROPERTY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Member:
    """A POM of the workspace with its coordinates put in; `parents` are those in the workspace, nearest first."""

    pom: Pom
    coordinate: Coordinate
    properties: Mapping[str, str]
    parents: tuple[Pom, ...]


class MavenWorkspace:
    """The POMs of a workspace, read when they are needed."""

    def __init__(self, files: Mapping[str, bytes], release: int) -> None:
        """Take the bytes of the workspace's files, and the sandbox's release of Java."""
        self._files, self._java = files, release
        self._poms: dict[str, Pom] = {}

    def read(self, path: str) -> Declared:
        """What the POM at a path declares; raises ManifestError."""
        member = self._member(path)
        siblings = {item.coordinate.name: item for item in self._siblings(path)}
        needed = self._needed(member, siblings)
        members = [member, *needed]
        notices = [notice for item in members for pom in (item.pom, *item.parents) for notice in pom.notices]
        for item in members:
            for pom in (item.pom, *item.parents):
                release, line = pom.release
                check_release(pom.path, line, interpolate(release, item.properties), self._java)
        own = [self._of(item, siblings) for item in members]
        dependencies = [item for declared in own for item in declared]
        poms = {pom.path: pom for item in members for pom in (item.pom, *item.parents)}
        notices += _system_notices(dependencies)
        return Declared(
            paths=tuple(poms),
            directory=member.pom.directory,
            dependencies=tuple(item for item in dependencies if item.scope != SYSTEM),
            poms=tuple(self._staged(members, siblings)),
            local=tuple(item.pom.directory for item in needed),
            main_class=interpolate(member.pom.main_class, member.properties),
            preview=member.pom.preview or any(pom.preview for pom in member.parents),
            source_directory=interpolate(member.pom.source_directory, member.properties),
            test_directory=interpolate(member.pom.test_directory, member.properties),
            notices=tuple(dict.fromkeys(notices)),
        )

    def _pom(self, path: str) -> Pom:
        if path not in self._poms:
            if len(self._poms) >= MAX_POMS:
                raise ManifestError(path=path, reason=f"more than {MAX_POMS} POMs lead to each other")
            self._poms[path] = read_pom(path, self._files[path])
        return self._poms[path]

    def _member(self, path: str) -> _Member:
        pom = self._pom(path)
        parents = list(self._above(pom))
        properties: dict[str, str] = {}
        for item in reversed([pom, *parents]):
            properties.update(item.properties)
        nearest = pom.parent
        group = pom.group or (nearest.group if nearest else "")
        version = pom.version or (nearest.version if nearest else "")
        known = {"groupId": group, "version": version, "artifactId": pom.artifact}
        if nearest:
            known |= {"parent.groupId": nearest.group, "parent.version": nearest.version}
        for name, value in known.items():
            properties |= {f"project.{name}": value, f"pom.{name}": value}
        coordinate = Coordinate(
            group=interpolate(group, properties),
            artifact=interpolate(pom.artifact, properties),
            version=interpolate(version, properties),
        )
        return _Member(pom=pom, coordinate=coordinate, properties=properties, parents=tuple(parents))

    def _above(self, pom: Pom) -> Iterator[Pom]:
        """The parents that lie in the workspace, nearest first."""
        seen = [pom.path]
        while pom.parent is not None:
            path = self._parent_path(pom)
            if path in seen:
                reason = f"its parent leads back to itself: {' -> '.join([*seen, path])[:500]}"
                raise ManifestError(path=pom.path, reason=reason, line=pom.parent.line)
            if not path or len(seen) > MAX_PARENTS:
                return
            pom = self._pom(path)
            seen.append(path)
            yield pom

    def _parent_path(self, pom: Pom) -> str:
        """Where the parent lies in the workspace; empty if it is the repository's."""
        parent = pom.parent
        if parent is None or parent.relative_path == "":
            return ""
        path = normal(join(pom.directory, _slashes(parent.relative_path or f"../{MANIFEST}")))
        if path is None:
            if parent.relative_path is None:
                return ""
            reason = f"the parent's relativePath {parent.relative_path[:200]!r} leads outside the workspace"
            raise ManifestError(path=pom.path, reason=reason, line=parent.line)
        if path not in self._files:
            path = join(path, MANIFEST)
        if path not in self._files:
            return ""
        found = self._pom(path)
        return path if found.artifact == parent.artifact else ""

    def _siblings(self, path: str) -> Iterator[_Member]:
        """All modules of the projects above."""
        waiting = [join(above, MANIFEST) for above in directories_above(path) if join(above, MANIFEST) in self._files]
        seen = set(waiting)
        while waiting:
            pom = self._pom(waiting.pop())
            yield self._member(pom.path)
            for module, line in pom.modules:
                place = normal(join(pom.directory, _slashes(module)))
                if place is None:
                    reason = f"the module {module[:200]!r} leads outside the workspace"
                    raise ManifestError(path=pom.path, reason=reason, line=line)
                found = next((item for item in (place, join(place, MANIFEST)) if item in self._files), "")
                if found and found not in seen:
                    seen.add(found)
                    waiting.append(found)

    def _needed(self, member: _Member, siblings: Mapping[str, _Member]) -> list[_Member]:
        """The modules that a module depends on, and those that these depend on."""
        found: dict[str, _Member] = {}
        waiting = [member]
        while waiting:
            current = waiting.pop(0)
            for pom in (current.pom, *current.parents):
                for item in pom.dependencies:
                    sibling = siblings.get(_filled(item, current.properties).coordinate.name)
                    if sibling is None or sibling.pom.path == member.pom.path or sibling.pom.path in found:
                        continue
                    found[sibling.pom.path] = sibling
                    waiting.append(sibling)
        return list(found.values())

    def _of(self, member: _Member, siblings: Mapping[str, _Member]) -> list[Declaration]:
        """The dependencies of a module that are packages, with what is known put in."""
        managed = {}
        for pom in reversed((member.pom, *member.parents)):
            for item in pom.managed:
                filled = _filled(item, member.properties)
                managed[filled.coordinate.name] = filled.coordinate.version
        found = []
        for pom in (member.pom, *member.parents):
            for item in (*pom.dependencies, *pom.processors):
                filled = _filled(item, member.properties)
                coordinate = filled.coordinate
                if coordinate.name not in siblings:
                    version = coordinate.version or managed.get(coordinate.name, "")
                    version = "" if "${" in version else version
                    found.append(replace(filled, coordinate=replace(coordinate, version=version)))
        return found

    def _staged(self, members: list[_Member], siblings: Mapping[str, _Member]) -> Iterator[PomFile]:
        """The POMs that the solve reads: the members' and their parents', each with an id of its own."""
        done = set()
        for member in members:
            for pom in (member.pom, *member.parents):
                if pom.path in done:
                    continue
                done.add(pom.path)
                # What another module has for compiling alone does not come with it, and its sources are compiled too.
                others = members[1:] if pom is members[0].pom else []
                extra = [item for other in others for item in self._of(other, siblings)]
                compiling = [item for item in extra if item.scope == PROVIDED and item.coordinate.version]
                yield self._file(self._member(pom.path), siblings, compiling)

    def _file(self, member: _Member, siblings: Mapping[str, _Member], extra: list[Declaration]) -> PomFile:
        pom = member.pom
        identity = _identity(member)
        parent = ""
        if member.parents:
            parent = _identity(self._member(member.parents[0].path))
        elif pom.parent is not None:
            parent = ":".join(
                interpolate(text, member.properties)
                for text in (pom.parent.group, pom.parent.artifact, pom.parent.version)
            )
            _check_identity(pom, parent)
        dependencies = [_as_module(item, member, siblings) for item in pom.dependencies if item.scope != SYSTEM]
        names = {item.coordinate.name for item in dependencies}
        dependencies += [item for item in (*pom.processors, *extra) if item.coordinate.name not in names]
        properties = {name: value for name, value in pom.properties.items() if PROPERTY.fullmatch(name)}
        content = write_pom(identity, dependencies, pom.managed, parent, properties)
        return PomFile(id=identity, content=content)


def _identity(member: _Member) -> str:
    coordinate = member.coordinate
    identity = f"{coordinate.group}:{coordinate.artifact}:{coordinate.version or '1'}"
    _check_identity(member.pom, identity)
    return identity


def _check_identity(pom: Pom, identity: str) -> None:
    coordinate = parse_coordinate(identity)
    if coordinate is None or not VERSION.fullmatch(coordinate.version) or coordinate.classifier:
        line = pom.parent.line if pom.parent else 1
        reason = f"its own coordinates, or those of its parent, cannot be made out: {identity[:200]}"
        raise ManifestError(path=pom.path, reason=reason, line=line)


def _filled(item: Declaration, properties: Mapping[str, str]) -> Declaration:
    old = item.coordinate
    coordinate = Coordinate(
        group=interpolate(old.group, properties),
        artifact=interpolate(old.artifact, properties),
        version=interpolate(old.version, properties),
        classifier=interpolate(old.classifier, properties),
        extension=interpolate(old.extension, properties),
    )
    return replace(item, coordinate=coordinate, scope=interpolate(item.scope, properties))


def _as_module(item: Declaration, member: _Member, siblings: Mapping[str, _Member]) -> Declaration:
    """A module of the workspace is no package: its POM alone tells what it needs."""
    sibling = siblings.get(_filled(item, member.properties).coordinate.name)
    if sibling is None:
        return item
    group, artifact, version = _identity(sibling).split(":")
    return replace(item, coordinate=Coordinate(group=group, artifact=artifact, version=version, extension="pom"))


def _system_notices(dependencies: list[Declaration]) -> list[Notice]:
    detail = "a file of one machine: put it into lib/, and it is on the class path"
    return [
        Notice(
            kind=NoticeKind.SETTING_IGNORED,
            path=item.path,
            line=item.line,
            subject=item.coordinate.name,
            detail=detail,
        )
        for item in dependencies
        if item.scope == SYSTEM
    ]


def _slashes(path: str) -> str:
    """A path as Maven reads it, also one that was written on Windows."""
    return path.replace("\\", "/")
