"""What tree-sitter's trees have in common, whatever the language."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Node


def first_error_line(root: Node) -> int:
    """The line of the first error that the parser recovered from; 0 if there is none."""
    if not root.has_error:
        return 0
    node = root
    while not (node.is_error or node.is_missing):
        broken = next((child for child in node.children if child.has_error or child.is_missing), None)
        if broken is None:
            break
        node = broken
    return int(node.start_point.row) + 1
