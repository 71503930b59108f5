"""`poetry.lock`, of Poetry 1 and 2."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as ParsedRequirement
from packaging.utils import canonicalize_name

from services.resolver.errors import ManifestError
from services.resolver.python.artefacts import listed_files
from services.resolver.python.environment import UnreadableMarkerError, holds
from services.resolver.python.locks.graph import Edge, Node, reached
from services.resolver.python.locks.model import FROM_ELSEWHERE, Lock, marker_of, one_of_each, package_tables, pin_of
from services.resolver.python.manifests.poetry import allows
from services.resolver.python.manifests.project import left_out
from services.resolver.python.manifests.toml_file import read_toml

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from services.resolver.python.locks.model import LockRequest, Pin
    from services.resolver.python.manifests.toml_file import TomlFile

MAIN = "main"
MAX_EXTRAS_TRIED = 200


def read_poetry_lock(path: str, raw: bytes, wanted: LockRequest) -> Lock:
    """The pins that the manifest's requirements reach in the sandbox; raises ManifestError.

    Without a manifest, those of the main group and of the groups that were asked for.
    """
    toml = read_toml(path, raw)
    tables = package_tables(toml, "package")
    python = toml.get("metadata", "python-versions")
    if isinstance(python, str) and not allows(toml, python, wanted.request.python, "metadata", "python-versions"):
        wish, line = f"python-versions {python[:80]!r}", toml.line("metadata", "python-versions")
        raise left_out(path, line, wish, wanted.request.python, partial(allows, toml, python))
    nodes: dict[str, list[Node]] = {}
    names = {str(canonicalize_name(str(table.get("name")))) for table, _ in tables}
    # What is not in the lock at all has drifted, which is not for a reader to judge.
    roots = [edge for edge in _roots(wanted) if edge.name in names]
    for table, line in tables:
        if not _in_environment(toml, line, table, wanted):
            continue
        node = _node(toml, line, table, wanted)
        nodes.setdefault(node.pin.name, []).append(node)
        if not wanted.roots and _in_groups(table, wanted):
            roots.append(Edge(name=node.pin.name, version=node.pin.version))
    if not wanted.roots:
        roots += _extra_roots(toml, wanted, names)
    needed = reached(path, roots, nodes, wanted.request.environment())
    for node in needed:
        if node.elsewhere:
            raise ManifestError(path=path, line=node.pin.line, reason=f"{node.pin.name} {FROM_ELSEWHERE}")
    groups = {str(group) for table, _ in tables for group in _groups(table)}
    return Lock(
        path=path,
        pins=one_of_each(path, [_pin(node, wanted) for node in needed if not node.own]),
        extras=frozenset(str(canonicalize_name(name)) for name in toml.table("extras")),
        groups=frozenset(str(canonicalize_name(group)) for group in groups - {MAIN}),
    )


def _roots(wanted: LockRequest) -> Iterable[Edge]:
    for item in wanted.roots:
        extras = tuple(str(canonicalize_name(extra)) for extra in sorted(item.specifier.extras))
        yield Edge(name=str(canonicalize_name(item.specifier.name)), extras=extras, marker=item.specifier.marker)


def _extra_roots(toml: TomlFile, wanted: LockRequest, names: Container[str]) -> Iterable[Edge]:
    """What the extras list that were asked for, where no manifest says it."""
    for extra in toml.table("extras"):
        if str(canonicalize_name(extra)) in wanted.request.extras:
            listed = (str(canonicalize_name(name)) for name in toml.strings("extras", extra))
            yield from (Edge(name=name) for name in listed if name in names)


def _pin(node: Node, wanted: LockRequest) -> Pin:
    """The node's pin. Without a manifest, what nothing requires is direct."""
    return node.pin if wanted.roots else replace(node.pin, direct=not node.pin.required_by)


def _groups(table: dict[str, Any]) -> list[Any]:
    groups = table.get("groups", table.get("category", MAIN))
    return groups if isinstance(groups, list) else [groups]


def _in_groups(table: dict[str, Any], wanted: LockRequest) -> bool:
    asked = {MAIN, *wanted.request.groups}
    return not table.get("optional") and any(str(canonicalize_name(str(group))) in asked for group in _groups(table))


