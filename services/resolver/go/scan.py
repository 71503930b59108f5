"""What one file of Go says that matters for a plan: its package, its imports, whether it starts a program."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import tree_sitter_go
from tree_sitter import Language, Parser

from services.resolver.syntax import first_error_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node

SUFFIX = ".go"
TEST_SUFFIX = "_test.go"
MAX_IMPORTS = 5_000
MAX_IMPORT_PATH = 500
CONSTRAINT = re.compile(rb"^//go:build[ \t]+([^\n\r]{1,500})", re.MULTILINE)
OLD_CONSTRAINT = re.compile(rb"^//[ \t]*\+build[ \t]+([^\n\r]{1,500})", re.MULTILINE)
PACKAGE = re.compile(rb"^[ \t]*package[ \t]+\w", re.MULTILINE)
NEEDED = frozenset({"package_clause", "import_declaration", "function_declaration"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """One import and its line."""

    path: str
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GoFile:
    """What a file says. `error_line` is that of the first place that is no Go, or 0.

    `ignored` files are never built with their directory (`//go:build ignore`), but can be run by name; `constrained`
    ones are built in some cases only.
    """

    package: str = ""
    imports: tuple[Import, ...] = ()
    has_main: bool = False
    ignored: bool = False
    constrained: bool = False
    error_line: int = 0


def is_source(path: str) -> bool:
    """Whether a path is that of a file of Go."""
    return path.endswith(SUFFIX)


def is_test(path: str) -> bool:
    """Whether a file belongs to its package's tests."""
    return path.endswith(TEST_SUFFIX)


def scan_file(content: bytes) -> GoFile:
    """Scan a file; what is broken is passed over."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    root = _parser().parse(content).root_node
    package, has_main = "", False
    imports: list[Import] = []
    constraint = _constraint(content)
    for node in root.named_children:
        if node.type not in NEEDED:
            continue
        if node.type == "package_clause":
            package = package or _package(node)
        elif node.type == "import_declaration":
            imports += list(_imports(node))[: MAX_IMPORTS - len(imports)]
        else:
            has_main = has_main or _name(node) == b"main"
    return GoFile(
        package=package,
        imports=tuple(imports),
        has_main=has_main and package == "main",
        ignored=constraint == b"ignore",
        constrained=bool(constraint),
        error_line=first_error_line(root),
    )


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_go.language()))


def _package(node: Node) -> str:
    return next((_text(child) for child in node.named_children if child.type == "package_identifier"), "")


def _imports(node: Node) -> Iterator[Import]:
    groups = [child for child in node.named_children if child.type == "import_spec_list"]
    for group in [node, *groups]:
        for spec in group.named_children:
            path = spec.child_by_field_name("path") if spec.type == "import_spec" else None
            text = _text(path)[1:-1] if path is not None else ""
            if 0 < len(text) <= MAX_IMPORT_PATH:
                yield Import(path=text, line=spec.start_point[0] + 1)


def _name(node: Node) -> bytes:
    name = node.child_by_field_name("name")
    return (name.text or b"") if name is not None else b""


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def _constraint(content: bytes) -> bytes:
    """The constraint in front of the package, or nothing."""
    package = PACKAGE.search(content)
    head = content[: package.start()] if package else content[:4096]
    found = CONSTRAINT.search(head) or OLD_CONSTRAINT.search(head)
    return found[1].strip() if found else b""
