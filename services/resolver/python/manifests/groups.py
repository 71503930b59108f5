"""Dependency groups (PEP 735)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from services.resolver.python.manifests.requirements_file import Declared, parse_requirement
from services.resolver.python.manifests.toml_file import MAX_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.resolver.python.manifests.toml_file import TomlFile

TABLE = "dependency-groups"
INCLUDE = "include-group"


def group_requirements(toml: TomlFile, name: str) -> list[Declared]:
    """The requirements of a group with those that it includes; raises ManifestError, for a circle as well.

    A group that is reached in several ways counts once. The walk keeps its own stack: a chain may be long.
    """
    spelled = {str(canonicalize_name(key)): key for key in toml.table(TABLE)}
    found: list[Declared] = []
    done: set[str] = set()
    open_groups: list[str] = [name]
    stack = [iter(_entries(toml, spelled[name]))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            done.add(open_groups.pop())
        elif isinstance(entry, str):
            found.append(_declared(toml, spelled[open_groups[-1]], entry))
        else:
            included = _included(toml, spelled, open_groups, entry)
            if included not in done:
                open_groups.append(included)
                stack.append(iter(_entries(toml, spelled[included])))
    return found


def _entries(toml: TomlFile, key: str) -> list[Any]:
    entries = toml.get(TABLE, key)
    if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
        raise toml.error(f"{TABLE}.{key[:80]} must be a list of at most {MAX_ENTRIES} entries", TABLE, key)
    return entries


def _included(toml: TomlFile, spelled: Mapping[str, str], open_groups: list[str], entry: Any) -> str:
    here = spelled[open_groups[-1]]
    wanted = entry.get(INCLUDE) if isinstance(entry, dict) and len(entry) == 1 else None
    if not isinstance(wanted, str):
        reason = f"{TABLE}.{here[:80]}: an entry must be a requirement or {{{INCLUDE} = name}}"
        raise toml.error(reason, TABLE, here)
    name = str(canonicalize_name(wanted))
    if name in open_groups:
        raise toml.error(f"{TABLE}: {wanted[:80]} includes itself, through {here[:80]}", TABLE, here)
    if name not in spelled:
        raise toml.error(f"{TABLE}.{here[:80]} includes {wanted[:80]!r}, which is not there", TABLE, here)
    return name


def _declared(toml: TomlFile, key: str, text: str) -> Declared:
    line = toml.line_of_string(text, toml.line(TABLE, key))
    return Declared(specifier=parse_requirement(toml.path, line, text), hashes=(), path=toml.path, line=line)
