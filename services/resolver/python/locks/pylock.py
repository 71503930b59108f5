"""`pylock.toml` (PEP 751)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from packaging.markers import Marker, UndefinedComparison
from packaging.pylock import Package, Pylock, PylockUnsupportedVersionError, PylockValidationError
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from services.resolver.errors import ManifestError
from services.resolver.python.artefacts import LockedFile, file_name, plain_files
from services.resolver.python.locks.model import FROM_ELSEWHERE, Lock, Pin, one_of_each, package_tables, pin_of
from services.resolver.python.manifests.project import check_python
from services.resolver.python.manifests.toml_file import read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packaging.pylock import PackageSdist, PackageWheel

    from services.resolver.python.locks.model import LockRequest

ALGORITHMS = frozenset({"sha256", "sha384", "sha512"})
NOT_FOR_THIS = "it is for other environments than the sandbox's"


def read_pylock(path: str, raw: bytes, wanted: LockRequest) -> Lock:
    """The packages that apply to the sandbox and to what was asked for; raises ManifestError."""
    toml = read_toml(path, raw)
    tables = package_tables(toml, "packages")
    try:
        lock = Pylock.from_dict(toml.data)
    except (PylockValidationError, PylockUnsupportedVersionError, RecursionError) as error:
        reason = f"is not a pylock.toml: {str(error)[:200] or 'nested too deep'}"
        raise ManifestError(path=path, line=_line_of_error(error, tables), reason=reason) from error
    check_python(path, toml.line("requires-python"), lock.requires_python, wanted.request)
    environment: dict[str, Any] = {
        **wanted.request.environment(),
        "extras": frozenset(wanted.request.extras),
        "dependency_groups": frozenset((*(lock.default_groups or ()), *wanted.request.groups)),
    }
    pins = [
        _pin(path, line, package)
        for package, (_, line) in zip(lock.packages, tables, strict=True)
        if _applies(path, line, package.marker, environment) and not _is_own(package)
    ]
    covered = not lock.environments or any(
        _applies(path, 1, item, wanted.request.environment()) for item in lock.environments
    )
    return Lock(
        path=path,
        pins=one_of_each(path, _with_requirers(lock, pins)),
        extras=frozenset(str(canonicalize_name(name)) for name in lock.extras or ()),
        groups=frozenset(str(canonicalize_name(name)) for name in lock.dependency_groups or ()),
        unusable="" if covered else NOT_FOR_THIS,
        unusable_line=toml.line("environments"),
        tells_direct=any(package.dependencies for package in lock.packages),
    )


def _applies(path: str, line: int, marker: Marker | None, environment: Mapping[str, Any]) -> bool:
    if marker is None:
        return True
    try:
        return marker.evaluate(dict(environment), context="lock_file")
    except (UndefinedComparison, InvalidVersion, RecursionError) as error:
        raise ManifestError(path=path, line=line, reason=f"the marker {str(marker)[:80]!r} has no value") from error


def _is_own(package: Package) -> bool:
    """Whether it is the project itself, or another one of the workspace."""
    return package.directory is not None


def _pin(path: str, line: int, package: Package) -> Pin:
    if package.vcs is not None or package.archive is not None:
        raise ManifestError(path=path, line=line, reason=f"{package.name} {FROM_ELSEWHERE}")
    files = (*(package.wheels or ()), *((package.sdist,) if package.sdist else ()))
    listed = [_file(file) for file in files]
    hashes = [value for file in listed for value in file.hashes]
    if package.version is None:
        raise ManifestError(path=path, line=line, reason=f"{package.name} has no exact version")
    return pin_of(
        path, line, str(package.name), package.version, hashes, registry=package.index or "", files=plain_files(listed)
    )


def _file(file: PackageWheel | PackageSdist) -> LockedFile:
    name = file_name({"name": file.name, "url": file.url, "path": file.path})
    return LockedFile(name=name, hashes=tuple(f"{key}:{file.hashes[key]}" for key in ALGORITHMS & file.hashes.keys()))


def _with_requirers(lock: Pylock, pins: list[Pin]) -> list[Pin]:
    """The pins with who requires them, where the lock says it: by the names in `dependencies`."""
    requirers: dict[str, set[str]] = {}
    for package in lock.packages:
        for required in package.dependencies or ():
            name = required.get("name")
            if isinstance(name, str) and not _is_own(package):
                requirers.setdefault(str(canonicalize_name(name)), set()).add(str(package.name))
    kept = {pin.name for pin in pins}
    known = {pin.name: tuple(sorted(requirers.get(pin.name, set()) & kept)) for pin in pins}
    return [replace(pin, direct=not known[pin.name], required_by=known[pin.name]) for pin in pins]


def _line_of_error(error: Exception, tables: list[tuple[dict[str, Any], int]]) -> int:
    """The line of the package that a validation error names, as in `packages[3].name`."""
    text = str(getattr(error, "context", "") or "")
    number = text.partition("packages[")[2].partition("]")[0]
    return tables[int(number)][1] if number.isdigit() and int(number) < len(tables) else 1
