"""The native lock of an environment against what is installed there, and the two as one normalised list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.errors import InstallMismatchError
from services.resolver.model import LockedPackage, Unmanaged
from services.resolver.node.inventory import read_inventory, read_unknown, read_unmanaged
from services.resolver.node.licenses import license_of
from services.resolver.node.locks import lock_drift, read_lock, reads_lock, shown_locations
from services.resolver.node.names import MODULES, found_from, hashes_of, purl_of, split_specifier
from services.resolver.node.npm_lock import read_npm_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.resolver.node.inventory import InstalledPackage
    from services.resolver.node.npm_lock import LockedEntry

__all__ = [
    "install_script_packages",
    "lock_drift",
    "locked_packages",
    "public_lock",
    "read_lock",
    "reads_lock",
    "unmanaged_packages",
    "verify_install",
]


def verify_install(native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]) -> None:
    """Raise InstallMismatchError unless exactly the lock is installed.

    Optional packages may be absent: most are for other platforms. What lies inside a locked package came in its own
    archive, whose hash npm has checked.
    """
    del toolchain
    locked = read_npm_lock(native_lock).entries
    installed = read_inventory(inventory)
    absent = [
        f"{entry.name}@{entry.version}"
        for location, entry in locked.items()
        if location not in installed and not entry.optional and not _is_below_absent(location, locked, installed)
    ]
    unexpected = [
        f"{package.name}@{package.version}"
        for location, package in installed.items()
        if location not in locked and not _is_inside_locked(location, locked)
    ]
    unexpected += [
        location.removeprefix(MODULES)
        for location in read_unknown(inventory)
        if location not in locked and not _is_inside_locked(location, locked)
    ]
    other = [
        f"{location.removeprefix(MODULES)}: {package.name}@{package.version}"
        for location, package in installed.items()
        if location in locked and (package.name, package.version) != (locked[location].name, locked[location].version)
    ]
    if absent or unexpected or other:
        raise InstallMismatchError(absent=tuple(absent), unexpected=tuple(unexpected), other_version=tuple(other))


def locked_packages(
    direct: Iterable[str], native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]
) -> list[LockedPackage]:
    """The installed packages with their hashes, licence, and who required them; `direct` holds `name@range`."""
    del toolchain
    wanted = {MODULES + split_specifier(specifier)[0] for specifier in direct}
    return _described(read_inventory(inventory), read_npm_lock(native_lock).entries, wanted)


def unmanaged_packages(inventory: bytes) -> Unmanaged:
    """The packages of an inventory that no lock stands behind, as far as they have a name and a version.

    Raises InventoryError for what is no inventory.
    """
    installed, complete = read_unmanaged(inventory)
    return Unmanaged(packages=tuple(_described(installed, {}, set())), complete=complete)


def public_lock(native_lock: bytes, registry_urls: Mapping[str, str]) -> bytes:
    """The native lock as others can use it: what names a door of the sandbox names the registry instead."""
    # Inside JSON, both are written as they are: addresses hold nothing that is escaped.
    for door, public in registry_urls.items():
        native_lock = native_lock.replace(door.encode(), public.encode())
    return native_lock


def install_script_packages(native_lock: bytes) -> tuple[str, ...]:
    """The packages (`name@version`) of npm's lock that run code when they are installed; raises LockError."""
    entries = read_npm_lock(native_lock).entries.values()
    return tuple(sorted({f"{entry.name}@{entry.version}" for entry in entries if entry.has_install_script}))


def _described(
    installed: Mapping[str, InstalledPackage], locked: Mapping[str, LockedEntry], direct: set[str]
) -> list[LockedPackage]:
    required = _requirers(installed)
    places: dict[str, list[str]] = {}
    for location, package in installed.items():
        places.setdefault(purl_of(package.name, package.version), []).append(location)
    found = []
    for purl, locations in places.items():
        package = installed[min(locations)]
        expression, raw = license_of(package.license)
        hashes = {item for at in locations if at in locked for item in hashes_of(locked[at].integrity)}
        found.append(
            LockedPackage(
                purl=purl,
                name=package.name,
                version=package.version,
                hashes=tuple(sorted(hashes)),
                license=expression,
                license_text=raw,
                direct=not direct.isdisjoint(locations),
                required_by=tuple(sorted(required.get(purl, set()) - {purl})),
                locations=shown_locations(package.name, locations),
            )
        )
    return found


def _requirers(installed: Mapping[str, InstalledPackage]) -> dict[str, set[str]]:
    """Who requires whom, as Node finds packages from where each lies."""
    found: dict[str, set[str]] = {}
    for location, package in installed.items():
        for name in package.needs:
            at = found_from(location, name, installed)
            if at is not None:
                required = installed[at]
                purl = purl_of(package.name, package.version)
                found.setdefault(purl_of(required.name, required.version), set()).add(purl)
    return found


def _is_below_absent(location: str, locked: Mapping[str, LockedEntry], installed: Mapping[str, object]) -> bool:
    """Whether a package lies in an optional one that is not there."""
    while above := location.rpartition(f"/{MODULES}")[0]:
        if above in locked and locked[above].optional and above not in installed:
            return True
        location = above
    return False


def _is_inside_locked(location: str, locked: Mapping[str, LockedEntry]) -> bool:
    while above := location.rpartition(f"/{MODULES}")[0]:
        if above in locked:
            return True
        location = above
    return False
