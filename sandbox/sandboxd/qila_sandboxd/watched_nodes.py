"""What is known of a tree that is watched, and what is different from what was told of it."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .listing import KINDS, is_executable

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


class State(NamedTuple):
    """What lies at a name."""

    kind: str
    inode: int
    size: int
    mtime_ns: int
    executable: bool


class Node:
    """What is known of a name; of a directory that is entered, also what is in it."""

    __slots__ = ("children", "descriptor", "name", "parent", "state", "watch")

    def __init__(self, parent: Node | None, name: str, state: State) -> None:
        self.parent = parent
        self.name = name
        self.state = state
        self.children: dict[str, Node] = {}
        # -1 while it is not entered.
        self.descriptor = -1
        self.watch = -1

    @property
    def is_directory(self) -> bool:
        """Whether it may be entered."""
        return self.state.kind == "directory"

    def ancestors(self) -> Iterator[Node]:
        """Itself and what it lies in, up to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    @property
    def level(self) -> int:
        """How many names its path has."""
        return sum(1 for _ in self.ancestors()) - 1

    @property
    def path(self) -> str:
        """Below the root."""
        return "/".join([node.name for node in self.ancestors()][-2::-1])

    def subtree(self) -> Iterator[Node]:
        """Itself and what is below it, parents first."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()


@dataclass
class Changes:
    """What is different since the last look. What became something else is removed and created."""

    # Children before what they lie in.
    removed: dict[Node, None] = field(default_factory=dict)
    # Parents before what is in them.
    created: dict[Node, None] = field(default_factory=dict)
    modified: dict[Node, None] = field(default_factory=dict)
    # The paths before, of all that was moved, or lay in what was moved.
    paths: dict[Node, str] = field(default_factory=dict)

    def path_before(self, node: Node) -> str:
        """Where it was when it was told of last."""
        return self.paths.get(node) or node.path

    def moved(self) -> list[Node]:
        """What is at another path than before, parents before what is in them."""
        moved = [node for node, path in self.paths.items() if node not in self.removed and node.path != path]
        return sorted(moved, key=lambda node: node.level)

    def drop(self, node: Node) -> None:
        """It is gone; if nobody was told of it, nobody need be."""
        self.modified.pop(node, None)
        if node in self.created:
            del self.created[node]
        else:
            self.removed[node] = None


def state_of(status: os.stat_result) -> State:
    """What a look says."""
    kind = KINDS.get(stat.S_IFMT(status.st_mode), "other")
    mtime_ns = max(0, status.st_mtime_ns)
    return State(kind, status.st_ino, status.st_size, mtime_ns, is_executable(status))


def became_another(before: State, now: State) -> bool:
    """Whether it is another thing; a file that was replaced by a file is one that was modified."""
    return before.kind != now.kind or (now.kind == "directory" and before.inode != now.inode)
