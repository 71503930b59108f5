"""Locks from outside that decide what is installed: Qila's two, and Gradle's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from services.resolver.errors import LockError
from services.resolver.java.coordinates import Coordinate, is_valid
from services.resolver.java.declared import Declaration, PomFile
from services.resolver.java.gradle_lock import read_gradle_lock, reads_gradle_lock
from services.resolver.java.locks import HASH, LockedArtifact, MavenLock, is_maven_lock, read_maven_lock, with_files
from services.resolver.java.pom_writer import OWN, write_pom
from services.resolver.lockfile import is_qila_lock, line_of_package, read_qila_lock
from services.resolver.packages import name_of_purl

if TYPE_CHECKING:
    from services.resolver.model import LockedPackage, Lockfile


def is_given(lock: Lockfile | None) -> bool:
    """Whether a lock from outside is one of this ecosystem."""
    if lock is None:
        return False
    if is_qila_lock(lock):
        return bool(re.search(rb'"ecosystem"\s*:\s*"java"', lock.content)) and not is_maven_lock(
            lock.name, lock.content
        )
    return reads_lock(lock)


def reads_lock(lock: Lockfile) -> bool:
    """Whether this is a native lock of the ecosystem."""
    return is_maven_lock(lock.name, lock.content) or reads_gradle_lock(lock.name, lock.content)


def exact_lock(lock: Lockfile) -> MavenLock | None:
    """What a lock with hashes says; None for Gradle's, which has none. Raises LockError."""
    if is_maven_lock(lock.name, lock.content):
        return read_maven_lock(lock.content, lock.name)
    if is_qila_lock(lock):
        packages = read_qila_lock(lock.content, lock.name).packages
        return MavenLock(packages=with_files(_artifact(lock, package) for package in packages))
    return None


def pinned_poms(lock: Lockfile) -> tuple[tuple[PomFile, ...], tuple[Declaration, ...]]:
    """Gradle's lock as a POM that asks for exactly its versions. Raises LockError."""
    rows = read_gradle_lock(lock.name, lock.content)
    pinned = tuple(Declaration(coordinate=coordinate, path=lock.name, line=line) for coordinate, line in rows.values())
    # The lock is complete: what a package asks for beyond it is not wanted.
    alone = [
        Declaration(coordinate=item.coordinate, path=item.path, line=item.line, exclusions=(("*", "*"),))
        for item in pinned
    ]
    return (PomFile(id=OWN, content=write_pom(OWN, alone)),), pinned


def _artifact(lock: Lockfile, package: LockedPackage) -> LockedArtifact:
    group, artifact = name_of_purl(package.purl)
    qualifiers = parse_qs(package.purl.partition("?")[2].partition("#")[0])
    coordinate = Coordinate(
        group=group,
        artifact=artifact,
        version=package.version,
        classifier=qualifiers.get("classifier", [""])[0],
        extension=qualifiers.get("type", ["jar"])[0],
    )
    hashes = [item.removeprefix("sha256:") for item in package.hashes if item.startswith("sha256:")]
    line = line_of_package(lock.content, package.purl)
    if not package.purl.startswith("pkg:maven/") or not group or not is_valid(coordinate):
        raise LockError(name=lock.name, line=line, reason=f"{package.purl[:200]} is no package of Maven's")
    if len(hashes) != 1 or not HASH.fullmatch(hashes[0]):
        raise LockError(name=lock.name, line=line, reason=f"{package.purl[:200]} needs its one SHA-256")
    required = tuple(_id(purl) for purl in package.required_by if purl.startswith("pkg:maven/"))
    return LockedArtifact(coordinate=coordinate, file="", sha256=hashes[0], direct=package.direct, required_by=required)


def _id(purl: str) -> str:
    group, artifact = name_of_purl(purl)
    return f"{group}:{artifact}:{purl.partition('?')[0].rpartition('@')[2]}"
