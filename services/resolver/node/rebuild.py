"""The package.json and package-lock.json from which npm installs what another lock holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from services.resolver.errors import LockError
from services.resolver.lockfile import lines_of_packages, read_qila_lock
from services.resolver.node.graph import place
from services.resolver.node.names import (
    MODULES,
    NAME,
    VERSION,
    directory_name,
    found_from,
    integrity_of,
    is_location,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.resolver.lockfile import QilaLock
    from services.resolver.model import LockedPackage
    from services.resolver.node.graph import Graph, Node

ECOSYSTEM = "node"
# What npm calls the project in its messages.
PROJECT = {"name": "project", "version": "0.0.0", "private": True}


def files_of_graph(graph: Graph) -> tuple[bytes, bytes]:
    """Each package where `place` puts it, each dependency with the exact version that the lock gave it."""
    required = graph.required()
    entries: dict[str, dict[str, Any]] = {}
    for location, key in place(graph).items():
        node = graph.nodes[key]
        entry = _entry(location, node.name, node.version, node.integrity)
        entry |= _wanted(node, graph)
        if key not in required:
            entry["optional"] = True
        entries[location] = entry
    return _files(_wanted(graph.root, graph), entries)


def files_of_qila_lock(content: bytes, name: str) -> tuple[bytes, bytes]:
    """The same tree again, from where the packages lay; raises LockError."""
    lock = read_qila_lock(content, name)
    if lock.ecosystem != ECOSYSTEM:
        raise LockError(name=name, line=1, reason=f"is a lock of {lock.ecosystem}, not of {ECOSYSTEM}")
    placed = _places(lock, content, name)
    by_purl = {package.purl: package for package in lock.packages}
    required: dict[str, list[LockedPackage]] = {}
    for package in lock.packages:
        for purl in package.required_by:
            required.setdefault(purl, []).append(package)
    entries = {}
    for location, package in placed.items():
        integrity = integrity_of(package.hashes)
        entry = _entry(location, package.name, package.version, integrity)
        entry |= {"dependencies": _edges(location, required.get(package.purl, []), placed)}
        if not integrity and f"/{MODULES}" in location:
            entry["inBundle"] = True
        entries[location] = {key: value for key, value in entry.items() if value}
    direct = [package for package in by_purl.values() if package.direct]
    return _files({"dependencies": _edges("", direct, placed)}, entries)


def _places(lock: QilaLock, content: bytes, name: str) -> dict[str, LockedPackage]:
    lines = lines_of_packages(content)
    placed: dict[str, LockedPackage] = {}
    for package in lock.packages:
        line = lines.get(package.purl, 0)
        if not NAME.fullmatch(package.name) or not VERSION.fullmatch(package.version):
            raise LockError(name=name, line=line, reason=f"{package.purl} is not a package of npm's registry")
        for location in package.locations or (MODULES + package.name,):
            if not is_location(location) or location in placed:
                raise LockError(name=name, line=line, reason=f"{package.purl} cannot lie in {location[:200]!r}")
            placed[location] = package
    for location, package in placed.items():
        above = location.rpartition(f"/{MODULES}")[0]
        if above and above not in placed:
            reason = f"{package.purl} lies in {above[:200]!r}, where no package of the lock is"
            raise LockError(name=name, line=lines.get(package.purl, 0), reason=reason)
    return dict(sorted(placed.items()))


def _edges(location: str, required: list[LockedPackage], placed: Mapping[str, LockedPackage]) -> dict[str, str]:
    """What a package at a location imports, by name, with the versions that it finds there."""
    found = {}
    for package in required:
        for place_of_it in package.locations or (MODULES + package.name,):
            name = directory_name(place_of_it)
            at = found_from(location, name, placed)
            if at is not None and placed[at] is package:
                found[name] = _exact(name, package.name, package.version)
    return dict(sorted(found.items()))


def _wanted(node: Node, graph: Graph) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, needs in (("dependencies", node.needs), ("optionalDependencies", node.optional)):
        exact = {
            name: _exact(name, graph.nodes[key].name, graph.nodes[key].version) for name, key in sorted(needs.items())
        }
        if exact:
            found[kind] = exact
    return found


def _exact(directory: str, name: str, version: str) -> str:
    return version if directory == name else f"npm:{name}@{version}"


def _entry(location: str, name: str, version: str, integrity: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"version": version}
    if directory_name(location) != name:
        entry["name"] = name
    if integrity:
        entry["integrity"] = integrity
    return entry


def _files(root: dict[str, Any], entries: Mapping[str, dict[str, Any]]) -> tuple[bytes, bytes]:
    root = {key: value for key, value in root.items() if value}
    lock = {"lockfileVersion": 3, "requires": True, "packages": {"": root, **dict(sorted(entries.items()))}}
    return to_json({**PROJECT, **root}), to_json(lock)


def to_json(document: object) -> bytes:
    """As npm writes its own files."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
