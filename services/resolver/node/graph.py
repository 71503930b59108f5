"""Which package needs which, as a lock says it, and the tree of directories in which npm finds them all."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.resolver.errors import LockError
from services.resolver.node.names import MODULES, found_from

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PLACES = 50_000
MAX_DEPTH = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One pinned package. `needs` and `optional` map the name it imports by to the key of another node."""

    name: str
    version: str
    integrity: str = ""
    line: int = 0
    needs: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_needs(self) -> dict[str, str]:
        """Both kinds."""
        return {**self.optional, **self.needs}


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """All pinned packages by key, and what the project itself needs."""

    nodes: Mapping[str, Node]
    root: Node

    def required(self) -> set[str]:
        """The keys that the project needs without an optional step on the way."""
        found: set[str] = set()
        pending = list(self.root.needs.values())
        while pending:
            key = pending.pop()
            if key not in found:
                found.add(key)
                pending.extend(self.nodes[key].needs.values())
        return found


def place(graph: Graph) -> dict[str, str]:
    """The location of every package that the project needs: as high as nothing of another version is in the way.

    Raises LockError for a tree that no project has.
    """
    places: dict[str, str] = {}
    pending: deque[tuple[str, Node]] = deque([("", graph.root)])
    while pending:
        location, node = pending.popleft()
        for name, key in sorted(node.all_needs.items()):
            found = found_from(location, name, places)
            if found is not None and places[found] == key:
                continue
            # Nothing of another version is hidden from those who found it already: they lie above.
            target = MODULES + name if found is None else f"{location}/{MODULES}{name}".removeprefix("/")
            _check_bounds(target, places, graph.nodes[key])
            places[target] = key
            pending.append((target, graph.nodes[key]))
    return places


def _check_bounds(target: str, places: Mapping[str, str], node: Node) -> None:
    if len(places) >= MAX_PLACES or target.count(MODULES) > MAX_DEPTH:
        reason = f"{node.name} makes a tree of more than {MAX_PLACES} places or {MAX_DEPTH} levels"
        raise LockError(line=node.line, reason=reason)
