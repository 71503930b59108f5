"""The native lock of an environment against what is installed there, and the two as one normalised list."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from services.resolver.errors import InstallMismatchError
from services.resolver.go.bundle import NAME, read_lock
from services.resolver.go.inventory import read_inventory
from services.resolver.go.licenses import license_of
from services.resolver.go.names import purl_of
from services.resolver.licenses import NO_ASSERTION
from services.resolver.model import LockedPackage, Unmanaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.resolver.go.bundle import LockedModule
    from services.resolver.go.inventory import Inventory


def verify_install(native_lock: bytes, inventory: bytes) -> None:
    """Raise InstallMismatchError unless exactly the lock's modules are there, each with the lock's hash."""
    locked = {item.path: item for item in read_lock(native_lock)}
    installed = read_inventory(inventory).modules
    absent = [f"{item.path} {item.version}" for path, item in locked.items() if path not in installed]
    unexpected = [f"{item.path} {item.version}" for path, item in installed.items() if path not in locked]
    both = [(item, installed[path]) for path, item in locked.items() if path in installed]
    other = [f"{item.path} {there.version}" for item, there in both if item.version != there.version]
    damaged = [
        f"{item.path} {item.version}"
        for item, there in both
        if item.version == there.version and (not item.hash or item.hash != there.hash)
    ]
    if absent or unexpected or other or damaged:
        raise InstallMismatchError(
            absent=tuple(absent), unexpected=tuple(unexpected), other_version=tuple(other), damaged=tuple(damaged)
        )


def locked_packages(direct: Iterable[str], native_lock: bytes, inventory: bytes) -> list[LockedPackage]:
    """The modules of a verified install, with licences and who required them.

    Direct is what go.mod requires without `// indirect`, and what `direct` (module@version) names.
    """
    asked = {specifier.partition("@")[0] for specifier in direct}
    locked = [replace(item, direct=item.direct or item.path in asked) for item in read_lock(native_lock)]
    found = read_inventory(inventory)
    required = _requirers(locked, found)
    packages = []
    for item in locked:
        installed = found.modules.get(item.path)
        expression, raw = license_of(installed.licenses) if installed else (NO_ASSERTION, "")
        packages.append(_package(item, expression, raw, required.get(item.path, ())))
    return packages


def unmanaged_packages(inventory: bytes) -> Unmanaged:
    """The modules of an inventory that no lock stands behind; raises InventoryError."""
    packages = []
    for item in read_inventory(inventory).modules.values():
        expression, raw = license_of(item.licenses)
        packages.append(
            LockedPackage(
                purl=purl_of(item.path, item.version),
                name=item.path,
                version=item.version,
                hashes=(item.hash,) if item.hash else (),
                license=expression,
                license_text=raw,
                direct=False,
            )
        )
    return Unmanaged(packages=tuple(packages), complete=True)


def compared_packages(content: bytes, name: str = NAME) -> list[LockedPackage]:
    """What a native lock pins, as far as it says; raises LockError with the line."""
    return [_package(item, NO_ASSERTION, "", ()) for item in read_lock(content, name)]


def _package(item: LockedModule, expression: str, raw: str, required_by: Sequence[str]) -> LockedPackage:
    return LockedPackage(
        purl=purl_of(item.path, item.version),
        name=item.path,
        version=item.version,
        hashes=(item.hash,) if item.hash else (),
        license=expression,
        license_text=raw,
        direct=item.direct,
        required_by=tuple(required_by),
    )


def _requirers(locked: Sequence[LockedModule], found: Inventory) -> dict[str, list[str]]:
    """Who requires whom, among the versions that are installed; the program itself is not named."""
    versions = {item.path: item.version for item in locked}
    purls: dict[str, set[str]] = {}
    for (path, version), (required, _) in found.edges:
        if versions.get(path) == version and required in versions and required != path:
            purls.setdefault(required, set()).add(purl_of(path, version))
    return {path: sorted(items) for path, items in purls.items()}
