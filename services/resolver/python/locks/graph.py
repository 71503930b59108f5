"""Which packages of a lock are needed, found by following who requires whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.python.environment import UnreadableMarkerError, holds

if TYPE_CHECKING:
    from packaging.markers import Marker

    from services.resolver.python.locks.model import Pin


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """One requirement of a locked package; `version` says which one, where the lock holds several."""

    name: str
    extras: tuple[str, ...] = ()
    marker: Marker | None = None
    version: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A locked package with what it requires, always and for an extra.

    `elsewhere` says that it is no release of the registry, `own` that it is the workspace's own.
    """

    pin: Pin
    edges: tuple[Edge, ...] = ()
    extra_edges: Mapping[str, tuple[Edge, ...]] = field(default_factory=dict)
    elsewhere: str = ""
    own: bool = False


def reached(
    path: str, roots: Sequence[Edge], nodes: Mapping[str, Sequence[Node]], environment: Mapping[str, str]
) -> list[Node]:
    """The nodes that the roots need, by line, with who requires them.

    Raises ManifestError for one that is not there.

    Markers of an edge are evaluated with each extra through which it is reached.
    """
    found: dict[int, Node] = {}
    requirers: dict[int, set[str]] = {}
    direct: set[int] = set()
    pending: list[tuple[Node | None, str, Edge]] = [(None, "", edge) for edge in roots]
    followed: set[tuple[int, str]] = set()
    while pending:
        owner, extra, edge = pending.pop()
        if not _applies(path, owner, edge, {**environment, "extra": extra}):
            continue
        node = _node(path, owner, edge, nodes)
        found[id(node)] = node
        if owner is None or owner.own:
            direct.add(id(node))
        else:
            requirers.setdefault(id(node), set()).add(owner.pin.name)
        for wanted in ("", *edge.extras):
            if (id(node), wanted) not in followed:
                followed.add((id(node), wanted))
                edges = node.extra_edges.get(wanted, ()) if wanted else node.edges
                pending.extend((node, wanted, item) for item in edges)
    return [
        replace(node, pin=replace(node.pin, direct=key in direct, required_by=tuple(sorted(requirers.get(key, ())))))
        for key, node in sorted(found.items(), key=lambda entry: entry[1].pin.line)
    ]


def _applies(path: str, owner: Node | None, edge: Edge, environment: Mapping[str, str]) -> bool:
    try:
        return edge.marker is None or holds(edge.marker, environment)
    except UnreadableMarkerError as error:
        line = owner.pin.line if owner else 1
        raise ManifestError(path=path, line=line, reason=f"the marker {str(error)!r} has no value") from error


def _node(path: str, owner: Node | None, edge: Edge, nodes: Mapping[str, Sequence[Node]]) -> Node:
    candidates = [node for node in nodes.get(edge.name, ()) if not edge.version or node.pin.version == edge.version]
    if len(candidates) == 1:
        return candidates[0]
    whose = f"{owner.pin.name} requires {edge.name}" if owner else f"{edge.name} is required"
    what = "several versions of it are locked" if candidates else "it is not in the lock"
    raise ManifestError(path=path, line=owner.pin.line if owner else 1, reason=f"{whose}, and {what}")
