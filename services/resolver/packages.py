"""Packages of locks: the parts of their purls, and several entries for one package as one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.resolver.model import LockedPackage

NO_ASSERTION = "NOASSERTION"


class Told(Protocol):
    """What a lock tells about a package, as the core or as a message of the wire."""

    @property
    def version(self) -> str:
        """As the ecosystem writes it."""

    @property
    def hashes(self) -> Sequence[str]:
        """Empty if the lock holds none."""

    @property
    def license(self) -> str:
        """An SPDX expression, or NOASSERTION."""

    @property
    def license_text(self) -> str:
        """The package's own words, where they are no SPDX expression."""


def split_purl(purl: str) -> tuple[str, str]:
    """A purl without its version, and the version as it is written there. Qualifiers stay with the first part."""
    body, mark, rest = purl.partition("?")
    name, at, version = body.rpartition("@")
    # An "@" in front of the last "/" belongs to a scope that was not quoted.
    return (name + mark + rest, version) if at and "/" not in version else (purl, "")


def version_of_purl(purl: str) -> str:
    """The version in a purl; empty if it has none."""
    return unquote(split_purl(purl)[1])


def name_of_purl(purl: str) -> tuple[str, str]:
    """The namespace, which may be empty, and the name in a purl."""
    path = split_purl(purl)[0].partition("?")[0].partition("#")[0]
    namespace, _, name = path.partition("/")[2].rpartition("/")
    return unquote(namespace), unquote(name)


def license_told(package: Told) -> str:
    """The licence's expression, else the package's own words; empty if neither is known."""
    return package.license_text if package.license in {"", NO_ASSERTION} else package.license


def merged_packages(packages: Iterable[LockedPackage]) -> list[LockedPackage]:
    """One entry for each package and version, in order of purl, whatever the order of the given ones."""
    merged: dict[tuple[str, str], LockedPackage] = {}
    for package in sorted(packages, key=lambda item: (item.purl, item.license, item.license_text, item.hashes)):
        key = (split_purl(package.purl)[0], package.version)
        known = merged.get(key)
        merged[key] = _together(known, package) if known else package
    return list(merged.values())


def _together(one: LockedPackage, other: LockedPackage) -> LockedPackage:
    told = one if license_told(one) else other
    return replace(
        one,
        hashes=tuple(sorted({*one.hashes, *other.hashes})),
        license=told.license,
        license_text=told.license_text,
        direct=one.direct or other.direct,
        required_by=tuple(sorted({*one.required_by, *other.required_by})),
    )
