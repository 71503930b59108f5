"""What every lock says, in the same words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.markers import InvalidMarker, Marker
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from services.resolver.errors import ManifestError
from services.resolver.python.manifests.requirements_file import Declared, try_marker

if TYPE_CHECKING:
    from services.resolver.model import Notice
    from services.resolver.python.artefacts import LockedFile
    from services.resolver.python.manifests.request import Request
    from services.resolver.python.manifests.toml_file import TomlFile

MAX_PACKAGES = 10_000
MAX_VERSION_LENGTH = 200
HASH = re.compile(r"sha(256|384|512):[0-9a-f]{64,128}")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,200}[A-Za-z0-9])?")
FROM_ELSEWHERE = "comes from a URL or a version control system, which cannot be installed; lock a release of PyPI"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """One package of a lock and its line; `name` and the names in `required_by` are canonical.

    `files` are those that the lock lists by name; `registry` is the address of the index that it was locked from, where
    the lock says it.
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    line: int
    registry: str = ""
    direct: bool = True
    required_by: tuple[str, ...] = ()
    files: tuple[LockedFile, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """The pins that apply to the sandbox. `unusable` says, with a line, why they cannot be installed as they are.

    `extras` and `groups` are those that the lock knows, by canonical name. `tells_direct` is false of a lock that lists
    packages and not what requires them.
    """

    path: str
    pins: tuple[Pin, ...]
    extras: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    notices: tuple[Notice, ...] = ()
    unusable: str = ""
    unusable_line: int = 0
    tells_direct: bool = True

    @property
    def is_hashed(self) -> bool:
        """Whether each pin has a hash: then there is nothing to solve."""
        return all(pin.hashes for pin in self.pins)


@dataclass(frozen=True, kw_only=True, slots=True)
class LockRequest:
    """What a lock is read for: the sandbox, the extras and groups, and the manifest's requirements if there are any."""

    request: Request
    roots: Sequence[Declared] = ()


def pin_of(path: str, line: int, name: object, version: object, hashes: Sequence[object], **fields: Any) -> Pin:
    """A pin, checked: what a lock says ends up in an installer's input. Raises ManifestError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ManifestError(path=path, line=line, reason=f"not a package name: {str(name)[:80]!r}")
    try:
        exact = str(version)
        Version(exact[:MAX_VERSION_LENGTH])
    except InvalidVersion as error:
        raise ManifestError(path=path, line=line, reason=f"{name}: not a version: {str(version)[:80]!r}") from error
    if len(exact) > MAX_VERSION_LENGTH:
        raise ManifestError(path=path, line=line, reason=f"{name}: its version has {len(exact)} characters")
    for value in hashes:
        if not isinstance(value, str) or not HASH.fullmatch(value):
            reason = f"{name}: {str(value)[:80]!r} is no sha256, sha384 or sha512 hash"
            raise ManifestError(path=path, line=line, reason=reason)
    listed = tuple(sorted({str(value) for value in hashes}))
    return Pin(name=str(canonicalize_name(name)), version=exact, hashes=listed, line=line, **fields)


def marker_of(path: str, line: int, text: object) -> Marker | None:
    """A marker of a lock, None if there is none; raises ManifestError."""
    if not text:
        return None
    try:
        marker = Marker(str(text))
    except (InvalidMarker, RecursionError) as error:
        raise ManifestError(path=path, line=line, reason=f"not a marker: {str(text)[:80]!r}") from error
    try_marker(path, line, marker)
    return marker


def package_tables(toml: TomlFile, key: str) -> list[tuple[dict[str, Any], int]]:
    """The tables of an array of packages, each with its line; raises ManifestError."""
    packages = toml.get(key)
    if packages is None:
        return []
    if not isinstance(packages, list) or not all(isinstance(item, dict) for item in packages):
        raise toml.error(f"{key} must be an array of tables", key)
    if len(packages) > MAX_PACKAGES:
        raise toml.error(f"more than {MAX_PACKAGES} packages", key)
    lines = toml.header_lines.get((key,), [])
    exact = len(lines) == len(packages)
    return [(item, lines[place] if exact else toml.line(key)) for place, item in enumerate(packages)]


def one_of_each(path: str, pins: Sequence[Pin]) -> tuple[Pin, ...]:
    """The pins by name; raises ManifestError if two versions of one package apply."""
    found: dict[str, Pin] = {}
    for pin in pins:
        known = found.setdefault(pin.name, pin)
        if known.version != pin.version:
            reason = f"{pin.name} is locked as {known.version} (line {known.line}) and as {pin.version}"
            raise ManifestError(path=path, line=pin.line, reason=reason)
    return tuple(found[name] for name in sorted(found))
