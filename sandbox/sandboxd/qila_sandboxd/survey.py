"""What is in a workspace: enough to tell whether anything changed, whoever changed it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Row = list[Any]

MAXIMUM_FILES = 20_000
MAXIMUM_DEPTH = 64
# Beyond this the walk ends, and what was not seen is not counted either.
MAXIMUM_ENTRIES = 200_000
_MAXIMUM_ENVIRONMENTS = 1_000
_ROWS_A_FRAME = 500
_MAXIMUM_FRAME_CHARACTERS = 1 << 16
_SKIPPED_AT_TOP = frozenset({".qila", ".home", ".local", ".cache", "lost+found"})
_SKIPPED = frozenset({"node_modules", "__pycache__", ".venv", ".git"})
_OWN_DEPENDENCIES = ("deps", "node_modules")
# Where pip puts what a program installs by itself: one directory for each version of Python.
_USER_LIBRARIES = ".local/lib"
_PYTHON = re.compile(r"python3\.[0-9]{1,3}")
_MODULES = "node_modules"
# Where people put jars by hand.
_JARS = ("lib", "libs")
_MAXIMUM_UNMANAGED = 32
_MAXIMUM_UNMANAGED_ENTRIES = 20_000


class _Walk:
    """Visits the regular files below a directory, sorted, links not followed."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.skipped = 0
        self.files = 0
        self.modules: list[str] = []
        self._visited = 0

    def rows(self, prefix: str = "", depth: int = 0) -> Iterator[Row]:
        try:
            with os.scandir(f"{self._root}/{prefix}") as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            self.skipped += 1
            return
        if prefix and any(entry.name == "pyvenv.cfg" for entry in entries):
            return
        for entry in entries:
            self._visited += 1
            if self._visited > MAXIMUM_ENTRIES:
                return
            yield from self._visit(entry, prefix, depth)

    def _visit(self, entry: os.DirEntry[str], prefix: str, depth: int) -> Iterator[Row]:
        if entry.is_dir(follow_symlinks=False):
            if entry.name in _SKIPPED or (depth == 0 and entry.name in _SKIPPED_AT_TOP):
                if entry.name == _MODULES and len(self.modules) < _MAXIMUM_UNMANAGED and _is_text(prefix):
                    self.modules.append(f"{self._root}/{prefix}{entry.name}")
                return
            if depth + 1 >= MAXIMUM_DEPTH:
                self.skipped += 1
                return
            yield from self.rows(f"{prefix}{entry.name}/", depth + 1)
        elif entry.is_file(follow_symlinks=False):
            row = _row(entry, prefix) if self.files < MAXIMUM_FILES else None
            if row is None:
                self.skipped += 1
                return
            self.files += 1
            yield row


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _row(entry: os.DirEntry[str], prefix: str) -> Row | None:
    path = prefix + entry.name
    if not _is_text(path):
        return None
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    return [path, status.st_size, max(0, status.st_mtime_ns), max(0, status.st_ctime_ns), status.st_ino]


def survey(root: str, send: Callable[[list[Row]], None]) -> dict[str, Any]:
    """List the files below `root` in frames of rows, and return what the survey's result says.

    Args:
        root: the workspace.
        send: takes `[path, size in bytes, mtime_ns, ctime_ns, inode]` rows, some hundreds at a time.
    """
    walk = _Walk(root)
    digest = hashlib.sha256()
    batch: list[Row] = []
    characters = 0
    for row in walk.rows():
        digest.update(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        batch.append(row)
        characters += len(row[0])
        if len(batch) == _ROWS_A_FRAME or characters > _MAXIMUM_FRAME_CHARACTERS:
            send(batch)
            batch, characters = [], 0
    if batch:
        send(batch)
    return {
        "digest": digest.hexdigest(),
        "file_count": walk.files,
        "skipped_count": walk.skipped,
        "environments": _environments(root),
        "own_directories": [name for name in _OWN_DEPENDENCIES if _is_real_directory(f"{root}/{name}")],
        "unmanaged": _unmanaged(root, walk.modules),
    }


def _unmanaged(root: str, modules: list[str]) -> list[dict[str, str]]:
    """Directories into which programs install packages by themselves, each with a digest of what lies in it."""
    pythons = [name for name in _names(f"{root}/{_USER_LIBRARIES}") if _PYTHON.fullmatch(name)]
    libraries = [f"{root}/{_USER_LIBRARIES}/{name}/site-packages" for name in pythons[:_MAXIMUM_UNMANAGED]]
    found = [path for path in libraries if any(name.endswith(".dist-info") for name in _names(path))]
    if _is_real_directory(f"{root}/deps"):
        found.append(f"{root}/deps")
    found += [f"{root}/{name}" for name in _JARS if any(jar.endswith(".jar") for jar in _names(f"{root}/{name}"))]
    budget = _MAXIMUM_UNMANAGED_ENTRIES
    answers = []
    for path in [*found, *modules][:_MAXIMUM_UNMANAGED]:
        digest = hashlib.sha256()
        budget = _digest_names(path, digest, budget, scopes=path in modules)
        answers.append({"path": path, "digest": digest.hexdigest()})
    return answers


def _digest_names(directory: str, digest: hashlib._Hash, budget: int, *, scopes: bool) -> int:
    """Adds names and times to the digest; what is left of the budget of entries."""
    for name in _names(directory):
        if budget <= 0:
            break
        budget -= 1
        try:
            modified = os.lstat(f"{directory}/{name}").st_mtime_ns
        except OSError:
            continue
        digest.update(os.fsencode(f"{name}\0{modified}\n"))
        if scopes and name.startswith("@"):
            # npm keeps the packages of a scope one level deeper.
            budget = _digest_names(f"{directory}/{name}", digest, budget, scopes=False)
    return budget


def _is_real_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names, not paths
    except OSError:
        return []


def _environments(root: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for ecosystem in _names(f"{root}/.qila/env"):
        current = os.path.realpath(f"{root}/.qila/current/{ecosystem}")
        for fingerprint in _names(f"{root}/.qila/env/{ecosystem}"):
            directory = f"{root}/.qila/env/{ecosystem}/{fingerprint}"
            if os.path.lexists(f"{directory}/.complete") and len(found) < _MAXIMUM_ENVIRONMENTS:
                is_current = os.path.realpath(directory) == current
                found.append({"ecosystem": ecosystem, "fingerprint": fingerprint, "current": is_current})
    return found
