"""The locks that projects bring: which tool's a lock is, what it pins, and whether it agrees with the manifest."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from services.resolver.errors import LockError, ManifestError
from services.resolver.licenses import NO_ASSERTION
from services.resolver.lockfile import is_qila_lock, lines_of_packages, read_qila_lock
from services.resolver.model import LockedPackage, LockLine
from services.resolver.node.graph import Graph
from services.resolver.node.json_text import has_lone_surrogate
from services.resolver.node.licenses import license_of
from services.resolver.node.names import MODULES, found_from, hashes_of, purl_of
from services.resolver.node.npm_lock import MAX_LOCK_BYTES, read_npm_lock, root_ranges
from services.resolver.node.pnpm_lock import PnpmLock
from services.resolver.node.yarn_lock import read_yarn_lock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.resolver.model import Lockfile
    from services.resolver.node.npm_lock import NpmLock


class LockKind(StrEnum):
    """Who wrote a lock."""

    NPM = "npm"
    YARN = "yarn"
    PNPM = "pnpm"
    QILA = "qila"


FILES = {
    "package-lock.json": LockKind.NPM,
    "npm-shrinkwrap.json": LockKind.NPM,
    "yarn.lock": LockKind.YARN,
    "pnpm-lock.yaml": LockKind.PNPM,
}
HEAD_BYTES = 4096


def kind_of(lockfile: Lockfile) -> LockKind | None:
    """Whose lock this is, by its name or else its bytes; None if it is none that is known."""
    named = FILES.get(lockfile.name.rpartition("/")[2])
    if named is not None:
        return named
    if is_qila_lock(lockfile):
        return LockKind.QILA
    head = lockfile.content[:HEAD_BYTES].decode("utf-8", "replace").lstrip("\ufeff")
    if head.lstrip().startswith("{"):
        return LockKind.NPM if '"lockfileVersion"' in head else None
    if "# yarn lockfile v1" in head or re.search(r"^__metadata:", head, re.MULTILINE):
        return LockKind.YARN
    return LockKind.PNPM if re.match(r"\s*lockfileVersion:", head) else None


def reads_lock(lockfile: Lockfile) -> bool:
    """Whether this is a lock of npm, yarn or pnpm, by its name or its bytes."""
    return kind_of(lockfile) in {LockKind.NPM, LockKind.YARN, LockKind.PNPM}


def read_lock(lockfile: Lockfile, toolchain: Mapping[str, str]) -> list[LockedPackage]:
    """What a lock of npm, yarn or pnpm pins, as far as it says; raises LockError with the line."""
    del toolchain
    kind = kind_of(lockfile)
    if kind is LockKind.NPM:
        return _packages_of_npm(read_npm_lock(lockfile.content, lockfile.name))
    if kind is LockKind.PNPM:
        return _packages_of_graph(PnpmLock(text_of(lockfile), lockfile.name).graph())
    if kind is LockKind.YARN:
        lock = read_yarn_lock(text_of(lockfile), lockfile.name)
        return _packages_of_graph(lock.graph(lock.root or {}, {}))
    raise LockError(name=lockfile.name, line=1, reason="is no lock of npm, yarn or pnpm")


def lock_lines(lockfile: Lockfile) -> tuple[LockLine, ...]:
    """The packages of npm's lock or of a qila.lock.json, with their lines; raises LockError."""
    if kind_of(lockfile) is LockKind.QILA:
        lines = lines_of_packages(lockfile.content)
        packages = read_qila_lock(lockfile.content, lockfile.name).packages
        found = [(item.name, item.version, lines.get(item.purl, 0)) for item in packages]
    else:
        entries = read_npm_lock(lockfile.content, lockfile.name).entries.values()
        found = [(item.name, item.version, item.line) for item in entries]
    return tuple(LockLine(name=name, version=version, path=lockfile.name, line=line) for name, version, line in found)


def graph_of(package_json: bytes, lockfile: Lockfile, *, partly: bool = False) -> Graph:
    """What yarn's or pnpm's lock pins for a manifest, or for as much of it as the lock answers (`partly`).

    Raises LockError, ManifestError.
    """
    if kind_of(lockfile) is LockKind.PNPM:
        return PnpmLock(text_of(lockfile), lockfile.name).graph()
    manifest = read_manifest(package_json)
    optional = _ranges(manifest, "optionalDependencies")
    needed = {name: wanted for name, wanted in root_ranges(manifest).items() if name not in optional}
    lock = read_yarn_lock(text_of(lockfile), lockfile.name)
    if partly:
        needed, optional = (
            {name: wanted for name, wanted in ranges.items() if lock.key_of(name, wanted)}
            for ranges in (needed, optional)
        )
    return lock.graph(needed, optional)


def lock_drift(package_json: bytes, lockfile: Lockfile) -> list[tuple[str, str]]:
    """The dependencies of a manifest that its lock does not hold as they are asked for: name and what differs.

    Compared are the ranges that the lock was made for, as the tools do. Raises LockError, or ManifestError for a
    package.json that is none.
    """
    wanted = root_ranges(read_manifest(package_json))
    kind = kind_of(lockfile)
    if kind is LockKind.YARN:
        lock = read_yarn_lock(text_of(lockfile), lockfile.name)
        if lock.root is None:
            missing = [(name, wanted[name]) for name in wanted if f"{name}@{wanted[name]}" not in lock.by_descriptor]
            return [(name, f"{MANIFEST} asks for {asked}, which the lock does not have") for name, asked in missing]
        return _differences(wanted, {name: asked.removeprefix("npm:") for name, asked in lock.root.items()})
    if kind is LockKind.PNPM:
        return _differences(wanted, PnpmLock(text_of(lockfile), lockfile.name).specifiers())
    npm = read_npm_lock(lockfile.content, lockfile.name)
    if npm.root is None:
        missing = [(name, wanted[name]) for name in wanted if MODULES + name not in npm.entries]
        return [(name, f"{MANIFEST} asks for {asked}, which the lock does not have") for name, asked in missing]
    return _differences(wanted, npm.root)


