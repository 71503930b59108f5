"""Which names of a TypeScript file are used as values, and not as types alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tree_sitter import Node

WORD = re.compile(rb"[A-Za-z_$\x80-\xff][\w$\x80-\xff]*")
VALUE_KINDS = frozenset({"identifier", "shorthand_property_identifier"})
# Kinds around an identifier in which it names a type, or is only being imported.
TYPE_PLACES = frozenset({"nested_type_identifier", "nested_identifier", "type_query"})
BINDING_PLACES = frozenset({"import_specifier", "import_clause", "namespace_import"})
# A name that stands so often as a type is taken for a value, so that the time is bounded.
MAX_LOOKS = 200


def names_used_as_values(content: bytes, root: Node, names: Iterable[bytes]) -> frozenset[bytes]:
    """Those of the names that some expression uses; in doubt a name is used."""
    looks = dict.fromkeys(names, 0)
    used: set[bytes] = set()
    for match in WORD.finditer(content):
        name = match[0]
        if name not in looks or name in used:
            continue
        looks[name] += 1
        if looks[name] > MAX_LOOKS or _is_value(root, match.start(), match.end()):
            used.add(name)
            if len(used) == len(looks):
                break
    return frozenset(used)


def _is_value(root: Node, start: int, end: int) -> bool:
    node = root.descendant_for_byte_range(start, end)
    if node is None or node.type not in VALUE_KINDS:
        return False
    around = node.parent
    if around is None or around.type in BINDING_PLACES:
        return around is None
    while around is not None and around.type == "nested_identifier":
        around = around.parent
    # `<ns.Component />` and `ns.Type` nest names alike: only the first is a value.
    return around is None or around.type not in TYPE_PLACES or around.type.startswith("jsx")