def _in_environment(toml: TomlFile, line: int, table: dict[str, Any], wanted: LockRequest) -> bool:
    """Whether the package's own markers hold: one for all groups, or one for each group, of which one is enough.

    A marker on an extra holds: whether the extra was asked for shows in what requires the package.
    """
    markers = table.get("markers", "")
    listed = list(markers.values()) if isinstance(markers, dict) else [markers]
    parsed = [marker_of(toml.path, line, text) for text in listed]
    environment = wanted.request.environment()
    extras = ("", *toml.table("extras"))[:MAX_EXTRAS_TRIED]
    try:
        return any(
            marker is None
            or any(
                holds(marker, {**environment, "extra": extra})
                for extra in (extras if "extra" in str(marker) else ("",))
            )
            for marker in parsed
        )
    except UnreadableMarkerError as error:
        reason = f"the marker {str(error)!r} has no value"
        raise ManifestError(path=toml.path, line=line, reason=reason) from error


def _node(toml: TomlFile, line: int, table: dict[str, Any], wanted: LockRequest) -> Node:
    files = table.get("files")
    if files is None:
        # Poetry before 1.3 kept the files of all packages in one table at the end.
        files = toml.table("metadata", "files").get(str(table.get("name")))
    listed = files if isinstance(files, list) else []
    hashes = [file["hash"] for file in listed if isinstance(file, dict) and "hash" in file]
    source = table.get("source")
    kind = str(source.get("type", "")) if isinstance(source, dict) else ""
    registry = str(source.get("url", "")) if isinstance(source, dict) and kind in {"legacy", ""} else ""
    own = kind == "directory"
    pin = pin_of(
        toml.path,
        line,
        table.get("name"),
        table.get("version"),
        [] if own else hashes,
        registry=registry,
        files=listed_files(listed),
    )
    plain, by_name = _edges(toml, line, table, wanted)
    return Node(
        pin=pin,
        edges=tuple(plain),
        extra_edges=_extra_edges(toml.path, line, table, by_name),
        elsewhere="" if kind in {"", "legacy", "directory"} else kind,
        own=own,
    )


def _edges(
    toml: TomlFile, line: int, table: dict[str, Any], wanted: LockRequest
) -> tuple[list[Edge], dict[str, list[Edge]]]:
    """What a package always requires, and all that it may require, by name."""
    dependencies = table.get("dependencies")
    plain: list[Edge] = []
    by_name: dict[str, list[Edge]] = {}
    for name, value in dependencies.items() if isinstance(dependencies, dict) else ():
        for item in value if isinstance(value, list) else [value]:
            fields = item if isinstance(item, dict) else {}
            python = fields.get("python")
            if isinstance(python, str) and not allows(toml, python, wanted.request.python, "package"):
                continue
            edge = Edge(
                name=str(canonicalize_name(name)),
                extras=_extras(toml.path, line, fields.get("extras", [])),
                marker=marker_of(toml.path, line, fields.get("markers")),
            )
            by_name.setdefault(edge.name, []).append(edge)
            if not fields.get("optional"):
                plain.append(edge)
    return plain, by_name


def _extras(path: str, line: int, listed: object) -> tuple[str, ...]:
    if not isinstance(listed, list):
        raise ManifestError(path=path, line=line, reason="the extras of a dependency must be a list")
    return tuple(str(canonicalize_name(str(extra))) for extra in listed)


def _extra_edges(
    path: str, line: int, table: dict[str, Any], by_name: dict[str, list[Edge]]
) -> dict[str, tuple[Edge, ...]]:
    listed = table.get("extras")
    found: dict[str, tuple[Edge, ...]] = {}
    for extra, items in listed.items() if isinstance(listed, dict) else ():
        edges: list[Edge] = []
        for item in items if isinstance(items, list) else ():
            # "PySocks (>=1.5.6,!=1.5.7)", with an extra of the package itself as "name[other]".
            text = str(item).partition(";")[0].partition(" ")[0]
            try:
                name = str(canonicalize_name(ParsedRequirement(text).name))
            except (InvalidRequirement, RecursionError) as error:
                raise ManifestError(path=path, line=line, reason=f"not a requirement: {str(item)[:80]!r}") from error
            edges += by_name.get(name, [])
        found[str(canonicalize_name(extra))] = tuple(edges)
    return found
