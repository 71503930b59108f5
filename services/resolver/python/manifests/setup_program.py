"""The call of `setup()` in a `setup.py`: the arguments that stand there as literals."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import tree_sitter_python
from tree_sitter import Language, Parser

from services.resolver.python.source import read_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tree_sitter import Node

SETUP = frozenset({b"setup", b"setuptools.setup"})
READ = frozenset({"name", "install_requires", "extras_require", "python_requires"})
CALL = re.compile(rb"\bsetup[ \t]*\(")
MAX_MENTIONS = 100
MAX_LITERAL_BYTES = 512 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class SetupCall:
    """Arguments by name with their lines; `computed` are those that are no literal, `spreads` says `**more`."""

    literals: Mapping[str, tuple[Any, int]]
    computed: frozenset[str] = field(default_factory=frozenset)
    spreads: bool = False

    def value(self, name: str) -> tuple[Any, int]:
        """The value of an argument and its line; None if it is not there or computed."""
        return self.literals.get(name, (None, 0))


def read_setup_call(raw: bytes) -> SetupCall | None:
    """The call, or None if the file has none. A name that was assigned a literal at the top level stands for it."""
    root = _parser().parse(read_source(raw).content).root_node
    call = _find_call(root)
    arguments = call.child_by_field_name("arguments") if call else None
    if arguments is None:
        return None
    assigned = _assigned(root)
    literals: dict[str, tuple[Any, int]] = {}
    computed: set[str] = set()
    for argument in arguments.named_children:
        if argument.type != "keyword_argument":
            continue
        name, value = _text(argument.child_by_field_name("name")), argument.child_by_field_name("value")
        if name not in READ or value is None:
            continue
        node = assigned.get(_text(value), value) if value.type == "identifier" else value
        try:
            literals[name] = (_literal(node), node.start_point.row + 1)
        except ValueError:
            computed.add(name)
    spreads = any(argument.type == "dictionary_splat" for argument in arguments.named_children)
    return SetupCall(literals=literals, computed=frozenset(computed), spreads=spreads)


def _literal(node: Node) -> Any:
    """The value of a literal; raises ValueError for anything else."""
    if node.end_byte - node.start_byte > MAX_LITERAL_BYTES:
        raise ValueError("too long")
    try:
        return ast.literal_eval(f"({_text(node)})")
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError("no literal") from error


def _find_call(root: Node) -> Node | None:
    """The first call of setup(), looked for only where the text has such a word."""
    for match in islice(CALL.finditer(_bytes(root)), MAX_MENTIONS):
        start = root.start_byte + match.start()
        node = root.descendant_for_byte_range(start, start + 1)
        while node is not None and node.type in {"identifier", "attribute"}:
            node = node.parent
        if node is not None and node.type == "call" and _bytes(node.child_by_field_name("function")) in SETUP:
            return node
    return None


def _assigned(root: Node) -> dict[str, Node]:
    """The values that names have at the top level; one that is changed afterwards is not among them."""
    found: dict[str, Node] = {}
    for statement in root.named_children:
        inner = statement.named_children[0] if statement.type == "expression_statement" else None
        if inner is None or inner.type not in {"assignment", "augmented_assignment", "call"}:
            continue
        name = _text(inner.child_by_field_name("left") or inner.child_by_field_name("function")).partition(".")[0]
        value = inner.child_by_field_name("right")
        if inner.type == "assignment" and name not in found and value is not None:
            found[name] = value
        else:
            found.pop(name, None)
    return found


def _bytes(node: Node | None) -> bytes:
    return (node.text or b"") if node is not None else b""


def _text(node: Node | None) -> str:
    return _bytes(node).decode("utf-8", "replace")


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_python.language()))
