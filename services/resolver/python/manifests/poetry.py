"""Poetry's own table in `pyproject.toml`, and its notation of versions."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from services.resolver.python.environment import UnreadableMarkerError, parse_marker
from services.resolver.python.manifests.project import left_out
from services.resolver.python.manifests.requirements_file import NO_URL, Declared, parse_requirement, try_marker
from services.resolver.python.manifests.toml_file import MAX_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.resolver.errors import ManifestError
    from services.resolver.python.manifests.project import Choice
    from services.resolver.python.manifests.request import Request
    from services.resolver.python.manifests.toml_file import TomlFile

TABLE = ("tool", "poetry")
DEPENDENCIES = "dependencies"
PYTHON = "python"
ELSEWHERE = ("git", "url", "path", "file", "hg", "svn")
MAX_CONSTRAINT_LENGTH = 500
RELEASE = re.compile(r"v?(?P<release>\d+(?:\.\d+)*)(?P<rest>[^*]*)")
OPERATOR = re.compile(r"(?P<operator>\^|~=|~|===|==|!=|<=|>=|<|>|=)?\s*(?P<version>.*)")
SPACE_AFTER_OPERATOR = re.compile(r"(?<=[\^~<>=!])\s+")
SEPARATOR = re.compile(r"[,\s]+")


def main_requirements(toml: TomlFile, request: Request) -> list[Declared]:
    """What is always installed; raises ManifestError, also if the project refuses the sandbox's Python."""
    python = toml.get(*TABLE, DEPENDENCIES, PYTHON)
    if isinstance(python, str) and not allows(toml, python, request.python, *TABLE, DEPENDENCIES, PYTHON):
        wish, line = f"python {python[:80]!r}", toml.line(*TABLE, DEPENDENCIES, PYTHON)
        raise left_out(toml.path, line, wish, request.python, partial(allows, toml, python))
    return _section(toml, request, *TABLE, DEPENDENCIES)


def extras(toml: TomlFile, request: Request) -> Mapping[str, Choice]:
    """The extras by canonical name: each lists names of optional dependencies."""
    return {str(canonicalize_name(name)): partial(_extra, toml, request, name) for name in toml.table(*TABLE, "extras")}


def groups(toml: TomlFile, request: Request) -> Mapping[str, Choice]:
    """The dependency groups by canonical name; the old `dev-dependencies` are the group dev."""
    choices: dict[str, Choice] = {}
    if toml.get(*TABLE, "dev-dependencies") is not None:
        choices["dev"] = partial(_section, toml, request, *TABLE, "dev-dependencies")
    for name in toml.table(*TABLE, "group"):
        keys = (*TABLE, "group", name, DEPENDENCIES)
        choices[str(canonicalize_name(name))] = partial(_section, toml, request, *keys)
    return choices


def allows(toml: TomlFile, constraint: str, python: str, *keys: str) -> bool:
    """Whether a constraint on Python, which may name alternatives, holds; raises ManifestError."""
    try:
        return any(python in SpecifierSet(specifier(part)) for part in re.split(r"\|\|?", constraint))
    except (ValueError, InvalidSpecifier) as error:
        raise toml.error(f"not a constraint on Python: {constraint[:80]!r}", *keys) from error


def specifier(constraint: str) -> str:
    """A constraint in Poetry's notation as a version specifier; raises ValueError."""
    if len(constraint) > MAX_CONSTRAINT_LENGTH:
        raise ValueError("it is too long")
    if "|" in constraint:
        raise ValueError("alternatives (||) cannot be installed as they are; name one range")
    parts = SEPARATOR.split(SPACE_AFTER_OPERATOR.sub("", constraint.strip()))
    return ",".join(text for part in parts if (text := _part(part)))


def _part(part: str) -> str:
    match = OPERATOR.fullmatch(part)
    operator, version = (match["operator"] or "", match["version"]) if match else ("", part)
    if version in {"", "*"}:
        return ""
    if operator in {"^", "~"}:
        return _range(operator, version)
    return f"{'==' if operator in {'', '='} else operator}{version}"


