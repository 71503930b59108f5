"""Python's native locks for those who compare them: what they pin, in the words of every ecosystem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.errors import LockError, ManifestError, ToolchainMissingError
from services.resolver.model import LockedPackage
from services.resolver.python.locks.formats import format_of, read_lock
from services.resolver.python.locks.model import LockRequest, Pin
from services.resolver.python.manifests.request import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.resolver.model import Lockfile

NO_LICENSE = "NOASSERTION"


def reads_lock(lockfile: Lockfile) -> bool:
    """Whether this is a native lock of Python's, by its name or its bytes."""
    return format_of(lockfile.name, lockfile.content) is not None


def locked_by(lockfile: Lockfile, toolchain: Mapping[str, str]) -> list[LockedPackage]:
    """What a lock pins for the toolchain's Python, without extras and groups.

    Raises LockError with the line, and ToolchainMissingError if the Python is not named.
    """
    python = toolchain.get("python", "")
    if not python:
        raise ToolchainMissingError(tool="python")
    try:
        lock = read_lock(lockfile.name, lockfile.content, LockRequest(request=Request(files={}, python=python)))
    except ManifestError as error:
        raise LockError(name=lockfile.name, line=error.line, reason=error.reason) from error
    versions = {pin.name: pin.version for pin in lock.pins}
    return [_package(pin, versions) for pin in lock.pins]


def _package(pin: Pin, versions: Mapping[str, str]) -> LockedPackage:
    return LockedPackage(
        purl=purl_of(pin.name, pin.version),
        name=pin.name,
        version=pin.version,
        hashes=pin.hashes,
        license=NO_LICENSE,
        direct=pin.direct,
        required_by=tuple(sorted(purl_of(name, versions[name]) for name in pin.required_by if name in versions)),
    )


def purl_of(name: str, version: str) -> str:
    """The purl of a release on PyPI."""
    return f"pkg:pypi/{name}@{version.replace('+', '%2B').replace('!', '%21')}"
