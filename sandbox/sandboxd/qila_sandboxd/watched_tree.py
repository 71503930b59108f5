"""A tree that is watched: what was told of it, what the kernel says of it since, and the difference between the two.

The kernel's events say where to look; what is told is what is found there. So a burst of events is one change, and one
that is behind does no harm. Directories are held open and looked into through their descriptors: whatever programs
rename or put in their place meanwhile, a look goes to the very directory that is watched, and no link is followed.
"""

from __future__ import annotations

import errno
import os
import re

from . import inotify
from .listing import NOT_ENTERED
from .paths import CallError
from .watched_nodes import Changes, Node, State, became_another, state_of

MAXIMUM_DIRECTORIES = 8192
MAXIMUM_ENTRIES = 50_000
# Names that wait to be looked at; beyond it nobody knows any more what happened.
MAXIMUM_PENDING = 16_384
# Of paths that are kept while they are told anew.
_MAXIMUM_MOVED_CHARACTERS = 16 << 20
OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What sandboxd writes before it renames it into place.
_TEMPORARY = re.compile(r"\.qila-[0-9a-f]{16}\.tmp")


_Place = tuple[Node, str]


class WatchedTree:
    """The tree below an open directory.

    Args:
        kernel: tells of this tree alone.
        root: the directory's descriptor, which becomes the tree's.
        depth: how many levels.
        ignored: names of directories that are told and not entered.
        is_workspace: whether what belongs to Qila lies in it.

    Raises:
        CallError: `too_large`, `watch_limit`.
    """

    def __init__(
        self, kernel: inotify.Inotify, root: int, *, depth: int, ignored: frozenset[str], is_workspace: bool
    ) -> None:
        self._kernel = kernel
        self._depth = depth
        self._ignored = ignored
        self._keep_out = NOT_ENTERED if is_workspace else frozenset()
        self._watches: dict[int, Node] = {}
        self._entries = 0
        self._pending: dict[_Place, int] = {}
        self._leaving: dict[int, _Place] = {}
        self._origins: dict[_Place, _Place] = {}
        # Nobody knows what happened: the tree is of no use any more.
        self.is_behind = False
        self._root = Node(None, "", state_of(os.fstat(root)))
        try:
            self._hold(self._root, root)
            self._read_all(self._root, Changes())
        except BaseException:
            self.close()
            raise

    @property
    def has_pending(self) -> bool:
        """Whether there is something to look at."""
        return bool(self._pending)

    def close(self) -> None:
        """Let go of all directories."""
        for node in self._watches.values():
            os.close(node.descriptor)
        self._watches.clear()

    def note(self, event: inotify.Event) -> None:
        """Remember where to look."""
        self.is_behind = self.is_behind or bool(event.mask & inotify.OVERFLOW)
        directory = self._watches.get(event.watch)
        if directory is None or self.is_behind or _TEMPORARY.fullmatch(event.name):
            return
        if not event.name and (directory is not self._root or not event.mask & inotify.ATTRIB):
            # What becomes of the others, what they lie in tells.
            return
        place = (directory, event.name)
        self._pending[place] = self._pending.get(place, 0) | event.mask
        self.is_behind = len(self._pending) > MAXIMUM_PENDING
        if event.mask & inotify.MOVED_FROM:
            self._leaving[event.cookie] = place
        elif event.mask & inotify.MOVED_TO:
            self._note_move(event.cookie, place)
        elif event.mask & inotify.DELETE:
            self._origins.pop(place, None)

    def _note_move(self, cookie: int, place: _Place) -> None:
        self._origins.pop(place, None)
        between = self._leaving.pop(cookie, None)
        if between is not None:
            origin = self._origins.pop(between, between)
            if origin != place:
                self._origins[place] = origin

    def look(self) -> Changes:
        """Look where something happened, and take over what is there.

        Raises:
            CallError: `too_large`, `watch_limit`.
        """
        pending, self._pending = self._pending, {}
        origins, self._origins = self._origins, {}
        self._leaving = {}
        changes = Changes()
        self._move_all(origins, changes)
        for (directory, name), mask in pending.items():
            if directory.descriptor >= 0 and name:
                self._compare(directory, name, mask, changes)
            elif directory.descriptor >= 0:
                self._read_again(directory, changes)
        return changes

    # Moves: both ends of a rename were told, and at its end lies what lay at its beginning.

    def _move_all(self, origins: dict[_Place, _Place], changes: Changes) -> None:
        moves = [(node, place) for place, origin in origins.items() if (node := self._moved(origin, place))]
        length = 0
        for moved, _ in moves:
            for node in moved.subtree():
                if node not in changes.paths:
                    changes.paths[node] = node.path
                    length += len(changes.paths[node])
                if length > _MAXIMUM_MOVED_CHARACTERS:
                    self.is_behind = True
                    return
        for node, (directory, name) in moves:
            self._move(node, directory, name, changes)

    def _moved(self, origin: _Place, place: _Place) -> Node | None:
        if origin[0].descriptor < 0 or place[0].descriptor < 0:
            return None
        node = origin[0].children.get(origin[1])
        state = _find(*place)
        # Where something else lies at the beginning by now, the two are told each on its own.
        if node is None or state is None or _find(*origin) is not None:
            return None
        return node if node.state[:2] == state[:2] else None

    def _move(self, node: Node, directory: Node, name: str, changes: Changes) -> None:
        if directory.descriptor < 0 or node.parent is None or node in directory.ancestors():
            return
        del node.parent.children[node.name]
        there = directory.children.get(name)
        if there is not None:
            self._drop(there, changes)
        node.parent, node.name = directory, name
        directory.children[name] = node
        if node.is_directory:
            self._fit(node, node.level, changes)

    def _fit(self, node: Node, level: int, changes: Changes) -> None:
        """What is below a directory that was moved may be too deep now, or no more."""
        if not self._enters(node, level):
            for child in list(node.children.values()):
                self._drop(child, changes)
            self._let_go(node)
        elif node.descriptor < 0:
            self._enter(node, changes)
        else:
            for child in list(node.children.values()):
                if child.is_directory:
                    self._fit(child, level + 1, changes)

    # Looking at one name.

    def _compare(self, directory: Node, name: str, mask: int, changes: Changes) -> None:
        node = directory.children.get(name)
        # What may not be looked at is not listed either.
        state = _find(directory, name)
        if node is not None and (state is None or became_another(node.state, state)):
            self._drop(node, changes)
            node = None
        if state is None:
            return
        if node is None:
            self._add(directory, name, state, changes)
        elif node.is_directory:
            if mask & inotify.ATTRIB:
                self._read_again(node, changes)
        else:
            # Two writes in one tick of the clock leave the same time.
            is_modified = state != node.state or (mask & inotify.MODIFY and state.kind == "file")
            node.state = state
            if is_modified and node not in changes.created:
                changes.modified[node] = None

    def _read_again(self, node: Node, changes: Changes) -> None:
        """A directory's own rights changed, and with them what may be seen in it."""
        if node.descriptor < 0:
            if self._enters(node, node.level):
                self._enter(node, changes)
            return
        is_open = node is self._root or _can_be_read(node)
        for name in sorted({*_names(node), *node.children} if is_open else node.children):
            if is_open:
                self._compare(node, name, 0, changes)
            else:
                self._drop(node.children[name], changes)
        if not is_open:
            self._let_go(node)

    def _add(self, directory: Node, name: str, state: State, changes: Changes) -> None:
        self._entries += 1
        if self._entries > MAXIMUM_ENTRIES:
            raise CallError(
                "too_large", f"more than {MAXIMUM_ENTRIES} names; watch a part of it, or ignore directories"
            )
        node = directory.children[name] = Node(directory, name, state)
        changes.created[node] = None
        if node.is_directory and self._enters(node, node.level):
            self._enter(node, changes)

    def _drop(self, node: Node, changes: Changes) -> None:
        assert node.parent is not None
        del node.parent.children[node.name]
        for gone in reversed(list(node.subtree())):
            self._entries -= 1
            self._let_go(gone)
            changes.drop(gone)

    # Directories.

    def _enters(self, node: Node, level: int) -> bool:
        is_kept_out = level == 1 and node.name in self._keep_out
        return level < self._depth and node.name not in self._ignored and not is_kept_out

    def _enter(self, node: Node, changes: Changes) -> None:
        assert node.parent is not None
        try:
            descriptor = os.open(node.name, OPEN_FLAGS, dir_fd=node.parent.descriptor)
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise _too_many_directories() from error
            # It went, or its owner closed it: if it comes back, the kernel tells.
            return
        node.state = node.state._replace(inode=os.fstat(descriptor).st_ino)
        self._hold(node, descriptor)
        self._read_all(node, changes)

    def _hold(self, node: Node, descriptor: int) -> None:
        """Have it watched before it is read: what comes between is seen twice, and not missed."""
        try:
            self._check_directories()
            watch = self._kernel.add(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        former = self._watches.get(watch)
        if former is not None:
            # The same directory, found at its new path before its old one was looked at.
            os.close(former.descriptor)
            former.descriptor = former.watch = -1
        node.descriptor, node.watch = descriptor, watch
        self._watches[watch] = node

    def _check_directories(self) -> None:
        if len(self._watches) >= MAXIMUM_DIRECTORIES:
            raise _too_many_directories()

    def _read_all(self, node: Node, changes: Changes) -> None:
        for name in _names(node):
            state = None if name in node.children else _find(node, name)
            if state is not None:
                self._add(node, name, state, changes)

    def _let_go(self, node: Node) -> None:
        if node.descriptor >= 0:
            del self._watches[node.watch]
            self._kernel.remove(node.watch)
            os.close(node.descriptor)
            node.descriptor = node.watch = -1


def _names(directory: Node) -> list[str]:
    names = os.listdir(directory.descriptor)  # noqa: PTH208 - a descriptor
    return [name for name in names if not _TEMPORARY.fullmatch(name)]


def _find(directory: Node, name: str) -> State | None:
    """What lies there; None if nothing does, or if nobody may look."""
    try:
        return state_of(os.stat(name, dir_fd=directory.descriptor, follow_symlinks=False))
    except OSError:
        return None


def _can_be_read(directory: Node) -> bool:
    """Whether it could be opened now; it is open already."""
    try:
        os.close(os.open(".", OPEN_FLAGS, dir_fd=directory.descriptor))
    except OSError:
        return False
    return True


def _too_many_directories() -> CallError:
    message = f"more than {MAXIMUM_DIRECTORIES} directories; watch a part of it, or ignore directories"
    return CallError("too_large", message)
