"""Imports of one file of JavaScript or TypeScript, by tree-sitter: also of files that Node would reject.

The walk visits only what holds a word that matters, so a large file without imports costs its parse alone.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import tree_sitter_javascript
import tree_sitter_typescript
from tree_sitter import Language, Parser

from services.resolver.node.usage import names_used_as_values
from services.resolver.syntax import first_error_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tree_sitter import Node

JAVASCRIPT_SUFFIXES = (".js", ".mjs", ".cjs", ".jsx")
TYPESCRIPT_SUFFIXES = (".ts", ".mts", ".cts", ".tsx")
JSX_SUFFIXES = (".jsx", ".tsx")
DECLARATION_SUFFIXES = (".d.ts", ".d.mts", ".d.cts")
SOURCE_SUFFIXES = JAVASCRIPT_SUFFIXES + TYPESCRIPT_SUFFIXES

MARKS = re.compile(rb"import|require|from|Worker|fork")
TYPESCRIPT_MARKS = re.compile(
    rb"import|require|from|Worker|fork|enum|namespace|module|@|private|public|protected|readonly|override|export\s*="
)
# A handler that ends the program or throws again does not make an import optional.
GIVES_UP = re.compile(rb"\bthrow\b|\bprocess\s*\.\s*exit\b|\bPromise\s*\.\s*reject\b")
JSX = re.compile(rb"</|/>|<>")
JSX_SOURCE = re.compile(rb"@jsxImportSource\s+([@\w./-]{1,214})")
# What JSX calls without naming it.
JSX_MAKERS = frozenset({b"React", b"Fragment", b"h"})
PARAMETER_KINDS = frozenset({"accessibility_modifier", "readonly", "override_modifier"})
# Statements of TypeScript that are more than JavaScript with types; where they stand is said to the author.
BEYOND_TYPES = {
    "enum_declaration": "an enum",
    "internal_module": "a namespace",
    "module": "a namespace",
    "decorator": "a decorator",
}


# The longest name of a call that loads something.
LONGEST_CALL = 40
# How much of a handler is read, in bytes.
LONGEST_HANDLER = 4_000


class Form:
    """How an import is written."""

    IMPORT = "import"
    REQUIRE = "require"
    # A file that a worker or another process runs.
    PROGRAM = "program"


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """One import with a literal specifier.

    `optional` says that the program goes on without it; `types_only` that nothing is loaded at run time.
    """

    specifier: str
    line: int
    form: str = Form.IMPORT
    optional: bool = False
    types_only: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """The imports of a file, in order; `problem` and `line` say what is broken, if anything is.

    `beyond_types` names what Node's own type stripping cannot run, with its line, or is empty. `jsx` says that the file
    holds JSX, `jsx_source` by which package it asks to make it. `dynamic` says that an import's name is computed.
    """

    imports: tuple[Import, ...]
    problem: str = ""
    line: int = 0
    beyond_types: str = ""
    beyond_types_line: int = 0
    jsx: bool = False
    jsx_source: str = ""
    dynamic: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Walk:
    """What the walk knows about the place it is at."""

    optional: bool = False
    ambient: bool = False


def scan_source(path: str, raw: bytes) -> Scan:
    """Find the imports of a file; broken parts are skipped and reported."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Scan(imports=(), problem="is UTF-16; save it as UTF-8", line=1)
    content = raw.removeprefix(codecs.BOM_UTF8)
    root = _parser(_grammar(path)).parse(content).root_node
    jsx = path.endswith(JSX_SUFFIXES) and bool(JSX.search(content))
    scanner = _Scanner(content, root, typescript=path.endswith(TYPESCRIPT_SUFFIXES), jsx=jsx)
    imports = sorted(scanner.walk(root), key=lambda found: found.line)
    problem, line = ("is not valid, as far as it was read", first_error_line(root)) if root.has_error else ("", 0)
    source = JSX_SOURCE.search(content)
    return Scan(
        imports=tuple(imports),
        problem=problem,
        line=line,
        beyond_types=scanner.beyond_types,
        beyond_types_line=scanner.beyond_types_line,
        jsx=jsx,
        jsx_source=source[1].decode() if source else "",
        dynamic=scanner.dynamic,
    )


def _grammar(path: str) -> str:
    if path.endswith(".tsx"):
        return "tsx"
    return "typescript" if path.endswith(TYPESCRIPT_SUFFIXES) else "javascript"


@cache
def _parser(grammar: str) -> Parser:
    languages = {
        "javascript": tree_sitter_javascript.language,
        "typescript": tree_sitter_typescript.language_typescript,
        "tsx": tree_sitter_typescript.language_tsx,
    }
    return Parser(Language(languages[grammar]()))


