"""The native lock of an environment against what is installed there, and the two as one normalised list."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from services.resolver.errors import InstallMismatchError
from services.resolver.java.coordinates import parse_coordinate, purl_of
from services.resolver.java.gradle_lock import read_gradle_lock
from services.resolver.java.inventory import read_inventory
from services.resolver.java.licenses import license_of
from services.resolver.java.locks import is_maven_lock, purl_of_id, read_maven_lock
from services.resolver.licenses import NO_ASSERTION
from services.resolver.model import LockedPackage, Unmanaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.resolver.java.inventory import InstalledFile
    from services.resolver.java.locks import LockedArtifact
    from services.resolver.model import Lockfile

# How most jars are named; the version is the last part that begins with a digit.
JAR = re.compile(r"(?P<name>.{1,200}?)-(?P<version>\d[A-Za-z0-9.+_-]{0,100})\.jar")


def verify_install(native_lock: bytes, inventory: bytes) -> None:
    """Raise InstallMismatchError unless exactly the lock's files are there, each with its hash."""
    lock = read_maven_lock(native_lock)
    locked = {item.file: item for item in (*lock.packages, *lock.poms)}
    installed = read_inventory(inventory)
    absent = [locked[file].id for file in locked.keys() - installed.keys()]
    damaged = [
        f"{locked[file].id}: {file}" for file in locked.keys() & installed.keys()
        if locked[file].sha256 != installed[file].sha256
    ]  # fmt: skip
    unexpected = list(installed.keys() - locked.keys())
    if absent or damaged or unexpected:
        raise InstallMismatchError(absent=tuple(absent), unexpected=tuple(unexpected), damaged=tuple(damaged))


def locked_packages(direct: Iterable[str], native_lock: bytes, inventory: bytes) -> list[LockedPackage]:
    """The installed packages with their hashes, licence, and who required them."""
    lock = read_maven_lock(native_lock)
    files = read_inventory(inventory)
    poms = {item.id: files[item.file] for item in lock.poms if item.file in files}
    named = {found.name for item in direct if (found := parse_coordinate(item))}
    return [_package(item, poms, direct=item.direct or item.coordinate.name in named) for item in lock.packages]


def unmanaged_packages(inventory: bytes) -> Unmanaged:
    """Jars that somebody put into the workspace: what they say of themselves, else what their name says."""
    found = [_by_hand(file) for file in read_inventory(inventory).values()]
    packages = {package.purl: package for package in found}
    return Unmanaged(packages=tuple(packages.values()), complete=True)


def read_lock(lockfile: Lockfile) -> list[LockedPackage]:
    """What a native lock pins; Gradle's has no hashes. Raises LockError."""
    if is_maven_lock(lockfile.name, lockfile.content):
        return [_package(item, {}, direct=item.direct) for item in read_maven_lock(lockfile.content).packages]
    rows = read_gradle_lock(lockfile.name, lockfile.content)
    return [
        LockedPackage(
            purl=purl_of(coordinate),
            name=coordinate.name,
            version=coordinate.version,
            hashes=(),
            license=NO_ASSERTION,
            direct=False,
        )
        for coordinate, _ in rows.values()
    ]


def _package(item: LockedArtifact, poms: Mapping[str, InstalledFile], *, direct: bool) -> LockedPackage:
    expression, raw = license_of(item.id, poms)
    return LockedPackage(
        purl=purl_of(item.coordinate),
        name=item.coordinate.name,
        version=item.coordinate.version,
        hashes=(f"sha256:{item.sha256}",),
        license=expression,
        license_text=raw,
        direct=direct,
        required_by=tuple(sorted({purl_of_id(identity) for identity in item.required_by})),
    )


def _by_hand(file: InstalledFile) -> LockedPackage:
    match = JAR.fullmatch(file.path.rpartition("/")[2])
    version = file.version or (match["version"] if match else "") or file.sha256[:12]
    name = file.artifact or (match["name"] if match else file.path.rpartition("/")[2].removesuffix(".jar"))
    place = f"maven/{quote(file.group, safe='')}" if file.group else "generic"
    return LockedPackage(
        purl=f"pkg:{place}/{quote(name, safe='')}@{quote(version, safe='')}",
        name=f"{file.group}:{name}" if file.group else name,
        version=version,
        hashes=(f"sha256:{file.sha256}",),
        license=NO_ASSERTION,
        direct=False,
    )
