"""The native lock: go.mod and go.sum as one text archive (txtar, as Go's own tools have it), or either alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.resolver.errors import LockError, ManifestError
from services.resolver.go.mod_file import ModFile, read_go_mod
from services.resolver.go.names import VERSION
from services.resolver.go.sources import MOD, SUM
from services.resolver.go.sum_file import SumFile, read_go_sum

if TYPE_CHECKING:
    from services.resolver.model import Lockfile

NAME = "go.txtar"
MARK = re.compile(rb"^-- (go\.mod|go\.sum) --[ \t]*\r?\n", re.MULTILINE)
MOD_LINE = re.compile(rb"\A(?:[ \t]*(?://[^\n]*)?\r?\n){0,200}module[ \t]+\S", re.MULTILINE)
SUM_LINE = re.compile(rb"\A\s{0,100}\S{1,400} v\S{1,200} h1:[A-Za-z0-9+/]{43}=")
MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedModule:
    """One module of a lock; `hash` is empty where the lock does not say it."""

    path: str
    version: str
    hash: str
    direct: bool
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """What a lock holds; a go.mod that is not there is empty."""

    mod: bytes = b""
    sum: bytes = b""
    mod_line: int = 0
    sum_line: int = 0


def is_lock(lockfile: Lockfile) -> bool:
    """Whether this is a native lock of Go's, by its name or its bytes."""
    name = lockfile.name.rpartition("/")[2]
    if name in {MOD, SUM, NAME}:
        return True
    head = lockfile.content[:65536]
    return bool(MARK.search(head) or SUM_LINE.match(head) or (MOD_LINE.match(head) and head.lstrip()[:1] != b"{"))


def split(content: bytes, name: str) -> Bundle:
    """The files of a lock. Raises LockError."""
    if len(content) > MAX_BYTES:
        raise LockError(name=name, line=0, reason=f"{len(content)} bytes is above the limit of {MAX_BYTES}")
    marks = list(MARK.finditer(content))
    if not marks:
        is_sum = name.rpartition("/")[2] == SUM or SUM_LINE.match(content)
        return Bundle(sum=content) if is_sum else Bundle(mod=content)
    parts: dict[bytes, tuple[bytes, int]] = {}
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        end = following.start() if following else len(content)
        line = content.count(b"\n", 0, mark.end())
        if mark[1] in parts:
            raise LockError(name=name, line=line, reason=f"{mark[1].decode()} is there twice")
        parts[mark[1]] = (content[mark.end() : end], line)
    mod, sums = parts.get(b"go.mod", (b"", 0)), parts.get(b"go.sum", (b"", 0))
    return Bundle(mod=mod[0], mod_line=mod[1], sum=sums[0], sum_line=sums[1])


def read_lock(content: bytes, name: str = NAME) -> list[LockedModule]:
    """The modules of a lock, by path. Raises LockError with the line.

    Of a go.sum alone, the newest version of each module whose archive it has a hash for.
    """
    bundle = split(content, name)
    sums = _sums(bundle, name)
    if not bundle.mod:
        return _of_sums(sums)
    file = _mod(bundle, name)
    return sorted(_of_mod(file, sums, bundle, name), key=lambda item: item.path)


def bundled(mod: bytes, sums: bytes) -> bytes:
    """The archive of two files."""
    return b"-- go.mod --\n" + _ended(mod) + b"-- go.sum --\n" + _ended(sums)


def precedence(version: str) -> tuple[tuple[int, ...], bool, tuple[tuple[int, int | str], ...]]:
    """The order of versions, as semantic versioning has it."""
    core, _, rest = version.removeprefix("v").partition("+")[0].partition("-")
    numbers = tuple(int(part) if part.isdigit() else 0 for part in core.split("."))
    parts: list[tuple[int, int | str]] = [(0, int(part)) if part.isdigit() else (1, part) for part in rest.split(".")]
    return numbers, not rest, tuple(parts)


def _sums(bundle: Bundle, name: str) -> SumFile:
    try:
        return read_go_sum(bundle.sum, name)
    except LockError as error:
        raise LockError(name=name, line=error.line + bundle.sum_line, reason=error.reason) from error


def _mod(bundle: Bundle, name: str) -> ModFile:
    try:
        return read_go_mod(bundle.mod, name)
    except ManifestError as error:
        line = error.line + bundle.mod_line if error.line else 0
        raise LockError(name=name, line=line, reason=error.reason) from error


def _of_sums(sums: SumFile) -> list[LockedModule]:
    newest: dict[str, str] = {}
    for path, version in sums.archives:
        if path not in newest or precedence(version) > precedence(newest[path]):
            newest[path] = version
    return [
        LockedModule(path=path, version=version, hash=sums.archives[path, version], direct=False, line=0)
        for path, version in sorted(newest.items())
    ]


def _of_mod(file: ModFile, sums: SumFile, bundle: Bundle, name: str) -> list[LockedModule]:
    """What go.mod requires: what replaces a module counts in its place, and a directory is none."""
    found: dict[str, LockedModule] = {}
    replaced = {(item.path, item.version): item for item in file.replaces}
    for item in file.requires:
        line = item.line + bundle.mod_line
        new = replaced.get((item.path, item.version)) or replaced.get((item.path, ""))
        if new is not None and new.is_local:
            continue
        path, version = (new.new_path, new.new_version) if new is not None else (item.path, item.version)
        if not VERSION.fullmatch(version):
            raise LockError(name=name, line=line, reason=f"{path} {version[:80]} is not one version")
        found[path] = LockedModule(
            path=path,
            version=version,
            hash=sums.archives.get((path, version), ""),
            direct=not item.indirect,
            line=line,
        )
    return list(found.values())


def _ended(content: bytes) -> bytes:
    return content if content.endswith(b"\n") or not content else content + b"\n"
