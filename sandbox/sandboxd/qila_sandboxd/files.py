"""File calls, carried out in a forked child with the rights of its user: a link leads nowhere its user could not go."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from typing import TYPE_CHECKING, Any

from .answers import Answers
from .comparing import compare
from .frames import MAXIMUM_PAYLOAD, Header
from .linux import rename
from .listing import is_executable, list_files, row
from .paths import CallError, checked, from_os_error
from .sealing import seal
from .transfers import held_bytes, received

if TYPE_CHECKING:
    import socket


def answer(connection: socket.socket, root: str, call: Header) -> None:
    """Carry out one call below `root` and send its end. Leaves quietly when the other side goes."""
    answers = Answers(connection)
    try:
        try:
            result = _CALLS[call["op"]](answers, root, call)
        except OSError as error:
            raise from_os_error(error, str(call.get("path", ""))) from error
    except CallError as error:
        end = {"type": "error", "kind": error.kind, "message": error.message[:4096]}
    else:
        end = {"type": "result"} | result
    with contextlib.suppress(BrokenPipeError):
        answers.channel.send(end)


def _write(answers: Answers, root: str, call: Header) -> Header:
    path = f"{root}/{checked(call['path'])}"
    parent = os.path.dirname(path)  # noqa: PTH120 - a text
    os.makedirs(parent, 0o755, exist_ok=True)  # noqa: PTH103 - Path.mkdir would take its mode for the last part alone
    if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114 - a text
        raise CallError("is_a_directory", f"{call['path']}: is a directory")
    mode = 0o755 if call["executable"] else 0o644
    if call["transfer"]:
        return _write_by_transfer(answers, root, call, path, mode)
    temporary = f"{parent}/.qila-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            digest = hashlib.sha256()
            size = 0
            for data in answers.upload():
                file.write(data)
                digest.update(data)
                size += len(data)
        answers.check_sha256(digest.hexdigest())
        os.rename(temporary, path)  # noqa: PTH104 - a text
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108 - a text
        raise
    return {"size": size, "sha256": digest.hexdigest()}


def _write_by_transfer(answers: Answers, root: str, call: Header, path: str, mode: int) -> Header:
    with received(answers, root, call) as stream:
        os.fchmod(stream.descriptor, mode)
        os.rename(stream.path, path)  # noqa: PTH104 - a text
    return {"size": stream.size, "sha256": stream.sha256}


def _write_tree(answers: Answers, root: str, call: Header) -> Header:
    from .trees import write_tree  # noqa: PLC0415 - the library of archives is for the few children that need it

    return write_tree(answers, root, call)


def _read_tree(answers: Answers, root: str, call: Header) -> Header:
    from .tree_reading import read_tree  # noqa: PLC0415 - as above

    return read_tree(answers, root, call)


def _watch(answers: Answers, root: str, call: Header) -> Header:
    from .watching import watch  # noqa: PLC0415 - as above

    return watch(answers, root, call)


def _transfer(_answers: Answers, root: str, call: Header) -> Header:
    return {"size": held_bytes(root, call["transfer"])}


def _read(answers: Answers, root: str, call: Header) -> Header:
    file_limit = call["max_file_bytes"] or float("inf")
    remaining = call["max_total_bytes"] or float("inf")
    for index, path in enumerate(call["paths"]):
        try:
            end = _read_one(answers, root, path, index, min(file_limit, remaining))
        except BrokenPipeError:
            raise SystemExit from None
        except OSError as error:
            failure = from_os_error(error, path)
        except CallError as error:
            failure = error
        else:
            remaining -= end["size"]
            answers.data({"index": index, "end": end})
            continue
        answers.data({"index": index, "error": {"kind": failure.kind, "message": failure.message[:4096]}})
    return {}


def _read_one(answers: Answers, root: str, path: str, index: int, limit: float) -> dict[str, Any]:
    descriptor = _opened(root, path)
    try:
        status = os.fstat(descriptor)
        if status.st_size > limit:
            raise CallError("too_large", f"{path}: {status.st_size} bytes, allowed are {limit}")
        size = 0
        while data := os.read(descriptor, MAXIMUM_PAYLOAD):
            size += len(data)
            if size > limit:
                raise CallError("too_large", f"{path}: grew beyond {limit} bytes")
            answers.data({"index": index}, data)
    finally:
        os.close(descriptor)
    return {"size": size, "executable": is_executable(status)}


def _read_part(answers: Answers, root: str, call: Header) -> Header:
    path = call["path"]
    descriptor = _opened(root, path)
    try:
        status = os.fstat(descriptor)
        if call["offset"] > status.st_size:
            raise CallError("out_of_range", f"{path}: offset {call['offset']} is beyond the end at {status.st_size}")
        os.lseek(descriptor, call["offset"], os.SEEK_SET)
        answers.data(
            {"size": status.st_size, "mtime_ns": max(0, status.st_mtime_ns), "executable": is_executable(status)}
        )
        # Not beyond the size that was told: a file that grows meanwhile would have no end.
        remaining = status.st_size - call["offset"]
        if call["length"]:
            remaining = min(remaining, call["length"])
        digest = hashlib.sha256()
        size = 0
        while size < remaining and (data := os.read(descriptor, min(MAXIMUM_PAYLOAD, remaining - size))):
            size += len(data)
            digest.update(data)
            answers.data({}, data)
    finally:
        os.close(descriptor)
    return {"size": size, "sha256": digest.hexdigest()}


def _opened(root: str, path: str) -> int:
    """A descriptor of a regular file, for reading."""
    # Opening a FIFO for reading would wait for a writer.
    descriptor = os.open(f"{root}/{checked(path)}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind == stat.S_IFREG:
        return descriptor
    os.close(descriptor)
    if kind == stat.S_IFDIR:
        raise CallError("is_a_directory", f"{path}: is a directory")
    raise CallError("not_a_file", f"{path}: is not a regular file")


def _stat(_answers: Answers, root: str, call: Header) -> Header:
    path = f"{root}/{checked(call['path'])}" if call["path"] else root
    return {"file": row(path, call["path"])}


def _move(_answers: Answers, root: str, call: Header) -> Header:
    source = f"{root}/{checked(call['path'])}"
    target = f"{root}/{checked(call['target'])}"
    os.lstat(source)
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)  # noqa: PTH103, PTH120 - as above
    try:
        rename(source, target, replace=call["replace"])
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise CallError("invalid_path", f"{call['target']}: a directory cannot go into itself") from error
        raise from_os_error(error, call["target"]) from error
    return {}


def _make_directory(_answers: Answers, root: str, call: Header) -> Header:
    os.makedirs(f"{root}/{checked(call['path'])}", 0o755, exist_ok=True)  # noqa: PTH103 - as above
    return {}


def _remove(_answers: Answers, root: str, call: Header) -> Header:
    path = f"{root}/{checked(call['path'])}"
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)  # noqa: PTH108 - a text
        return {}
    # Trees of read-only directories are common (Go's module cache).
    for directory, _, _ in os.walk(path):
        with contextlib.suppress(PermissionError):
            os.chmod(directory, 0o700)  # noqa: PTH101 - a text
    shutil.rmtree(path)
    return {}


def _link(_answers: Answers, root: str, call: Header) -> Header:
    path = f"{root}/{checked(call['path'])}"
    if os.path.lexists(path) and not os.path.islink(path):  # noqa: PTH114 - a text
        raise CallError("exists", f"{call['path']}: something that is not a link is there")
    parent = os.path.dirname(path)  # noqa: PTH120 - a text
    os.makedirs(parent, 0o755, exist_ok=True)  # noqa: PTH103 - as above
    temporary = f"{parent}/.qila-{secrets.token_hex(8)}.tmp"
    try:
        os.symlink(call["target"], temporary)  # noqa: PTH211 - a text
    except ValueError as error:
        raise CallError("invalid_path", "a link's target has no NUL byte") from error
    try:
        os.rename(temporary, path)  # noqa: PTH104 - a text
    except OSError:
        os.unlink(temporary)  # noqa: PTH108 - a text
        raise
    return {}


def _seal(_answers: Answers, root: str, _call: Header) -> Header:
    seal(root)
    return {}


_CALLS = {
    "write": _write,
    "write_tree": _write_tree,
    "read_tree": _read_tree,
    "compare": compare,
    "transfer": _transfer,
    "read": _read,
    "read_part": _read_part,
    "list": list_files,
    "stat": _stat,
    "move": _move,
    "make_directory": _make_directory,
    "remove": _remove,
    "link": _link,
    "seal": _seal,
    "watch": _watch,
}
OPERATIONS = frozenset(_CALLS)
