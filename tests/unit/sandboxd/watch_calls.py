"""A watch as sandboxd's child carries it out, without a container, and what somebody makes of what it tells."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from child_calls import child  # type: ignore[import-not-found]  # pytest puts this directory on the path

from sandbox.sandboxd.qila_sandboxd.frames import Channel

SIGN = ".qila-test-sign"


class Change(NamedTuple):
    """A row of what is told."""

    kind: str
    path: str
    before: str
    type: str
    size: int
    mtime_ns: int
    executable: bool


class Watch:
    """Somebody who watches a directory."""

    def __init__(self, channel: Channel, directory: Path) -> None:
        self.channel = channel
        self.directory = directory
        self.end: dict[str, Any] = {}
        # The kinds of the frames, in order.
        self.kinds: list[str] = []

    def next(self) -> list[Change] | None:
        """What comes next, none when it is over."""
        frame = self.channel.receive()
        if frame is None or frame[0]["type"] != "data":
            self.end = frame[0] if frame else {}
            return None
        self.channel.send({"type": "credit", "bytes": len(frame[1])})
        self.kinds.append(frame[0]["kind"])
        return [Change(*row) for row in json.loads(frame[1])]

    def settle(self) -> list[Change]:
        """All that is told of what has been done by now: a sign is made, and waited for."""
        sign = self.directory / f"{SIGN}-{secrets.token_hex(4)}"
        sign.touch()
        changes: list[Change] = []
        while (batch := self.next()) is not None:
            changes += batch
            if any(change.path == sign.name for change in batch) or self.kinds[-1] == "overflow":
                return [change for change in changes if SIGN not in change.path]
        raise AssertionError(self.end)

    def told(self) -> list[tuple[str, str]]:
        """The same, without what is at the paths."""
        return [(change.kind, change.path) for change in self.settle()]

    def rest(self) -> dict[str, Any]:
        """The end, whatever comes before it."""
        while self.next() is not None:
            pass
        return self.end


@contextmanager
def watching(
    root: Path, path: str = "", *, depth: int = 64, patterns: Sequence[str] = (), ignored_names: Sequence[str] = ()
) -> Iterator[Watch]:
    """A watch that is ready, or has ended."""
    fields = {"path": path, "depth": depth, "patterns": list(patterns), "ignored_names": list(ignored_names)}
    with child(root, {"op": "watch", "user": "program"} | fields) as channel:
        watch = Watch(channel, root / path)
        watch.next()
        yield watch


class Copy:
    """What somebody knows who listed first and heard each change since."""

    def __init__(self, root: Path) -> None:
        self.entries = listed(root)

    def apply(self, changes: Sequence[Change]) -> None:
        """Takes over what is told."""
        for change in changes:
            if change.kind == "removed":
                del self.entries[change.path]
                continue
            if change.kind == "moved":
                del self.entries[change.before]
            self.entries[change.path] = (change.type, change.size, change.mtime_ns, change.executable)


def listed(root: Path) -> dict[str, tuple[str, int, int, bool]]:
    """What lies below a directory; of directories themselves, that they are there."""
    found: dict[str, tuple[str, int, int, bool]] = {}
    for path in root.rglob("*"):
        if SIGN in path.name:
            continue
        status = path.lstat()
        kind = "link" if path.is_symlink() else "directory" if path.is_dir() else "file"
        executable = kind == "file" and bool(status.st_mode & 0o100)
        found[str(path.relative_to(root))] = (kind, status.st_size, status.st_mtime_ns, executable)
    return found


def without_directories(entries: dict[str, tuple[str, int, int, bool]]) -> dict[str, Any]:
    """Times and sizes of directories change with what is in them, and are not told anew."""
    return {path: entry if entry[0] != "directory" else entry[0] for path, entry in entries.items()}


def in_thread(work: Any) -> threading.Thread:
    """Starts it."""
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def renamed(source: Path, target: Path) -> None:
    """As the kernel does, without a look."""
    os.rename(source, target)  # noqa: PTH104 - as it says
