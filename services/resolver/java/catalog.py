"""Version catalogs: the names that a Gradle build gives to its dependencies."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.resolver.errors import ManifestError
from services.resolver.java.coordinates import Coordinate, is_valid, parse_coordinate
from services.resolver.java.gradle_versions import plain_version

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "gradle/libs.versions.toml"
MAX_ENTRIES = 5_000
SEPARATORS = re.compile(r"[-_]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """What the accessors below `libs` stand for: `a.b` for libraries, and so on."""

    libraries: Mapping[str, Coordinate] = field(default_factory=dict)
    bundles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def read_catalog(path: str, content: bytes) -> Catalog:
    """Read a catalog; raises ManifestError, with the line where TOML itself is broken or an entry is."""
    document = _parse(path, content)
    versions = {accessor(name): _version(value) for name, value in _table(path, document, "versions").items()}
    libraries = {
        accessor(name): _library(path, content, name, value, versions)
        for name, value in _table(path, document, "libraries").items()
    }
    bundles = {
        accessor(name): tuple(accessor(str(item)) for item in value) if isinstance(value, list) else ()
        for name, value in _table(path, document, "bundles").items()
    }
    plugins = {accessor(name): _plugin(value, versions) for name, value in _table(path, document, "plugins").items()}
    return Catalog(libraries=libraries, bundles=bundles, versions=versions, plugins=plugins)


def accessor(name: str) -> str:
    """An alias as a build script writes it."""
    return SEPARATORS.sub(".", name)


def _parse(path: str, content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ManifestError(path=path, reason="is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line, column = (int(match[1]), int(match[2])) if match else (0, 0)
        reason = f"is not TOML: {str(error).partition(' (at ')[0]}"
        raise ManifestError(path=path, reason=reason, line=line, column=column) from error
    except RecursionError as error:
        raise ManifestError(path=path, reason="is nested too deep") from error


def _table(path: str, document: dict[str, Any], name: str) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict) or len(table) > MAX_ENTRIES:
        raise ManifestError(path=path, reason=f"[{name}] must be a table of at most {MAX_ENTRIES} entries")
    return table


def _version(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("strictly") or value.get("require") or value.get("prefer") or ""
    return plain_version(value) if isinstance(value, str) else ""


def _library(path: str, content: bytes, name: str, value: Any, versions: Mapping[str, str]) -> Coordinate:
    found = None
    if isinstance(value, str):
        group, artifact, version = (*value.split(":"), "", "", "")[:3]
        found = Coordinate(group=group, artifact=artifact, version=plain_version(version))
    elif isinstance(value, dict):
        named = parse_coordinate(str(value.get("module", "")))
        group, artifact = (named.group, named.artifact) if named else (value.get("group", ""), value.get("name", ""))
        found = Coordinate(group=str(group), artifact=str(artifact), version=_referred(value.get("version"), versions))
    if found is None or not is_valid(found):
        reason = (
            f"the library {name[:80]!r} is not written as a catalog has it: module or group and name, and a version"
        )
        raise ManifestError(path=path, reason=reason, line=_line_of(content, name))
    return found


def _plugin(value: Any, versions: Mapping[str, str]) -> tuple[str, str]:
    if isinstance(value, str):
        name, _, version = value.partition(":")
        return name, version
    if isinstance(value, dict):
        return str(value.get("id", "")), _referred(value.get("version"), versions)
    return "", ""


def _referred(value: Any, versions: Mapping[str, str]) -> str:
    if isinstance(value, dict) and isinstance(value.get("ref"), str):
        return versions.get(accessor(value["ref"]), "")
    return _version(value) if value is not None else ""


def _line_of(content: bytes, name: str) -> int:
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        if line.lstrip().strip("\"'").startswith(name):
            return number
    return 0
