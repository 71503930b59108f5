"""File calls, carried out in a forked child with the rights of its user: a link leads nowhere its user could not go."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
import select
import shutil
import stat
from typing import TYPE_CHECKING, Any

from .frames import MAXIMUM_PAYLOAD, Channel, Header
from .paths import CallError, checked, from_os_error
from .sealing import seal

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

_MAXIMUM_UNCREDITED = 1 << 20
_ROWS_A_FRAME = 30
# A listing is one message of the executor's.
_MAXIMUM_ROWS = 10_000


class Answers:
    """Sends `data` of a call, no more at once than the executor has given credit for."""

    def __init__(self, connection: socket.socket) -> None:
        self.channel = Channel(connection)
        self._uncredited = 0

    def data(self, header: Header, payload: bytes = b"") -> None:
        """Send one `data` frame; waits for credit first where bytes are on their way already."""
        while self._uncredited + len(payload) > _MAXIMUM_UNCREDITED or self._credit_waits():
            frame = self.channel.receive()
            if frame is None:
                raise SystemExit
            self._uncredited -= frame[0]["bytes"]
        self._uncredited += len(payload)
        self.channel.send({"type": "data"} | header, payload)

    def _credit_waits(self) -> bool:
        return bool(select.select([self.channel.connection], [], [], 0)[0])


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
    temporary = f"{parent}/.qila-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o755 if call["executable"] else 0o644)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            digest = hashlib.sha256()
            size = 0
            for data in _chunks(answers):
                file.write(data)
                digest.update(data)
                size += len(data)
        os.rename(temporary, path)  # noqa: PTH104 - a text
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108 - a text
        raise
    return {"size": size, "sha256": digest.hexdigest()}


def _chunks(answers: Answers) -> Iterator[bytes]:
    while True:
        frame = answers.channel.receive()
        if frame is None:
            raise SystemExit
        yield frame[1]
        if frame[0].get("last"):
            return


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
    # Opening a FIFO for reading would wait for a writer.
    descriptor = os.open(f"{root}/{checked(path)}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise CallError("is_a_directory", f"{path}: is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise CallError("not_a_file", f"{path}: is not a regular file")
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
    return {"size": size, "executable": bool(status.st_mode & 0o100)}


def _list(answers: Answers, root: str, call: Header) -> Header:
    path = f"{root}/{checked(call['path'])}" if call["path"] else root
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in itertools.islice(entries, _MAXIMUM_ROWS + 1))
    if len(names) > _MAXIMUM_ROWS:
        raise CallError("too_large", f"{call['path']}: more than {_MAXIMUM_ROWS} names; list it with a command instead")
    for start in range(0, len(names), _ROWS_A_FRAME):
        rows = [row for name in names[start : start + _ROWS_A_FRAME] if (row := _row(path, name)) is not None]
        answers.data({"files": rows})
    return {}


def _row(directory: str, name: str) -> dict[str, Any] | None:
    path = f"{directory}/{name}"
    try:
        status = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""  # noqa: PTH115 - a text
    except FileNotFoundError:
        # It went while we looked.
        return None
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    return {
        "name": _shown(name),
        "kind": kinds.get(stat.S_IFMT(status.st_mode), "other"),
        "size": status.st_size,
        "mtime_ns": max(0, status.st_mtime_ns),
        "executable": stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o100),
        "link_target": _shown(target),
    }


def _shown(name: str) -> str:
    """A name as UTF-8 whatever its bytes are."""
    return os.fsencode(name).decode(errors="replace")


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
    "read": _read,
    "list": _list,
    "remove": _remove,
    "link": _link,
    "seal": _seal,
}
OPERATIONS = frozenset(_CALLS)