def _range(operator: str, version: str) -> str:
    """The bounds that a caret or a tilde stands for."""
    match = RELEASE.fullmatch(version)
    if match is None:
        raise ValueError(f"not a version: {version[:40]!r}")
    numbers = [int(number[:18]) for number in match["release"].split(".")]
    if operator == "^":
        kept = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)
    else:
        kept = min(1, len(numbers) - 1)
    upper = [*numbers[:kept], numbers[kept] + 1]
    return f">={version.removeprefix('v')},<{'.'.join(str(number) for number in upper)}"


def _extra(toml: TomlFile, request: Request, name: str) -> list[Declared]:
    keys = (*TABLE, DEPENDENCIES)
    spelled = {str(canonicalize_name(key)): key for key in toml.table(*keys)}
    found: list[Declared] = []
    for wanted in toml.strings(*TABLE, "extras", name):
        key = spelled.get(str(canonicalize_name(wanted.strip())))
        if key is None:
            reason = f"the extra {name[:80]} names {wanted[:80]!r}, which is no dependency"
            raise toml.error(reason, *TABLE, "extras", name)
        found += _entry(toml, request, keys, key, toml.get(*keys, key), with_optional=True)
    return found


def _section(toml: TomlFile, request: Request, *keys: str) -> list[Declared]:
    table = toml.table(*keys)
    if len(table) > MAX_ENTRIES:
        raise toml.error(f"{'.'.join(keys)} has more than {MAX_ENTRIES} entries", *keys)
    found: list[Declared] = []
    for name, value in table.items():
        if name.lower() != PYTHON:
            found += _entry(toml, request, keys, name, value, with_optional=False)
    return found


def _entry(
    toml: TomlFile, request: Request, keys: tuple[str, ...], name: str, value: Any, *, with_optional: bool
) -> list[Declared]:
    """The requirements behind one key: a version, a table, or a list of tables for different circumstances."""
    found: list[Declared] = []
    for item in value if isinstance(value, list) else [value]:
        fields = {"version": item} if isinstance(item, str) else item
        if not isinstance(fields, dict):
            raise toml.error(f"{name[:80]} must be a version or a table", *keys, name)
        if fields.get("optional") and not with_optional:
            continue
        python = fields.get("python")
        if isinstance(python, str) and not allows(toml, python, request.python, *keys, name):
            continue
        found.append(_requirement(toml, keys, name, fields))
    return found


def _requirement(toml: TomlFile, keys: tuple[str, ...], name: str, fields: Mapping[str, Any]) -> Declared:
    line = toml.line(*keys, name)
    if any(key in fields for key in ELSEWHERE):
        raise toml.error(f"{name[:80]}: {NO_URL}", *keys, name)
    version, wanted, markers = fields.get("version", "*"), fields.get("extras", []), _markers(fields)
    if not isinstance(version, str) or not isinstance(markers, str) or not isinstance(wanted, list):
        raise toml.error(f"{name[:80]}: version and markers must be strings, extras a list", *keys, name)
    try:
        brackets = f"[{','.join(str(extra) for extra in wanted)}]" if wanted else ""
        text = f"{name}{brackets}{specifier(version)}"
        marker = parse_marker(markers) if markers else None
    except UnreadableMarkerError as error:
        raise toml.error(f"{name[:80]}: not a marker: {str(error)!r}", *keys, name) from error
    except (ValueError, RecursionError) as error:
        raise _refusal(toml, keys, name, error) from error
    parsed = parse_requirement(toml.path, line, text)
    if marker is not None:
        try_marker(toml.path, line, marker)
        parsed.marker = marker
    return Declared(specifier=parsed, hashes=(), path=toml.path, line=line)


def _markers(fields: Mapping[str, Any]) -> Any:
    markers, platform = fields.get("markers", ""), fields.get("platform", "")
    if not platform or not isinstance(markers, str):
        return markers
    of_platform = f"sys_platform == '{platform}'"
    return f"({markers}) and {of_platform}" if markers else of_platform


def _refusal(toml: TomlFile, keys: tuple[str, ...], name: str, error: Exception) -> ManifestError:
    words = (str(error).splitlines() or ["nested too deep"])[0]
    return toml.error(f"{name[:80]}: {words[:200]}", *keys, name)
