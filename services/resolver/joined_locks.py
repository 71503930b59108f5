"""A qila.lock.json of several projects: the locks of all of them in one file."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from services.resolver.errors import LockError
from services.resolver.lockfile import (
    LOCK_FORMAT,
    MAX_LOCK_BYTES,
    PROJECT_KEY,
    decode_lock,
    entries,
    parse_lock,
    read_qila_lock,
)
from services.resolver.model import ROOT_PROJECT, Lockfile, Notice, NoticeKind
from services.resolver.paths import with_parents

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEYS = frozenset({"format", "locks"})
MAX_LOCKS = 64
# Of all parts, with the empty lines before them.
MAX_PARTS_BYTES = 2 * MAX_LOCK_BYTES
# Only texts stand before the list: no other object of this name can be meant.
JOINED = re.compile(r'\A\s*\{[^{\[]*"locks"\s*:\s*\[')
JOINED_BYTES = re.compile(JOINED.pattern.encode())


def parts_of(lockfile: Lockfile) -> tuple[Lockfile, ...]:
    """The locks of the projects, each line where it was; the lock itself if it is of one. Raises LockError."""
    if not JOINED_BYTES.match(lockfile.content):
        return (lockfile,)
    return tuple(_read(lockfile).values())


def lock_for(lockfile: Lockfile, ecosystem: str, directory: str) -> tuple[Lockfile | None, tuple[Notice, ...]]:
    """The part for what is run in a directory: the nearest project's above it, or the only one of the ecosystem.

    None, with a notice, if it holds several and none is meant. Raises LockError.
    """
    if not JOINED_BYTES.match(lockfile.content):
        return lockfile, ()
    found = {project: part for (name, project), part in _read(lockfile).items() if name == ecosystem}
    near = next(
        (found[place or ROOT_PROJECT] for place in with_parents(directory) if (place or ROOT_PROJECT) in found), None
    )
    if near is not None or len(found) == 1:
        return near or next(iter(found.values())), ()
    if not found:
        return None, ()
    detail = (
        f"it has {ecosystem} of {', '.join(sorted(found))[:200]}, and the program lies in none of these directories"
    )
    return None, (Notice(kind=NoticeKind.LOCK_NOT_HONOURED, subject=lockfile.name, detail=detail),)


@lru_cache(maxsize=1)
def _read(lockfile: Lockfile) -> Mapping[tuple[str, str], Lockfile]:
    """The parts by ecosystem and project. Kept for a moment: each project of a workspace asks for its own."""
    text = decode_lock(lockfile.content, lockfile.name)
    _check(parse_lock(text, lockfile.name), lockfile.name)
    found: dict[tuple[str, str], Lockfile] = {}
    size = 0
    for part, line in _parts(text, lockfile.name):
        size += len(part.content)
        if size > MAX_PARTS_BYTES:
            raise LockError(name=lockfile.name, line=line, reason="has too many lines for so many locks")
        lock = read_qila_lock(part.content, part.name)
        key = (lock.ecosystem, lock.project)
        if not lock.project or key in found:
            reason = f"{key[0]} of {key[1]} is there twice" if lock.project else f"{PROJECT_KEY} is missing"
            raise LockError(name=lockfile.name, line=line, reason=reason)
        found[key] = part
    return found


def _check(document: Any, name: str) -> None:
    if document.keys() != KEYS:
        raise LockError(name=name, line=1, reason="a lock of several projects has the keys format and locks alone")
    if type(document["format"]) is not int or document["format"] != LOCK_FORMAT:
        raise LockError(name=name, line=1, reason=f"format must be {LOCK_FORMAT}; a newer Qila may have written it")
    if not isinstance(document["locks"], list) or len(document["locks"]) > MAX_LOCKS:
        raise LockError(name=name, line=1, reason=f"locks must be a list of at most {MAX_LOCKS}")


def _parts(text: str, name: str) -> Iterator[tuple[Lockfile, int]]:
    """Each as a lock of its own, behind as many empty lines as there are lines before it; and its first line."""
    decoder = json.JSONDecoder()
    before, position = 0, 0
    for start, _, value in entries(text, JOINED):
        before += text.count("\n", position, start)
        position = start
        if not isinstance(value, dict):
            raise LockError(name=name, line=before + 1, reason="a lock must be an object")
        end = decoder.raw_decode(text, start)[1]
        yield Lockfile(name=name, content=("\n" * before + text[start:end]).encode()), before + 1
