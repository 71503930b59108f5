"""The `imports` and `exports` of package.json: which files a name may mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# What holds for a program that Node runs; `types` never does.
CONDITIONS = frozenset({"node", "import", "require", "default", "module-sync", "node-addons"})
MAX_TARGETS = 50
MAX_ROWS = 500


def mapped_targets(rows: Mapping[str, Any], name: str) -> list[str]:
    """The targets of a name, in the order of their conditions; empty if no row is about it."""
    if name in rows:
        return _targets(rows[name], "")
    best, middle = "", ""
    for key in list(rows)[:MAX_ROWS]:
        before, star, after = key.partition("*")
        fits = star and len(name) >= len(before) + len(after) and name.startswith(before) and name.endswith(after)
        if fits and len(before) > len(best.partition("*")[0]):
            best, middle = key, name[len(before) : len(name) - len(after)]
    return _targets(rows[best], middle) if best else []


def _targets(value: Any, middle: str) -> list[str]:
    found: list[str] = []
    pending = [value]
    while pending and len(found) < MAX_TARGETS:
        item = pending.pop()
        if isinstance(item, str):
            found.append(item.replace("*", middle))
        elif isinstance(item, dict):
            pending.extend(inner for key, inner in reversed(item.items()) if key in CONDITIONS)
        elif isinstance(item, list):
            pending.extend(reversed(item))
    return found
