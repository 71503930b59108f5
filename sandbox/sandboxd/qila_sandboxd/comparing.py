"""Which files of a tree differ from those that somebody else has."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from .frames import MAXIMUM_PAYLOAD
from .listing import MAXIMUM_DEPTH, NOT_ENTERED, is_executable, walk
from .paths import CallError, checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .answers import Answers
    from .frames import Header

MAXIMUM_FILES = 20_000
MAXIMUM_BYTES = 16 << 20
_COPY_BYTES = 1 << 20
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


def compare(answers: Answers, root: str, call: Header) -> Header:
    """Take rows `[path, size, sha256, executable]`, one a line; tell what differs, and what is there beyond them."""
    wanted = _wanted(answers)
    top = f"{root}/{checked(call['path'])}" if call["path"] else root
    keep_out = NOT_ENTERED if not call["path"] else frozenset()
    beyond: list[str] = []
    for path in _files(top, keep_out, frozenset(call["ignored_names"])):
        row = wanted.get(path)
        if row is None:
            beyond.append(path)
            if len(beyond) > MAXIMUM_FILES:
                raise CallError("too_large", f"more than {MAXIMUM_FILES} files that were not named; compare a part")
        elif _is_same(f"{top}/{path}", row):
            del wanted[path]
        # What is left over is missing, or something else.
    _tell(answers, "different", sorted(wanted))
    _tell(answers, "beyond", beyond)
    return {}


def _wanted(answers: Answers) -> dict[str, list[Any]]:
    data = bytearray()
    for chunk in answers.upload():
        data += chunk
        if len(data) > MAXIMUM_BYTES:
            raise CallError("too_large", f"more than {MAXIMUM_BYTES} bytes of names; compare a part")
    rows = [json.loads(line) for line in data.splitlines()]
    if len(rows) > MAXIMUM_FILES:
        raise CallError("too_large", f"more than {MAXIMUM_FILES} files; compare a part")
    return {checked(row[0]): row for row in rows}


def _files(top: str, keep_out: frozenset[str], ignored: frozenset[str]) -> Iterator[str]:
    if not os.path.lexists(top):
        return
    for path in walk(top, depth=MAXIMUM_DEPTH, keep_out=keep_out, ignored=ignored):
        try:
            path.encode()
            if stat.S_ISREG(os.lstat(f"{top}/{path}").st_mode):
                yield path
        except (UnicodeEncodeError, OSError):
            # Nobody can name it, or it went while we looked.
            continue


def _is_same(path: str, row: list[Any]) -> bool:
    _, size, sha256, executable = row
    try:
        descriptor = os.open(path, _OPEN)
    except OSError:
        # It went while we looked, or its owner closed it: to be written anew.
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size or is_executable(status) != executable:
            return False
        digest = hashlib.sha256()
        read = 0
        # Not beyond the size that it had: a file that grows meanwhile could have no end.
        while read <= size and (data := os.read(descriptor, min(_COPY_BYTES, size + 1 - read))):
            digest.update(data)
            read += len(data)
        return bool(digest.hexdigest() == sha256)
    finally:
        os.close(descriptor)


def _tell(answers: Answers, kind: str, paths: list[str]) -> None:
    """Send paths as bytes, which wait for credit: there may be more of them than the executor would hold."""
    batch: list[str] = []
    size = 0
    for path in paths:
        length = len(json.dumps(path)) + 2
        if size + length > MAXIMUM_PAYLOAD - 2:
            answers.data({"kind": kind}, json.dumps(batch).encode())
            batch, size = [], 0
        batch.append(path)
        size += length
    if batch:
        answers.data({"kind": kind}, json.dumps(batch).encode())
