"""The native lock of an environment against what is installed there, and the locks that projects bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.resolver.model import LockedPackage, Lockfile


def verify_install(native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]) -> None:
    """Raise InstallMismatchError unless exactly the lock is installed; optional packages may be absent."""
    raise NotImplementedError


def locked_packages(
    direct: Iterable[str], native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]
) -> list[LockedPackage]:
    """The installed packages with their hashes, licence, and who required them; `direct` holds `name@range`."""
    raise NotImplementedError


def unmanaged_packages(inventory: bytes) -> list[LockedPackage]:
    """The packages of an inventory that no lock stands behind; raises InventoryError."""
    raise NotImplementedError


def public_lock(native_lock: bytes, registry_urls: Mapping[str, str]) -> bytes:
    """The native lock as others can use it: what names a door of the sandbox names the registry instead."""
    raise NotImplementedError


def reads_lock(lockfile: Lockfile) -> bool:
    """Whether this is a lock of npm, yarn or pnpm, by its name or its bytes."""
    raise NotImplementedError


def read_lock(lockfile: Lockfile, toolchain: Mapping[str, str]) -> list[LockedPackage]:
    """What a lock of npm, yarn or pnpm pins, as far as it says; raises LockError with the line."""
    raise NotImplementedError


def lock_drift(package_json: bytes, lockfile: Lockfile) -> list[tuple[str, str]]:
    """The dependencies of a manifest that its lock does not hold as they are asked for: name and what differs.

    Raises LockError, or ManifestError for a package.json that is none.
    """
    raise NotImplementedError
