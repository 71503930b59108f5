"""Imports of one Python file, by tree-sitter: also of files that Python would reject.

The walk visits only what holds the word `import`, so a large file without imports costs its parse alone.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import tree_sitter_python
from tree_sitter import Language, Parser

from services.resolver.python.conditions import evaluate
from services.resolver.python.excerpt import import_part
from services.resolver.python.hints import Hint, find_hints
from services.resolver.python.notebook import NOTEBOOK_SUFFIX, read_notebook
from services.resolver.python.source import read_source
from services.resolver.syntax import first_error_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tree_sitter import Node

DYNAMIC_IMPORTS = frozenset({b"importlib.import_module", b"import_module", b"__import__"})
CATCHES_IMPORT_ERROR = re.compile(rb"\b(ImportError|ModuleNotFoundError|Exception|BaseException)\b")
# A handler that ends the program, or that installs what is missing, does not make an import optional.
GIVES_UP = re.compile(rb"^[ \t]*(raise\b|sys\.exit\b|exit\s*\(|quit\s*\(|os\._exit\b)|\bSystemExit\b", re.MULTILINE)
INSTALLS = re.compile(rb"(subprocess|os\.system|pip\.main|pipmain)[\s\S]*install|install[\s\S]*subprocess")


@dataclass(frozen=True, kw_only=True, slots=True)
class Guard:
    """An import stands in a `try` that catches ImportError: in its body, or in its handler.

    `gives_up` says that the handler does not go on without the import.
    """

    group: int
    in_handler: bool
    gives_up: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """One import. `module` is dotted, empty for `from . import x`; `level` counts the leading dots.

    `names` are those of a `from` import, empty otherwise, and `*` is not among them. `guards` go from the outermost in.
    """

    module: str
    line: int
    level: int = 0
    names: tuple[str, ...] = ()
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """The imports of a file, in order; `problem` and `line` say what is broken, if anything is.

    `hints` are what its comments and strings say is to be installed.
    """

    imports: tuple[Import, ...]
    problem: str = ""
    line: int = 0
    hints: tuple[Hint, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Walk:
    """What the walk knows about the place it is at."""

    guards: tuple[Guard, ...] = ()


def scan_program(path: str, raw: bytes, python: tuple[int, ...], *, whole: bool = True) -> Scan:
    """The imports of a Python file or a notebook, with the lines of that file; raises ManifestError for the latter."""
    if not path.endswith(NOTEBOOK_SUFFIX):
        return scan_source(raw, python, whole=whole)
    script = read_notebook(path, raw)
    scan = scan_source(script.content, python)
    imports = tuple(replace(item, line=script.lines[item.line - 1]) for item in scan.imports)
    hints = tuple(replace(item, line=script.lines[item.line - 1]) for item in scan.hints)
    line = script.lines[scan.line - 1] if scan.line else 0
    return Scan(imports=imports, problem=scan.problem, line=line, hints=hints)


def scan_source(raw: bytes, python: tuple[int, ...], *, whole: bool = True) -> Scan:
    """Find the imports that count on this Python version on Linux; broken parts are skipped and reported.

    Unless the whole file is wanted, what is broken behind the last import is not looked for, which saves most time.
    """
    text = read_source(raw)
    root = _parse(text.content) if whole else _parse_imports(text.content)
    imports = sorted(_Scanner(text.content, python).walk(root), key=lambda found: found.line)
    problem, line = text.problem, text.line
    if not problem and root.has_error:
        problem, line = "is not valid Python", first_error_line(root)
    return Scan(imports=tuple(imports), problem=problem, line=line, hints=tuple(find_hints(text.content)))


def _parse(content: bytes) -> Node:
    return _parser().parse(content).root_node


def _parse_imports(content: bytes) -> Node:
    root = _parse(import_part(content))
    return _parse(content) if root.has_error else root


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_python.language()))


class _Scanner:
    """One walk over one tree, without recursion: nesting is the author's choice."""

    def __init__(self, content: bytes, python: tuple[int, ...]) -> None:
        self.content = content
        self.python = python
        self.marks = [match.start() for match in re.finditer(rb"import", content)]
        self.groups = 0
        self.pending: list[tuple[Node, _Walk]] = []

    def walk(self, root: Node) -> Iterator[Import]:
        self.pending.append((root, _Walk()))
        handlers: dict[str, Callable[[Node, _Walk], Iterator[Import]]] = {
            "import_statement": self._import,
            "import_from_statement": self._import_from,
            "call": self._call,
        }
        while self.pending:
            node, state = self.pending.pop()
            if not self._mentions_import(node):
                continue
            if node.type in handlers:
                yield from handlers[node.type](node, state)
            elif node.type == "try_statement":
                self._try(node, state)
            elif node.type in {"if_statement", "elif_clause", "conditional_expression"}:
                self._if(node, state)
            else:
                self._descend(node.children, state)

    def _mentions_import(self, node: Node) -> bool:
        position = bisect_left(self.marks, node.start_byte)
        return position < len(self.marks) and self.marks[position] < node.end_byte

    def _descend(self, nodes: list[Node], state: _Walk) -> None:
        self.pending.extend((node, state) for node in nodes)

    def _slice(self, node: Node) -> bytes:
        return self.content[node.start_byte : node.end_byte]

    def _dotted(self, node: Node) -> str:
        return re.sub(r"\s|\\", "", self._slice(node).decode("utf-8", "replace"))

    def _names(self, node: Node) -> list[str]:
        found = []
        for child in node.children_by_field_name("name"):
            dotted = child.child_by_field_name("name") if child.type == "aliased_import" else child
            if dotted is not None:
                found.append(self._dotted(dotted))
        return [name for name in found if name]

    def _import(self, node: Node, state: _Walk) -> Iterator[Import]:
        for name in self._names(node):
            yield Import(module=name, line=node.start_point.row + 1, guards=state.guards)

    def _import_from(self, node: Node, state: _Walk) -> Iterator[Import]:
        module_node = node.child_by_field_name("module_name")
        if module_node is None:
            return
        module = self._dotted(module_node)
        name = module.lstrip(".")
        yield Import(
            module=name,
            line=node.start_point.row + 1,
            level=len(module) - len(name),
            names=tuple(self._names(node)),
            guards=state.guards,
        )

    def _call(self, node: Node, state: _Walk) -> Iterator[Import]:
        function = node.child_by_field_name("function")
        arguments = node.child_by_field_name("arguments")
        self._descend(node.children, state)
        if function is None or arguments is None or self._slice(function) not in DYNAMIC_IMPORTS:
            return
        first = next(iter(arguments.named_children), None)
        module = literal_string(self._slice(first)) if first is not None and first.type == "string" else ""
        if module and not module.startswith(".") and all(part.isidentifier() for part in module.split(".")):
            yield Import(module=module, line=node.start_point.row + 1, guards=state.guards)

    def _if(self, node: Node, state: _Walk) -> None:
        if node.type == "conditional_expression":
            self._descend(node.children, state)
            return
        condition = node.child_by_field_name("condition")
        verdict = (
            None if condition is None else evaluate(self._slice(condition).decode("utf-8", "replace"), self.python)
        )
        if condition is not None:
            self.pending.append((condition, state))
        if verdict is not False:
            self._descend(node.children_by_field_name("consequence"), state)
        if verdict is not True:
            self._descend(node.children_by_field_name("alternative"), state)
        self._descend([child for child in node.children if child.type == "ERROR"], state)

    def _try(self, node: Node, state: _Walk) -> None:
        handlers = [child for child in node.children if child.type == "except_clause" and self._catches(child)]
        if not handlers:
            self._descend(node.children, state)
            return
        self.groups += 1
        gives_up = any(self._gives_up(handler) for handler in handlers)
        guard = Guard(group=self.groups, in_handler=False, gives_up=gives_up)
        body = replace(state, guards=(*state.guards, guard))
        handling = replace(state, guards=(*state.guards, replace(guard, in_handler=True)))
        for child in node.children:
            inside = {"block": body, "else_clause": body, "except_clause": handling}.get(child.type, state)
            self.pending.append((child, inside))

    def _catches(self, handler: Node) -> bool:
        values = handler.children_by_field_name("value")
        return not values or any(CATCHES_IMPORT_ERROR.search(self._slice(value)) for value in values)

    def _gives_up(self, handler: Node) -> bool:
        text = self._slice(handler).partition(b":")[2]
        return bool(GIVES_UP.search(text) or INSTALLS.search(text))


def literal_string(text: bytes) -> str:
    """The value of a plain string literal, or the empty string if it is anything else."""
    try:
        value = ast.literal_eval(text.decode())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""
