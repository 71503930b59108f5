"""`pyproject.toml`: the static dependencies of its `[project]` table (PEP 621)."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from services.resolver.errors import ManifestError
from services.resolver.python.manifests.requirements_file import Declared, parse_requirement
from services.resolver.python.manifests.text import decode_manifest

TOML_PLACE = re.compile(r"\(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)")
MAX_DEPENDENCIES = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """What a `[project]` table says about dependencies."""

    requirements: tuple[Declared, ...]
    dynamic: bool


def read_pyproject(path: str, raw: bytes, python: str) -> Project | None:
    """Read the manifest, or None if there is no `[project]` table.

    Raises ManifestError for what cannot be read, and if the project refuses the Python version that it will run on.
    """
    text = decode_manifest(path, raw)
    project = _parse(path, text).get("project")
    if project is None:
        return None
    if not isinstance(project, dict):
        raise ManifestError(path=path, line=line_of(text, "project"), reason="project must be a table")
    _check_python(path, text, project.get("requires-python"), python)
    dependencies = project.get("dependencies", [])
    line = line_of(text, "dependencies")
    if not isinstance(dependencies, list) or not all(isinstance(item, str) for item in dependencies):
        raise ManifestError(path=path, line=line, reason="project.dependencies must be a list of strings")
    if len(dependencies) > MAX_DEPENDENCIES:
        raise ManifestError(path=path, line=line, reason=f"more than {MAX_DEPENDENCIES} dependencies")
    dynamic = project.get("dynamic", [])
    return Project(
        requirements=tuple(_declared(path, text, item, line) for item in dependencies),
        dynamic=isinstance(dynamic, list) and "dependencies" in dynamic,
    )


def line_of(text: str, needle: str, start: int = 1) -> int:
    """The first line from `start` on that holds the text, or `start` if none does."""
    lines = text.splitlines()
    return next((number for number in range(start, len(lines) + 1) if needle in lines[number - 1]), start)


def _parse(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = TOML_PLACE.search(str(error))
        last = text.count("\n") + 1
        raise ManifestError(
            path=path,
            line=int(place["line"]) if place and place["line"] else last,
            column=int(place["column"]) if place and place["column"] else 0,
            reason=TOML_PLACE.sub("", str(error)).strip(),
        ) from error
    except RecursionError as error:
        depth_line = line_of(text, "[" * 50) if "[" * 50 in text else line_of(text, "{")
        reason = "is nested too deep; no manifest needs that"
        raise ManifestError(path=path, line=depth_line, reason=reason) from error


def _declared(path: str, text: str, item: str, start: int) -> Declared:
    line = line_of(text, item, start)
    return Declared(specifier=parse_requirement(path, line, item), hashes=(), path=path, line=line)


def _check_python(path: str, text: str, wanted: object, python: str) -> None:
    if wanted is None:
        return
    line = line_of(text, "requires-python")
    try:
        specifiers = SpecifierSet(str(wanted))
    except InvalidSpecifier as error:
        reason = f"requires-python is not a version specifier: {str(wanted)[:80]!r}"
        raise ManifestError(path=path, line=line, reason=reason) from error
    if python not in specifiers:
        reason = f"requires-python {str(wanted)[:80]!r} leaves out Python {python}, which the sandbox has"
        raise ManifestError(path=path, line=line, reason=reason)
