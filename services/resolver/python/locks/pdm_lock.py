"""`pdm.lock`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as ParsedRequirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from services.resolver.errors import ManifestError
from services.resolver.python.artefacts import listed_files
from services.resolver.python.locks.model import FROM_ELSEWHERE, Lock, Pin, marker_of, one_of_each, package_tables
from services.resolver.python.locks.model import pin_of as checked_pin
from services.resolver.python.manifests.toml_file import read_toml

if TYPE_CHECKING:
    from services.resolver.python.locks.model import LockRequest
    from services.resolver.python.manifests.toml_file import TomlFile

DEFAULT = "default"
ELSEWHERE = ("git", "hg", "svn", "bzr", "url")
NOT_FOR_THIS = "its targets leave out the sandbox's Python or platform"
WITHOUT_GROUPS = "it does not say which package belongs to which group; lock with the strategy inherit_metadata"


def read_pdm_lock(path: str, raw: bytes, wanted: LockRequest) -> Lock:
    """The pins of the default group and of those that were asked for; raises ManifestError."""
    toml = read_toml(path, raw)
    tables = package_tables(toml, "package")
    asked = {DEFAULT, *wanted.request.groups, *wanted.request.extras}
    pins: list[Pin] = []
    for table, line in tables:
        groups = {str(canonicalize_name(str(group))) for group in _list(table.get("groups"))}
        marker = marker_of(path, line, table.get("marker"))
        if (groups & asked or "groups" not in table) and wanted.request.applies(marker) and "path" not in table:
            pins.append(_pin(path, line, table))
    known = {str(canonicalize_name(group)) for group in toml.strings("metadata", "groups")}
    named = bool(tables) and not any("groups" in table for table, _ in tables) and bool(known - {DEFAULT})
    unusable = WITHOUT_GROUPS if named else "" if _covers(toml, wanted) else NOT_FOR_THIS
    return Lock(
        path=path,
        pins=one_of_each(path, sorted(_with_requirers(path, tables, pins), key=lambda pin: not pin.hashes)),
        extras=frozenset(known - {DEFAULT}),
        groups=frozenset(known - {DEFAULT}),
        unusable=unusable,
        unusable_line=toml.line("metadata"),
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _pin(path: str, line: int, table: dict[str, Any]) -> Pin:
    if any(key in table for key in ELSEWHERE):
        raise ManifestError(path=path, line=line, reason=f"{str(table.get('name'))[:80]} {FROM_ELSEWHERE}")
    files = _list(table.get("files"))
    hashes = [file["hash"] for file in files if isinstance(file, dict) and "hash" in file]
    return checked_pin(path, line, table.get("name"), table.get("version"), hashes, files=listed_files(files))


def _with_requirers(path: str, tables: list[tuple[dict[str, Any], int]], pins: list[Pin]) -> list[Pin]:
    """The pins with who requires them among them."""
    kept = {pin.name for pin in pins}
    requirers: dict[str, set[str]] = {}
    for table, line in tables:
        owner = str(canonicalize_name(str(table.get("name"))))
        for text in _list(table.get("dependencies")):
            name = _name(path, line, text)
            if owner in kept and name != owner:
                requirers.setdefault(name, set()).add(owner)
    return [
        replace(pin, direct=pin.name not in requirers, required_by=tuple(sorted(requirers.get(pin.name, ()))))
        for pin in pins
    ]


def _name(path: str, line: int, text: object) -> str:
    try:
        return str(canonicalize_name(ParsedRequirement(str(text)).name))
    except (InvalidRequirement, RecursionError) as error:
        raise ManifestError(path=path, line=line, reason=f"not a requirement: {str(text)[:80]!r}") from error


def _covers(toml: TomlFile, wanted: LockRequest) -> bool:
    targets = [target for target in _list(toml.get("metadata", "targets")) if isinstance(target, dict)]
    return not targets or any(_fits(toml, target, wanted.request.python) for target in targets)


def _fits(toml: TomlFile, target: dict[str, Any], python: str) -> bool:
    platform = str(target.get("platform", "*"))
    try:
        versions = SpecifierSet(str(target.get("requires_python", "")))
    except InvalidSpecifier as error:
        raise toml.error("metadata.targets: requires_python is not a version specifier", "metadata") from error
    return python in versions and (platform == "*" or "linux" in platform)