class _Scanner:
    """One walk over one tree, without recursion: nesting is the author's choice."""

    def __init__(self, content: bytes, root: Node, *, typescript: bool, jsx: bool) -> None:
        self.content = content
        self.root = root
        self.typescript = typescript
        self.jsx = jsx
        self.marks = [match.start() for match in (TYPESCRIPT_MARKS if typescript else MARKS).finditer(content)]
        self.pending: list[tuple[Node, _Walk]] = []
        self.beyond_types = ""
        self.beyond_types_line = 0
        self.dynamic = False
        # Imports whose names are still to be looked for among the values, with those names.
        self.named: list[tuple[Import, Sequence[bytes]]] = []

    def walk(self, root: Node) -> Iterator[Import]:
        self.pending.append((root, _Walk()))
        handlers: dict[str, Callable[[Node, _Walk], Iterator[Import]]] = {
            "import_statement": self._import,
            "export_statement": self._export,
            "call_expression": self._call,
            "new_expression": self._new,
        }
        while self.pending:
            node, state = self.pending.pop()
            if not self._is_marked(node):
                continue
            if node.type in handlers:
                yield from handlers[node.type](node, state)
            elif node.type == "try_statement":
                self._try(node, state)
            elif node.type not in {"type_alias_declaration", "interface_declaration", "comment", "string"}:
                self._look_at(node, state)
                inside = replace(state, ambient=True) if node.type == "ambient_declaration" else state
                self._descend(node.children, inside)
        yield from self._named_imports()

    def _is_marked(self, node: Node) -> bool:
        position = bisect_left(self.marks, node.start_byte)
        return position < len(self.marks) and self.marks[position] < node.end_byte

    def _descend(self, nodes: Sequence[Node], state: _Walk) -> None:
        self.pending.extend((node, state) for node in nodes)

    def _slice(self, node: Node) -> bytes:
        return self.content[node.start_byte : node.end_byte]

    def _literal(self, node: Node | None) -> str:
        """The value of a string without escapes and substitutions, else the empty string."""
        if node is None or node.type not in {"string", "template_string"}:
            return ""
        text = self._slice(node)[1:-1]
        if b"\\" in text or b"${" in text or b"\n" in text:
            return ""
        return text.decode("utf-8", "replace")

    def _look_at(self, node: Node, state: _Walk) -> None:
        """Note what type stripping cannot run."""
        if not self.typescript or state.ambient:
            return
        if node.type in BEYOND_TYPES and node.is_named:
            self._note(BEYOND_TYPES[node.type], node)
        elif node.type in {"required_parameter", "optional_parameter"} and any(
            child.type in PARAMETER_KINDS for child in node.children
        ):
            self._note("a parameter property", node)

    def _note(self, what: str, node: Node) -> None:
        line = node.start_point.row + 1
        if not self.beyond_types or line < self.beyond_types_line:
            self.beyond_types, self.beyond_types_line = what, line

    def _import(self, node: Node, state: _Walk) -> Iterator[Import]:
        types_only = state.ambient or any(child.type == "type" for child in node.children)
        required = next((child for child in node.children if child.type == "import_require_clause"), None)
        source = node.child_by_field_name("source")
        if required is not None:
            source = next((child for child in required.children if child.type == "string"), None)
            if not types_only:
                self._note("`import x = require()`", node)
        specifier = self._literal(source)
        if not specifier:
            return
        form = Form.REQUIRE if required is not None else Form.IMPORT
        found = Import(specifier=specifier, line=node.start_point.row + 1, form=form, types_only=types_only)
        clause = next((child for child in node.children if child.type == "import_clause"), None)
        names = self._bound_names(clause) if clause is not None and self.typescript and not types_only else []
        if names or (clause is not None and self.typescript and self._only_types(clause)):
            self.named.append((found, names))
        else:
            yield found

    def _only_types(self, clause: Node) -> bool:
        """Whether a clause binds names, each of them marked as a type."""
        return any(child.type == "named_imports" and child.named_child_count for child in clause.children)

    def _bound_names(self, clause: Node) -> list[bytes]:
        """The names that a clause binds and does not mark as types."""
        names = []
        for child in clause.children:
            if child.type == "identifier":
                names.append(self._slice(child))
            elif child.type == "namespace_import":
                names.extend(self._slice(part) for part in child.children if part.type == "identifier")
            elif child.type == "named_imports":
                names.extend(self._specifier_names(child))
        return names

    def _specifier_names(self, named: Node) -> Iterator[bytes]:
        for item in named.children:
            if item.type != "import_specifier" or any(part.type == "type" for part in item.children):
                continue
            bound = item.child_by_field_name("alias") or item.child_by_field_name("name")
            if bound is not None:
                yield self._slice(bound)

    def _named_imports(self) -> Iterator[Import]:
        """TypeScript drops an import whose names are all used as types; Node's type stripping does not."""
        wanted = {name for _, names in self.named for name in names}
        used = names_used_as_values(self.content, self.root, wanted) if wanted else frozenset()
        if self.jsx:
            used |= JSX_MAKERS
        for found, names in self.named:
            unused = [name for name in names if name not in used]
            if unused and not self.beyond_types:
                self.beyond_types = "an import of types without the word `type`"
                self.beyond_types_line = found.line
            yield replace(found, types_only=found.types_only or len(unused) == len(names))

    def _export(self, node: Node, state: _Walk) -> Iterator[Import]:
        source = self._literal(node.child_by_field_name("source"))
        if source:
            types_only = state.ambient or any(child.type == "type" for child in node.children)
            yield Import(specifier=source, line=node.start_point.row + 1, types_only=types_only)
            return
        if self.typescript and any(child.type == "=" for child in node.children) and not state.ambient:
            self._note("`export =`", node)
        self._descend(node.children, state)

    def _call(self, node: Node, state: _Walk) -> Iterator[Import]:
        function = node.child_by_field_name("function")
        arguments = node.child_by_field_name("arguments")
        if function is None or arguments is None:
            self._descend(node.children, state)
            return
        if function.type == "member_expression" and self._name_of(function, "property") == b"catch":
            # A rejected import that is caught is one that the program can do without.
            caught = replace(state, optional=state.optional or not self._gives_up(arguments))
            self.pending.append((function, caught))
            self.pending.append((arguments, state))
            return
        self._descend(node.children, state)
        form = self._form(function)
        if not form:
            return
        first = next((child for child in arguments.named_children if child.type != "comment"), None)
        specifier = self._literal(first)
        if specifier:
            yield Import(specifier=specifier, line=node.start_point.row + 1, form=form, optional=state.optional)
        elif form != Form.PROGRAM:
            self.dynamic = True

    def _form(self, function: Node) -> str:
        if function.type == "import":
            return Form.IMPORT
        text = self._slice(function) if function.end_byte - function.start_byte < LONGEST_CALL else b""
        if text in {b"require", b"require.resolve", b"module.require"}:
            return Form.REQUIRE
        if text == b"import.meta.resolve":
            return Form.IMPORT
        return Form.PROGRAM if text in {b"fork", b"child_process.fork", b"cp.fork"} else ""

    def _new(self, node: Node, state: _Walk) -> Iterator[Import]:
        """The file of a worker, by its name or by `new URL(name, import.meta.url)`."""
        self._descend(node.children, state)
        arguments = node.child_by_field_name("arguments")
        if arguments is None or self._name_of(node, "constructor") != b"Worker":
            return
        first = next(iter(arguments.named_children), None)
        if first is not None and first.type == "new_expression":
            inner = first.child_by_field_name("arguments")
            first = next(iter(inner.named_children), None) if inner is not None else None
        specifier = self._literal(first)
        if specifier:
            line = node.start_point.row + 1
            yield Import(specifier=specifier, line=line, form=Form.PROGRAM, optional=state.optional)

    def _gives_up(self, handler: Node) -> bool:
        """Whether a handler ends the program, as far as its beginning says: handlers nest."""
        end = min(handler.end_byte, handler.start_byte + LONGEST_HANDLER)
        return bool(GIVES_UP.search(self.content, handler.start_byte, end))

    def _name_of(self, node: Node, field: str) -> bytes:
        named = node.child_by_field_name(field)
        return self._slice(named) if named is not None else b""

    def _try(self, node: Node, state: _Walk) -> None:
        """What a `try` loads is optional if its handler goes on; what the handler loads instead is so too."""
        handler = node.child_by_field_name("handler")
        goes_on = handler is not None and not self._gives_up(handler)
        inside = replace(state, optional=True) if goes_on else state
        body = node.child_by_field_name("body")
        alternative = handler is not None and self._is_marked(handler) and body is not None and self._is_marked(body)
        for child in node.children:
            if child == body:
                # With another import in the handler one of the two is needed: the first.
                self.pending.append((child, state if alternative else inside))
            elif child == handler and alternative:
                self.pending.append((child, replace(state, optional=True)))
            else:
                self.pending.append((child, state))
