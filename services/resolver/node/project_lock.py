"""The lock beside a manifest: which one counts, and whether it holds."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.resolver.errors import LockError, ManifestError
from services.resolver.model import Lockfile, Notice, NoticeKind
from services.resolver.node.json_text import JsonText
from services.resolver.node.lock import lock_drift, read_lock
from services.resolver.node.package import Section, declared_names
from services.resolver.paths import join

if TYPE_CHECKING:
    from services.resolver.node.manifest import Manifest
    from services.resolver.node.package import Workspace

# By manager, the one that npm itself would take first.
LOCKS = {
    "npm": ("npm-shrinkwrap.json", "package-lock.json"),
    "pnpm": ("pnpm-lock.yaml",),
    "yarn": ("yarn.lock",),
}
LOCK_NAMES = frozenset(name for names in LOCKS.values() for name in names)
UNREAD_LOCKS = ("bun.lock", "bun.lockb")
MAX_DRIFT_NOTICES = 50
MODULES = "node_modules/"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectLock:
    """The lock that counts; `holds` says that exactly it is installed, else its versions are only preferred.

    `names` are those of all packages in it.
    """

    file: Lockfile | None = None
    holds: bool = False
    names: frozenset[str] = frozenset()
    notices: tuple[Notice, ...] = ()


def find_lock(workspace: Workspace, manifest: Manifest) -> ProjectLock:
    """Choose the lock beside the manifest and compare them. Raises ManifestError if it cannot be read."""
    directory = manifest.root.directory
    managers = sorted(LOCKS, key=lambda name: name != manifest.root.manager)
    present = [join(directory, name) for manager in managers for name in LOCKS[manager]]
    present = [path for path in present if path in workspace.tree]
    notices = [
        _ignored(path, "locks of Bun are not read")
        for path in (join(directory, name) for name in UNREAD_LOCKS)
        if path in workspace.tree
    ]
    if not present:
        return ProjectLock(notices=tuple(notices))
    chosen = present[0]
    notices += [_ignored(path, f"{chosen} is used") for path in present[1:]]
    if chosen not in workspace.files:
        return ProjectLock(notices=(*notices, _ignored(chosen, "it is above the limit for one file")))
    try:
        return _compared(workspace, manifest, Lockfile(name=chosen, content=workspace.files[chosen]), notices)
    except LockError as error:
        raise ManifestError(path=chosen, line=error.line, reason=error.reason) from error


def _compared(workspace: Workspace, manifest: Manifest, lock: Lockfile, notices: list[Notice]) -> ProjectLock:
    drift = _drift(workspace, manifest, lock)
    if _is_of_links(manifest, lock):
        return ProjectLock(notices=(*notices, *drift))
    if lock.name.endswith(".json"):
        lock = _cut_to(manifest, lock, drifts=bool(drift))
    names = frozenset(package.name for package in read_lock(lock, {}))
    return ProjectLock(file=lock, holds=not drift, names=names, notices=(*notices, *drift))


def _is_of_links(manifest: Manifest, lock: Lockfile) -> bool:
    """Whether a lock hangs its packages on those of the workspace, as pnpm's does: without these it says nothing."""
    return manifest.is_merged and lock.name.endswith(".yaml")


def _cut_to(manifest: Manifest, lock: Lockfile, *, drifts: bool) -> Lockfile:
    """The lock of npm, as far as it is about what is installed."""
    if manifest.is_merged:
        return without_local_packages(lock)
    return lock if drifts or manifest.development else without_development(lock)


def without_local_packages(lock: Lockfile) -> Lockfile:
    """A lock of npm without the packages of the workspace, which are not installed, and what is only theirs."""
    document = JsonText(lock.name, lock.content).value
    packages = document.get("packages")
    kept = {
        location: entry
        for location, entry in (packages.items() if isinstance(packages, dict) else ())
        if location.startswith(MODULES) and isinstance(entry, dict) and entry.get("link") is not True
    }
    version = {"lockfileVersion": 3, "packages": {"": {}, **kept}}
    return Lockfile(name=lock.name, content=(json.dumps(version, indent=2) + "\n").encode())


def without_development(lock: Lockfile) -> Lockfile:
    """A lock of npm without what only development dependencies need: what is left is what is installed.

    `lock` was read before: it is an object, with `packages` or, by npm 6, with nested `dependencies`.
    """
    document = json.loads(lock.content)
    root = document.get("packages", {}).get("", {})
    root.pop("devDependencies", None)
    pending: list[dict[str, Any]] = [document.get("packages", {}), document.get("dependencies", {})]
    while pending:
        entries = pending.pop()
        for name in [name for name, entry in entries.items() if entry.get("dev") is True]:
            del entries[name]
        # Inside an entry of `packages`, they are ranges.
        nested = (entry.get("dependencies") for entry in entries.values())
        pending += [item for item in nested if isinstance(item, dict) and _holds_entries(item)]
    return Lockfile(name=lock.name, content=(json.dumps(document, indent=2) + "\n").encode())


def _holds_entries(value: dict[str, Any]) -> bool:
    return bool(value) and all(isinstance(entry, dict) for entry in value.values())


def _drift(workspace: Workspace, manifest: Manifest, lock: Lockfile) -> list[Notice]:
    if manifest.is_merged:
        use = "versions are solved anew" if _is_of_links(manifest, lock) else "its versions are preferred"
        detail = f"it is the lock of several packages, which are installed as one: {use}"
        return [Notice(kind=NoticeKind.LOCK_DRIFT, path=lock.name, subject=lock.name, detail=detail)]
    differing = lock_drift(workspace.files[manifest.package.path].removeprefix(codecs.BOM_UTF8), lock)
    found = []
    if not manifest.development:
        ignored = declared_names(manifest.package, Section.DEVELOPMENT).difference(manifest.declared)
        differing = [item for item in differing if item[0] not in ignored]
    for name, detail in differing[:MAX_DRIFT_NOTICES]:
        declared = manifest.declared.get(name)
        path, line = (declared.path, declared.line) if declared else (lock.name, 0)
        found.append(Notice(kind=NoticeKind.LOCK_DRIFT, path=path, line=line, subject=name, detail=detail))
    return found


def _ignored(path: str, detail: str) -> Notice:
    return Notice(kind=NoticeKind.MANIFEST_IGNORED, path=path, subject=path, detail=detail)
