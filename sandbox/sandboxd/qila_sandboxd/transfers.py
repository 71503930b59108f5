"""Uploads that are held on disk until they are whole, so that one that broke off can go on.

They lie in the home of the program's user, which no survey sees, and count against the workspace's bound.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .paths import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .answers import Answers
    from .frames import Header

DIRECTORY = ".home/.qila-transfers"
MAXIMUM_TRANSFERS = 16
MAXIMUM_AGE_SECONDS = 24 * 3600
MAXIMUM_BYTES = 2 << 30
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What a call leaves when it is killed; whoever has no lock on it any more is not there any more.
_ONCE = ".once"
_STAGE = ".stage"
_LOCK_SECONDS = 5.0
_LOCK_PAUSE_SECONDS = 0.05
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Received:
    """A stream that came whole; `descriptor` reads it, `path` is its place."""

    descriptor: int
    path: str
    size: int
    sha256: str


def held_bytes(root: str, transfer: str) -> int:
    """How many bytes of a transfer are held; 0 if it is not known."""
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(f"{root}/{DIRECTORY}/{_checked(transfer)}").st_size
    return 0


@contextlib.contextmanager
def received(answers: Answers, root: str, call: Header) -> Iterator[Received]:
    """Take a call's stream to its end, check it, and drop it when the block has used it.

    A stream that breaks off stays if the call names a transfer, as it does if the block raises an OSError
    other than that there is no room.

    Raises:
        CallError: `out_of_range`, `busy`, `too_large`, or `digest_mismatch`.
    """
    name = _checked(call["transfer"]) if call["transfer"] else secrets.token_hex(8) + _ONCE
    path, descriptor = _open(root, name)
    keep = bool(call["transfer"])
    try:
        size = _take(answers, descriptor, call["offset"])
        sha256 = _digest(descriptor, size)
        answers.check_sha256(sha256)
        yield Received(descriptor=descriptor, path=path, size=size, sha256=sha256)
        keep = False
    except CallError as error:
        keep = keep and error.kind == "out_of_range"
        raise
    except OSError as error:
        # What cannot go on must not fill the workspace for a day.
        keep = keep and error.errno not in {errno.ENOSPC, errno.EDQUOT}
        raise
    finally:
        if not keep:
            _unlink(path, descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def staging(root: str) -> Iterator[int]:
    """A new directory, on the workspace's file system and outside of every survey; its descriptor."""
    with _locked_directory(root) as directory:
        path = f"{directory}/{secrets.token_hex(8)}{_STAGE}"
        os.mkdir(path, 0o700)  # noqa: PTH102 - a text
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield descriptor
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _checked(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CallError("invalid_path", "a transfer is named by 1 to 64 of [A-Za-z0-9_-]")
    return name


def _open(root: str, name: str) -> tuple[str, int]:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        with _locked_directory(root) as directory:
            _collect(directory, name)
            path = f"{directory}/{name}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            # It may have been finished, and removed, just now.
            if _locks(descriptor) and os.fstat(descriptor).st_nlink:
                return path, descriptor
            os.close(descriptor)
        # One whose client went may take a moment to see it.
        if time.monotonic() > deadline:
            raise CallError("busy", "another stream writes this transfer; wait for it to end")
        time.sleep(_LOCK_PAUSE_SECONDS)


@contextlib.contextmanager
def _locked_directory(root: str) -> Iterator[str]:
    path = f"{root}/{DIRECTORY}"
    os.makedirs(path, 0o755, exist_ok=True)  # noqa: PTH103 - a text
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _locks(descriptor):
            if time.monotonic() > deadline:
                raise CallError("busy", "other uploads are beginning; send it again")
            time.sleep(_LOCK_PAUSE_SECONDS)
        yield path
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _collect(directory: str, wanted: str) -> None:
    """Drop what nobody will go on with: what was left behind, what is old, and the oldest beyond the bound."""
    held: list[tuple[float, str]] = []
    for name in os.listdir(directory):  # noqa: PTH208 - names
        path = f"{directory}/{name}"
        # What ends meanwhile is gone as it should be.
        with contextlib.suppress(FileNotFoundError):
            if name == wanted or _is_in_use(path):
                continue
            changed = os.lstat(path).st_mtime
            if name.endswith((_ONCE, _STAGE)) or changed < time.time() - MAXIMUM_AGE_SECONDS:
                _drop(path)
            else:
                held.append((changed, path))
    for _, path in sorted(held, reverse=True)[MAXIMUM_TRANSFERS - 1 :]:
        _drop(path)


def _is_in_use(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        # A link, or what programs may not open: none of ours.
        return False
    try:
        return not _locks(descriptor)
    finally:
        os.close(descriptor)


def _drop(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)  # noqa: PTH108 - a text


def _unlink(path: str, descriptor: int) -> None:
    """Remove a stream's own file; it may have been moved, and another stream have begun."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.lstat(path), os.fstat(descriptor)):
            os.unlink(path)  # noqa: PTH108 - a text


def _take(answers: Answers, descriptor: int, offset: int) -> int:
    """Write what comes behind an offset; how many bytes there are then."""
    held = os.fstat(descriptor).st_size
    if offset > held:
        raise CallError("out_of_range", f"offset {offset} is beyond the {held} bytes that are held; ask for them again")
    os.ftruncate(descriptor, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    size = offset
    for data in answers.upload():
        size += len(data)
        if size > MAXIMUM_BYTES:
            raise CallError("too_large", f"more than {MAXIMUM_BYTES} bytes (2 GiB); send it in parts")
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    return size


def _digest(descriptor: int, size: int) -> str:
    """Digest of what lies on disk: what an earlier stream brought counts too.

    Raises:
        CallError: `io`, if it is not of that size any more: what a program makes longer could have no end.
    """
    digest = hashlib.sha256()
    position = 0
    while position < size and (data := os.pread(descriptor, min(_COPY_BYTES, size - position), position)):
        digest.update(data)
        position += len(data)
    if position < size or os.fstat(descriptor).st_size != size:
        raise CallError("io", "a program changed what was held; nothing was written, send it again")
    return digest.hexdigest()
