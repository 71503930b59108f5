"""What is in a directory and below it, as rows for the executor."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from .globs import Globs
from .paths import CallError, checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .answers import Answers
    from .frames import Header

MAXIMUM_DEPTH = 64
# Beyond this a walk ends, whatever it was to find.
MAXIMUM_VISITS = 200_000
# What belongs to Qila and to caches: from the workspace itself it is seen and not entered.
NOT_ENTERED = frozenset({".qila", ".home", ".local", ".cache", "lost+found"})
_ROWS_A_FRAME = 30
# A listing is one message of the executor's.
_MAXIMUM_ROWS = 10_000
_MAXIMUM_NAME_CHARACTERS = 2 << 20
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


def list_files(answers: Answers, root: str, call: Header) -> Header:
    """Send what is below a directory, sorted by path, links not followed."""
    path = f"{root}/{checked(call['path'])}" if call["path"] else root
    globs = Globs(call["patterns"])
    batch: list[dict[str, Any]] = []
    count = size = 0
    for name in walk(path, depth=call["depth"], keep_out=NOT_ENTERED if not call["path"] else frozenset()):
        if not globs.match(name):
            continue
        try:
            batch.append(row(f"{path}/{name}", name))
        except OSError:
            # It went while we looked, or nobody may look.
            continue
        count += 1
        size += len(batch[-1]["name"]) + len(batch[-1]["link_target"])
        if count > _MAXIMUM_ROWS or size > _MAXIMUM_NAME_CHARACTERS:
            raise CallError(
                "too_large",
                f"{call['path']}: more than {_MAXIMUM_ROWS} names, or 2 MiB of them; list a part, or by patterns",
            )
        if len(batch) == _ROWS_A_FRAME:
            answers.data({"files": batch})
            batch = []
    if batch:
        answers.data({"files": batch})
    return {}


def walk(
    path: str, *, depth: int, keep_out: frozenset[str] = frozenset(), ignored: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Paths of all that is below a directory, relative to it, each directory before what it holds.

    Args:
        path: the directory itself; that it cannot be read is the caller's, that one below it cannot is passed over.
        depth: how many levels.
        keep_out: names of directories at the top that are told and not entered.
        ignored: names of directories that are told and not entered wherever they are.

    Raises:
        CallError: `too_large`, beyond `MAXIMUM_VISITS` names.
    """
    visits = 0
    waiting = [iter(_sorted_entries(path))]
    prefixes = [""]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
            prefixes.pop()
            continue
        visits += 1
        if visits > MAXIMUM_VISITS:
            raise CallError("too_large", f"more than {MAXIMUM_VISITS} names to look at; list a part of it")
        name = prefixes[-1] + entry.name
        yield name
        if entry.name in ignored or name in keep_out or len(waiting) >= depth:
            continue
        if entry.is_dir(follow_symlinks=False):
            try:
                entries = _sorted_entries(f"{path}/{name}")
            except OSError:
                # A directory that its owner closed, or that went while we looked.
                continue
            waiting.append(iter(entries))
            prefixes.append(f"{name}/")


def _sorted_entries(path: str) -> list[os.DirEntry[str]]:
    entries: list[os.DirEntry[str]] = []
    with os.scandir(path) as found:
        for entry in found:
            entries.append(entry)
            if len(entries) > MAXIMUM_VISITS:
                raise CallError("too_large", f"more than {MAXIMUM_VISITS} names in one directory")
    return sorted(entries, key=lambda entry: entry.name)


def row(path: str, name: str) -> dict[str, Any]:
    """What the executor is told of a path.

    Raises:
        OSError: nothing is there, or it cannot be looked at.
    """
    status = os.lstat(path)
    target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""  # noqa: PTH115 - a text
    return {
        "name": shown(name),
        "kind": KINDS.get(stat.S_IFMT(status.st_mode), "other"),
        "size": status.st_size,
        "mtime_ns": max(0, status.st_mtime_ns),
        "executable": is_executable(status),
        "link_target": shown(target),
    }


def is_executable(status: os.stat_result) -> bool:
    """Whether it is a file that its owner may execute."""
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_IXUSR)


def shown(name: str) -> str:
    """A name as UTF-8 whatever its bytes are."""
    return os.fsencode(name).decode(errors="replace")
