"""`environment.yml`: its pip section, and the conda packages that a program imports by the same name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as ParsedRequirement

from services.resolver.errors import ManifestError
from services.resolver.python.manifests.requirements_file import COMMENT, Declarations, Declared, RequirementsReader
from services.resolver.python.manifests.text import decode_manifest

if TYPE_CHECKING:
    from services.resolver.python.manifests.request import Request

# The parser in C is a hundred times as fast; it recurses while it composes, so the depth is checked before.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
# What every sandbox has already.
PROVIDED = frozenset({"python", "pip", "setuptools", "wheel"})
# name, version and build, with any channel before them; a version of one `=` is a prefix.
ENTRY = re.compile(
    r"(?:\S+::)?(?P<name>[A-Za-z0-9_][\w.-]*)\s*(?P<version>[=<>!~][^\s=]*(?:=[^\s=<>]+)?)?(?P<build>=\S*)?"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CondaEnvironment:
    """What the pip section declares, and the conda packages: as requirements, or by name if that is not possible."""

    pip: Declarations
    packages: tuple[Declared, ...]
    others: tuple[tuple[str, int], ...]


def read_conda(path: str, request: Request) -> CondaEnvironment:
    """Read the file; raises ManifestError with the line."""
    reader = RequirementsReader(request)
    packages: list[Declared] = []
    others: list[tuple[str, int]] = []
    reader.found.paths.append(path)
    for node in _dependencies(path, request.files[path]):
        line = _line(node)
        if isinstance(node, yaml.MappingNode):
            for entry in _pip_entries(path, node):
                text = COMMENT.sub("", entry.value).strip()
                reader.read_line(path, _line(entry), text, chain=(path,))
            continue
        if not isinstance(node, yaml.ScalarNode):
            raise ManifestError(path=path, line=line, reason="a dependency must be a name, or a pip section")
        declared = _declared(path, line, node.value)
        if declared is None:
            others.append((node.value[:80], line))
        elif declared.specifier.name.lower() not in PROVIDED:
            packages.append(declared)
    return CondaEnvironment(pip=reader.found, packages=tuple(packages), others=tuple(others))


def _declared(path: str, line: int, text: str) -> Declared | None:
    """A conda package as a requirement, or None if its version has no such form."""
    match = ENTRY.fullmatch(text.strip())
    if match is None:
        return None
    version = match["version"] or ""
    if version.startswith("=") and not version.startswith("=="):
        # `name=1.2=build` is exact, and `name=1.2` stands for all of 1.2.
        number, _, build = version[1:].partition("=")
        version = f"=={number}" if build or number.endswith("*") else f"=={number}.*"
    try:
        return Declared(specifier=ParsedRequirement(match["name"] + version), hashes=(), path=path, line=line)
    except InvalidRequirement:
        return None


def _pip_entries(path: str, node: yaml.MappingNode) -> list[yaml.ScalarNode]:
    entries: list[yaml.ScalarNode] = []
    for key, value in node.value:
        line = _line(key)
        if key.value != "pip" or not isinstance(value, yaml.SequenceNode):
            raise ManifestError(path=path, line=line, reason="only a pip section, a list, can stand here")
        for entry in value.value:
            if not isinstance(entry, yaml.ScalarNode):
                raise ManifestError(path=path, line=_line(entry), reason="must be a requirement")
            entries.append(entry)
    return entries


def _dependencies(path: str, raw: bytes) -> list[yaml.Node]:
    root = _compose(path, raw)
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise ManifestError(path=path, line=1, reason="must be a mapping with dependencies")
    for key, value in root.value:
        if key.value != "dependencies":
            continue
        if not isinstance(value, yaml.SequenceNode):
            raise ManifestError(path=path, line=_line(key), reason="dependencies must be a list")
        nodes: list[yaml.Node] = value.value
        return nodes
    return []


def _compose(path: str, raw: bytes) -> yaml.Node | None:
    """The tree of nodes. Aliases are refused, so that it is no larger than the text."""
    if len(raw) > MAX_BYTES:
        raise ManifestError(path=path, reason=f"{len(raw)} bytes is above the limit of {MAX_BYTES}")
    text = decode_manifest(path, raw)
    try:
        _check_events(path, text)
        node: yaml.Node | None = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        reason = f"is not YAML: {error.problem}"
        raise ManifestError(path=path, line=line, column=column, reason=reason) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ManifestError(path=path, reason=f"is not YAML: {str(error).splitlines()[0][:200]}") from error
    return node


def _check_events(path: str, text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            raise ManifestError(path=path, line=line, reason="aliases are not read; write the entry out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ManifestError(path=path, line=line, reason="is nested too deep; no manifest needs that")


def _line(place: yaml.Node | yaml.Event) -> int:
    return place.start_mark.line + 1 if place.start_mark else 0
