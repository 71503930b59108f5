"""The commands that a project declares: `[project.scripts]`, `[project.gui-scripts]` and Poetry's own table."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# `module:object` of the entry points specification, with the extras that nobody uses any more.
REFERENCE = re.compile(r"\s*(?P<module>[\w.]+)\s*:\s*(?P<attribute>[\w.]+)\s*(?:\[[^\]]*\]\s*)?")
MAX_SCRIPTS = 1_000


def read_scripts(pyproject: bytes) -> dict[str, str]:
    """Each script's name and its `module:object`; what cannot be read has none, and its reader says why."""
    try:
        document = tomllib.loads(pyproject.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    found: dict[str, str] = {}
    for keys in (("tool", "poetry", "scripts"), ("project", "gui-scripts"), ("project", "scripts")):
        for name, value in list(_table(document, keys).items())[:MAX_SCRIPTS]:
            match = REFERENCE.fullmatch(_reference(value))
            if match:
                found[name] = f"{match['module']}:{match['attribute']}"
    return found


def _table(document: Mapping[str, Any], keys: tuple[str, ...]) -> Mapping[str, Any]:
    table: Any = document
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else {}


def _reference(value: Any) -> str:
    """A script's value; Poetry also has tables with a `reference` or a `callable`."""
    if isinstance(value, dict):
        value = value.get("reference", value.get("callable", ""))
    return value if isinstance(value, str) else ""