MANIFEST = "package.json"


def read_manifest(package_json: bytes) -> dict[str, Any]:
    """A package.json's object; raises ManifestError."""
    try:
        document = json.loads(package_json.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        reason = f"is not JSON: {error.msg}"
        raise ManifestError(path=MANIFEST, reason=reason, line=error.lineno, column=error.colno) from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(path=MANIFEST, reason="is not JSON in UTF-8, or is nested too deep") from error
    if not isinstance(document, dict):
        raise ManifestError(path=MANIFEST, reason="must be a JSON object", line=1)
    if has_lone_surrogate(package_json.decode("utf-8-sig"), document):
        raise ManifestError(path=MANIFEST, reason="holds half of a surrogate pair, which is no character", line=1)
    return document


def text_of(lockfile: Lockfile) -> str:
    """A lock's text; raises LockError."""
    if len(lockfile.content) > MAX_LOCK_BYTES:
        reason = f"{len(lockfile.content)} bytes is above the limit of {MAX_LOCK_BYTES}"
        raise LockError(name=lockfile.name, line=0, reason=reason)
    try:
        return lockfile.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = lockfile.content[: error.start].count(b"\n") + 1
        raise LockError(name=lockfile.name, line=line, reason="is not UTF-8") from error


def _ranges(manifest: Mapping[str, Any], key: str) -> dict[str, str]:
    value = manifest.get(key)
    return {str(name): str(wanted) for name, wanted in value.items()} if isinstance(value, dict) else {}


def _differences(wanted: Mapping[str, str], locked: Mapping[str, str]) -> list[tuple[str, str]]:
    found = []
    for name, asked in wanted.items():
        if name not in locked:
            found.append((name, f"{MANIFEST} asks for {asked}, which the lock does not have"))
        elif locked[name] != asked and locked[name] != asked.removeprefix("npm:"):
            found.append((name, f"{MANIFEST} asks for {asked}, the lock was made for {locked[name]}"))
    found += [(name, f"the lock has it, {MANIFEST} does not ask for it") for name in locked if name not in wanted]
    return sorted(found)


def _packages_of_npm(lock: NpmLock) -> list[LockedPackage]:
    entries = {location: entry for location, entry in lock.entries.items() if not entry.link}
    direct = set(lock.root or ())
    by_purl: dict[str, list[str]] = {}
    required: dict[str, set[str]] = {}
    for location, entry in entries.items():
        by_purl.setdefault(purl_of(entry.name, entry.version), []).append(location)
        for name in entry.needs:
            found = found_from(location, name, entries)
            if found is not None:
                purl = purl_of(entries[found].name, entries[found].version)
                required.setdefault(purl, set()).add(purl_of(entry.name, entry.version))
    return [
        _package_of_npm([entries[location] for location in locations], locations, purl, required, direct)
        for purl, locations in by_purl.items()
    ]


def _package_of_npm(
    entries: list[Any], locations: list[str], purl: str, required: Mapping[str, set[str]], direct: set[str]
) -> LockedPackage:
    expression, raw = license_of(next((entry.license for entry in entries if entry.license), None))
    return LockedPackage(
        purl=purl,
        name=entries[0].name,
        version=entries[0].version,
        hashes=next((hashes for entry in entries if (hashes := hashes_of(entry.integrity))), ()),
        license=expression,
        license_text=raw,
        direct=any(location.removeprefix(MODULES) in direct for location in locations),
        required_by=tuple(sorted(required.get(purl, set()) - {purl})),
        locations=shown_locations(entries[0].name, locations),
    )


def shown_locations(name: str, locations: list[str]) -> tuple[str, ...]:
    """The locations as a lock tells them: nothing for the one where a package lies if nothing is in its way."""
    return () if locations == [MODULES + name] else tuple(sorted(locations))


def _packages_of_graph(graph: Graph) -> list[LockedPackage]:
    found: dict[str, LockedPackage] = {}
    required: dict[str, set[str]] = {}
    roots = [graph.nodes[key] for key in graph.root.all_needs.values()]
    direct = {purl_of(node.name, node.version) for node in roots}
    for node in graph.nodes.values():
        for key in node.all_needs.values():
            needed = graph.nodes[key]
            required.setdefault(purl_of(needed.name, needed.version), set()).add(purl_of(node.name, node.version))
    for node in graph.nodes.values():
        purl = purl_of(node.name, node.version)
        found[purl] = LockedPackage(
            purl=purl,
            name=node.name,
            version=node.version,
            hashes=hashes_of(node.integrity),
            license=NO_ASSERTION,
            # The classic yarn.lock does not say what the project asks for: it is what nothing else needs.
            direct=purl in direct if roots else purl not in required,
            required_by=tuple(sorted(required.get(purl, set()) - {purl})),
        )
    return list(found.values())
