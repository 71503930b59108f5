"""`pyproject.toml`: the `[project]` table (PEP 621), dependency groups (PEP 735), and what tools keep in their own."""

from __future__ import annotations

import posixpath
from functools import partial
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from services.resolver.python.manifests import poetry
from services.resolver.python.manifests.groups import group_requirements
from services.resolver.python.manifests.project import Choice, Project, check_python
from services.resolver.python.manifests.requirements_file import Declared, RequirementsReader, parse_requirement
from services.resolver.python.manifests.settings import toml_settings
from services.resolver.python.manifests.toml_file import TomlFile, read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.resolver.python.manifests.request import Request

DEPENDENCIES = "dependencies"
OPTIONAL = "optional-dependencies"
SETUPTOOLS = ("tool", "setuptools", "dynamic")
PDM_GROUPS = ("tool", "pdm", "dev-dependencies")
UV_GROUP = ("tool", "uv", "dev-dependencies")
UV_CONSTRAINTS = ("tool", "uv", "constraint-dependencies")


def read_pyproject(path: str, request: Request) -> Project | None:
    """Read the manifest, or None if it says nothing about dependencies.

    Raises ManifestError for what cannot be read, and if the project refuses the Python version that it will run on.
    """
    toml = read_toml(path, request.files[path])
    project = toml.table("project")
    groups = _groups(toml, request)
    if toml.get("project") is None and toml.get(*poetry.TABLE) is None and not groups:
        return None
    if project:
        line = toml.line("project", "requires-python")
        check_python(path, line, project.get("requires-python"), request)
    name = project.get("name") or toml.table(*poetry.TABLE).get("name") or ""
    reader = _DynamicReader(toml, request)
    requirements, dynamic = _dependencies(toml, reader, request)
    constraints = declared_list(toml, *UV_CONSTRAINTS)
    return Project(
        path=path,
        name=str(canonicalize_name(name)) if isinstance(name, str) else "",
        requirements=tuple(requirements),
        extras=_extras(toml, reader, request),
        groups=groups,
        constraints=(*constraints, *reader.lines.found.constraints),
        notices=(*toml_settings(toml, request), *reader.lines.found.notices),
        files=(path, *reader.lines.found.paths),
        dynamic=dynamic,
    )


class _DynamicReader:
    """Reads the requirements files that setuptools would read when it builds the project."""

    def __init__(self, toml: TomlFile, request: Request) -> None:
        self.lines = RequirementsReader(request)
        self._toml = toml

    def read(self, *keys: str) -> list[Declared]:
        """The requirements in the files that a `file` key names; raises ManifestError."""
        value = self._toml.table(*keys).get("file")
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._toml.error(f"{'.'.join(keys)} must be a table with file, a list of paths", *keys)
        line = self._toml.line(*keys)
        before = len(self.lines.found.requirements)
        for name in names:
            option = f"-r {posixpath.normpath(name)}"
            self.lines.read_line(self._toml.path, line, option)
        return self.lines.found.requirements[before:]


def declared_list(toml: TomlFile, *keys: str) -> list[Declared]:
    """The requirements in a list of strings; raises ManifestError."""
    start = toml.line(*keys)
    found = []
    for text in toml.strings(*keys):
        line = toml.line_of_string(text, start)
        found.append(Declared(specifier=parse_requirement(toml.path, line, text), hashes=(), path=toml.path, line=line))
    return found


def _dependencies(toml: TomlFile, reader: _DynamicReader, request: Request) -> tuple[list[Declared], bool]:
    """The dependencies, and whether they are computed when the project is built."""
    if toml.get("project", DEPENDENCIES) is not None:
        return declared_list(toml, "project", DEPENDENCIES), False
    dynamic = toml.get("project", "dynamic")
    is_dynamic = isinstance(dynamic, list) and DEPENDENCIES in dynamic
    if is_dynamic and toml.get(*SETUPTOOLS, DEPENDENCIES) is not None:
        return reader.read(*SETUPTOOLS, DEPENDENCIES), False
    if toml.get(*poetry.TABLE, DEPENDENCIES) is not None:
        return poetry.main_requirements(toml, request), False
    return [], is_dynamic


def _extras(toml: TomlFile, reader: _DynamicReader, request: Request) -> Mapping[str, Choice]:
    choices: dict[str, Choice] = dict(poetry.extras(toml, request))
    for name in toml.table(*SETUPTOOLS, OPTIONAL):
        choices[str(canonicalize_name(name))] = partial(reader.read, *SETUPTOOLS, OPTIONAL, name)
    for name in toml.table("project", OPTIONAL):
        choices[str(canonicalize_name(name))] = partial(declared_list, toml, "project", OPTIONAL, name)
    return choices


def _groups(toml: TomlFile, request: Request) -> Mapping[str, Choice]:
    choices: dict[str, Choice] = dict(poetry.groups(toml, request))
    if toml.get(*UV_GROUP) is not None:
        choices["dev"] = partial(declared_list, toml, *UV_GROUP)
    for name in toml.table(*PDM_GROUPS):
        choices[str(canonicalize_name(name))] = partial(declared_list, toml, *PDM_GROUPS, name)
    for name in toml.table("dependency-groups"):
        choices[str(canonicalize_name(name))] = partial(group_requirements, toml, str(canonicalize_name(name)))
    return choices
