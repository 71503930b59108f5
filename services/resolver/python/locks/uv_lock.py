"""`uv.lock`, and the lock that uv writes beside a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from services.resolver.errors import ManifestError
from services.resolver.model import Notice, NoticeKind
from services.resolver.python.artefacts import listed_files
from services.resolver.python.locks.graph import Edge, Node, reached
from services.resolver.python.locks.model import FROM_ELSEWHERE, Lock, marker_of, one_of_each, package_tables, pin_of
from services.resolver.python.manifests.project import check_python
from services.resolver.python.manifests.toml_file import read_toml

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.resolver.python.locks.model import LockRequest
    from services.resolver.python.manifests.toml_file import TomlFile

VERSION = 1
OWN_SOURCES = ("virtual", "editable", "directory")
CONFLICTS = "it declares extras or groups that exclude each other, which only uv can choose from"


def read_uv_lock(path: str, raw: bytes, wanted: LockRequest) -> Lock:
    """The pins that the project needs in the sandbox; raises ManifestError."""
    toml = read_toml(path, raw)
    if toml.get("version") != VERSION:
        raise toml.error(f"version must be {VERSION}; other formats of uv.lock are not read", "version")
    check_python(path, toml.line("requires-python"), toml.get("requires-python"), wanted.request)
    nodes: dict[str, list[Node]] = {}
    roots: list[tuple[Node, dict[str, Any], int]] = []
    for table, line in package_tables(toml, "package"):
        node = _node(path, table, line)
        nodes.setdefault(node.pin.name, []).append(node)
        if node.own:
            roots.append((node, table, line))
    main = [root for root in roots if "." in _source(root[1]).values()] or roots
    edges = [*_root_edges(path, main, wanted), *_manifest_edges(toml)]
    needed = reached(path, edges, nodes, wanted.request.environment())
    notices = []
    for node in needed:
        if node.elsewhere:
            raise ManifestError(path=path, line=node.pin.line, reason=f"{node.pin.name} {FROM_ELSEWHERE}")
        if node.own and not any(node.pin.name == root.pin.name for root, _, _ in main):
            notices.append(_own(path, node))
    return Lock(
        path=path,
        pins=one_of_each(path, [node.pin for node in needed if not node.own]),
        extras=_known(main, "optional-dependencies"),
        groups=_known(main, "dev-dependencies"),
        notices=tuple(notices),
        unusable=CONFLICTS if toml.get("conflicts") else "",
        unusable_line=toml.line("conflicts"),
    )


def _node(path: str, table: dict[str, Any], line: int) -> Node:
    source = _source(table)
    wheels = table.get("wheels")
    files = [table.get("sdist"), *(wheels if isinstance(wheels, list) else [])]
    hashes = [file["hash"] for file in files if isinstance(file, dict) and "hash" in file]
    own = any(key in source for key in OWN_SOURCES)
    registry = str(source.get("registry", ""))
    version = table.get("version", "0" if own else None)
    pin = pin_of(
        path, line, table.get("name"), version, [] if own else hashes, registry=registry, files=listed_files(files)
    )
    optional = table.get("optional-dependencies")
    return Node(
        pin=pin,
        edges=tuple(_edges(path, line, table.get("dependencies"))),
        extra_edges={
            str(canonicalize_name(name)): tuple(_edges(path, line, items))
            for name, items in (optional.items() if isinstance(optional, dict) else ())
        },
        elsewhere="" if own or "registry" in source else ", ".join(source),
        own=own,
    )


def _source(table: dict[str, Any]) -> dict[str, Any]:
    source = table.get("source")
    return source if isinstance(source, dict) else {}


def _edges(path: str, line: int, items: object) -> Iterable[Edge]:
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise ManifestError(path=path, line=line, reason="a dependency must be a table with a name")
        extras = item.get("extra")
        yield Edge(
            name=str(canonicalize_name(item["name"])),
            extras=tuple(str(canonicalize_name(str(extra))) for extra in extras) if isinstance(extras, list) else (),
            marker=marker_of(path, line, item.get("marker")),
            version=str(item.get("version", "")),
        )


def _root_edges(path: str, roots: Sequence[tuple[Node, dict[str, Any], int]], wanted: LockRequest) -> Iterable[Edge]:
    for node, table, line in roots:
        yield Edge(name=node.pin.name, version=node.pin.version, extras=wanted.request.extras)
        groups = table.get("dev-dependencies")
        for name, items in groups.items() if isinstance(groups, dict) else ():
            if str(canonicalize_name(name)) in wanted.request.groups:
                yield from _edges(path, line, items)


def _manifest_edges(toml: TomlFile) -> list[Edge]:
    """What a script's lock requires: it has no package of its own."""
    listed = toml.get("manifest", "requirements")
    return list(_edges(toml.path, toml.line("manifest", "requirements"), listed))


def _known(roots: Sequence[tuple[Node, dict[str, Any], int]], key: str) -> frozenset[str]:
    tables = (table.get(key) for _, table, _ in roots)
    return frozenset(
        str(canonicalize_name(name)) for table in tables for name in (table if isinstance(table, dict) else ())
    )


def _own(path: str, node: Node) -> Notice:
    detail = "it lies in the workspace: what it requires is installed, and it is imported from where it lies"
    kind = NoticeKind.LOCK_NOT_HONOURED
    return Notice(kind=kind, path=path, line=node.pin.line, subject=node.pin.name, detail=detail)
