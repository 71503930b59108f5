"""Watching a directory: what changes in it and below it, told within a moment, for as long as somebody listens.

Whoever does not listen costs nothing: what happens meanwhile waits as names to look at, and beyond a bound it is told
that nobody knows any more, and to list again. Nothing is passed over in silence.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .frames import MAXIMUM_PAYLOAD, Decoder, Header
from .globs import Globs
from .inotify import Inotify
from .listing import shown
from .paths import MAXIMUM_PATH_BYTES, CallError, checked, from_os_error
from .watched_tree import OPEN_FLAGS, WatchedTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .answers import Answers
    from .watched_nodes import Changes, Node

# What happens within it is told at once.
WINDOW_SECONDS = 0.05
# The kernel is not asked again at once: each event would wake us.
_PAUSE_SECONDS = 0.01
# Between two times of reading everything anew.
_RENEWAL_SECONDS = 1.0
# What the executor has not taken, of at most 64 KiB each.
_MAXIMUM_FRAMES = 16
_RECEIVE_BYTES = 4096
_ENDS = frozenset({"too_large", "watch_limit"})
_NOTHING = b"[]"


class PathGoneError(Exception):
    """What is watched is no longer at its path."""


class _Step(NamedTuple):
    """An open directory, the name in it that the way goes on with, and what has to lie there."""

    directory: int
    name: str
    inode: int


class _Watch:
    """A tree, and the way to it from the workspace down, as they are watched until they have to be read anew.

    Raises:
        CallError, OSError: it cannot be watched, or there is no such directory.
    """

    def __init__(self, root: str, call: Header) -> None:
        self._steps: dict[int, _Step] = {}
        with contextlib.ExitStack() as opened:
            self.kernel = Inotify()
            opened.callback(self.kernel.close)
            top = self._go_down(opened, os.open(root, OPEN_FLAGS), call["path"])
            self.tree = WatchedTree(
                self.kernel,
                top,
                depth=call["depth"],
                ignored=frozenset(call["ignored_names"]),
                is_workspace=not call["path"],
            )
            opened.callback(self.tree.close)
            self._opened = opened.pop_all()

    def _go_down(self, opened: contextlib.ExitStack, directory: int, path: str) -> int:
        for name in filter(None, path.split("/")):
            opened.callback(os.close, directory)
            # Before the step, so that it is told if somebody is quicker.
            watch = self.kernel.add(directory)
            below = os.open(name, OPEN_FLAGS, dir_fd=directory)
            self._steps[watch] = _Step(directory, name, os.fstat(below).st_ino)
            directory = below
        return directory

    def read(self) -> None:
        """Take what the kernel tells.

        Raises:
            PathGoneError: the way does not lead there any more.
        """
        for event in self.kernel.read():
            step = self._steps.get(event.watch)
            if step is None:
                self.tree.note(event)
            elif event.name == step.name and not _holds(step):
                raise PathGoneError

    def close(self) -> None:
        """Watch nothing any more. A repeat does nothing."""
        self._opened.close()


def _holds(step: _Step) -> bool:
    try:
        return os.stat(step.name, dir_fd=step.directory, follow_symlinks=False).st_ino == step.inode
    except OSError:
        return False


class _Watcher:
    """Between the kernel and the first process; waits for both, and for time."""

    def __init__(self, answers: Answers, root: str, call: Header) -> None:
        self._connection = answers.channel.connection
        self._answers = answers
        self._decoder = Decoder()
        self._root = root
        self._call = call
        self._globs = Globs(call["patterns"])
        self._frames_under_way = 0
        self._waiting: Iterator[tuple[str, bytes]] = iter([("ready", _NOTHING)])
        self._next: tuple[str, bytes] | None = next(self._waiting)
        self._window_end = 0.0
        self._read_again = 0.0
        self._renewed = 0.0
        self._watch = _Watch(root, call)

    def run(self) -> Header:
        """Until nobody listens, or there is nothing to watch any more: the result says why."""
        try:
            while True:
                self._tell()
                self._wait()
                self._go_on()
        except PathGoneError:
            return {"end": "path_gone"}
        except CallError as error:
            if error.kind not in _ENDS:
                raise
            return {"end": error.kind}
        finally:
            self._watch.close()

    def _wait(self) -> None:
        kernel = self._watch.kernel.descriptor
        pause = self._read_again - time.monotonic()
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        if pause <= 0:
            poll.register(kernel, select.POLLIN)
        ready = dict(poll.poll(self._patience(pause)))
        if self._connection.fileno() in ready:
            self._receive()
        if kernel in ready:
            self._read()

    def _patience(self, pause: float) -> float | None:
        """Milliseconds until there is something to do, whatever comes; None: there is not."""
        times = [pause] if pause > 0 else []
        if self._next is None:
            now = time.monotonic()
            if self._watch.tree.is_behind:
                times.append(self._renewed + _RENEWAL_SECONDS - now)
            elif self._watch.tree.has_pending:
                times.append(self._window_end - now)
        return max(0.0, min(times)) * 1000 if times else None

    def _read(self) -> None:
        had_pending = self._watch.tree.has_pending
        self._watch.read()
        now = time.monotonic()
        self._read_again = now + _PAUSE_SECONDS
        if not had_pending:
            self._window_end = now + WINDOW_SECONDS

    def _receive(self) -> None:
        data = self._connection.recv(_RECEIVE_BYTES)
        if not data:
            raise SystemExit
        self._decoder.feed(data)
        while self._decoder.next() is not None:
            self._frames_under_way -= 1

    def _go_on(self) -> None:
        """Look, when the time has come and all that was seen before is told."""
        now = time.monotonic()
        if self._next is not None:
            return
        if self._watch.tree.is_behind:
            if now >= self._renewed + _RENEWAL_SECONDS:
                self._renew()
        elif self._watch.tree.has_pending and now >= self._window_end:
            # Both ends of a rename, if one of them is there.
            self._read()
            changes = self._watch.tree.look()
            if not self._watch.tree.is_behind:
                self._waiting = _frames(_rows(changes, self._globs))
                self._next = next(self._waiting, None)

    def _renew(self) -> None:
        """Begin anew, and then say so: who lists now misses nothing."""
        self._watch.close()
        try:
            self._watch = _Watch(self._root, self._call)
        except OSError as error:
            raise PathGoneError from error
        self._renewed = time.monotonic()
        self._next = ("overflow", _NOTHING)

    def _tell(self) -> None:
        while self._next is not None and self._frames_under_way < _MAXIMUM_FRAMES:
            kind, payload = self._next
            self._frames_under_way += 1
            self._answers.channel.send({"type": "data", "kind": kind}, payload)
            self._next = next(self._waiting, None)


def watch(answers: Answers, root: str, call: Header) -> Header:
    """Tell what changes below a directory, until nobody listens any more."""
    if call["path"]:
        checked(call["path"])
    try:
        return _Watcher(answers, root, call).run()
    except OSError as error:
        raise from_os_error(error, call["path"] or "the workspace") from error


_Row = list[Any]


def _rows(changes: Changes, globs: Globs) -> Iterator[_Row]:
    """What is told of the changes: each path that a pattern matches."""
    for node in changes.removed:
        yield from _told(globs, "removed", changes.path_before(node), node)
    for node in changes.moved():
        before, now = changes.paths[node], node.path
        if not globs.match(before):
            yield from _told(globs, "created", now, node)
        elif not globs.match(now):
            yield from _told(globs, "removed", before, node)
        else:
            yield from _told(globs, "moved", now, node, before)
    for node in changes.created:
        yield from _told(globs, "created", node.path, node)
    for node in changes.modified:
        yield from _told(globs, "modified", node.path, node)


def _told(globs: Globs, kind: str, path: str, node: Node, before: str = "") -> Iterator[_Row]:
    if len(os.fsencode(path)) > MAXIMUM_PATH_BYTES or not globs.match(path):
        return
    state = node.state
    is_gone = kind == "removed"
    size, mtime_ns = (0, 0) if is_gone else (state.size, state.mtime_ns)
    yield [kind, shown(path), shown(before), state.kind, size, mtime_ns, state.executable and not is_gone]


def _frames(rows: Iterator[_Row]) -> Iterator[tuple[str, bytes]]:
    batch: list[bytes] = []
    size = 1
    for row in rows:
        data = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()
        if size + len(data) + 1 > MAXIMUM_PAYLOAD:
            yield "changes", _joined(batch)
            batch = []
            size = 1
        batch.append(data)
        size += len(data) + 1
    if batch:
        yield "changes", _joined(batch)


def _joined(batch: list[bytes]) -> bytes:
    return b"[" + b",".join(batch) + b"]"
