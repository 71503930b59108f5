"""What one source of Java says: its package, imports, types and entry points, by tree-sitter; broken files too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import tree_sitter_java
from tree_sitter import Language, Parser

from services.resolver.syntax import first_error_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node

SUFFIX = ".java"
WORD = re.compile(rb"[A-Za-z_$\x80-\xff][\w$\x80-\xff]*")
DECLARED = re.compile(rb"\b(?:class|interface|enum|record)\s+([A-Za-z_$][\w$]*)")
PACKAGE = re.compile(rb"^[ \t]*package[ \t]+([\w.]{1,500})[ \t]*;", re.MULTILINE)
# Features that only a preview of Java 21 has: string templates, and a name that is one underscore.
PREVIEW = re.compile(rb"\b(?:STR|FMT|RAW)\s*\.\s*\"|\b_\s*(?:->|[,)])|\b(?:var|[A-Z]\w*)\s+_\s*[=:]")
TYPES = frozenset({"class_declaration", "interface_declaration", "enum_declaration", "record_declaration"})
QUALIFIED = re.compile(rb"\b[a-z]\w{0,60}(?:\.[a-z]\w{0,60}){1,12}\.[A-Z]\w*")
TEST = re.compile(rb"@(?:Test|ParameterizedTest|RepeatedTest|TestFactory)\b")
URL = re.compile(rb"\"(jdbc:[a-z0-9]{1,30}:)")
MAX_QUALIFIED = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """A name that a source takes from elsewhere; a name of a package ends with `.*`."""

    name: str
    line: int
    static: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """What a glance shows: the package, the types that are declared anywhere, and all words."""

    package: str
    types: frozenset[str]
    words: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What a look shows. `mains` are the types, at the top, that can be started; empty for one without a name."""

    package: str
    imports: tuple[Import, ...]
    types: tuple[str, ...]
    mains: tuple[str, ...]
    unnamed: bool
    preview: bool
    tests: bool
    broken_line: int
    urls: tuple[tuple[str, int], ...] = ()


def outline(content: bytes) -> Outline:
    """The words of a source, in linear time and without a parse."""
    package = PACKAGE.search(content[:65536])
    return Outline(
        package=package[1].decode("utf-8", "replace") if package else "",
        types=frozenset(match[1].decode("utf-8", "replace") for match in DECLARED.finditer(content)),
        words=frozenset(match[0].decode("utf-8", "replace") for match in WORD.finditer(content)),
    )


def scan(content: bytes) -> Scan:
    """Parse one source."""
    root = _parser().parse(content).root_node
    package = next((_text(node.named_child(0)) for node in root.children if node.type == "package_declaration"), "")
    imports = [_import(node) for node in root.children if node.type == "import_declaration"]
    types = [node for node in root.children if node.type in TYPES]
    names = {node.id: _text(node.child_by_field_name("name")) for node in types}
    static = [node for node in types if _has_main(node, instance=False)]
    instance = [node for node in types if node not in static and _has_main(node, instance=True)]
    unnamed = any(_is_main(node) for node in root.children if node.type == "method_declaration")
    return Scan(
        package=package,
        imports=(*(item for item in imports if item.name), *_qualified(root, content)),
        types=tuple(names.values()),
        mains=tuple(names[node.id] for node in (static or instance)),
        unnamed=unnamed,
        preview=unnamed or (bool(instance) and not static) or bool(PREVIEW.search(content)),
        tests=bool(TEST.search(content)),
        broken_line=first_error_line(root),
        urls=tuple((match[1].decode(), content.count(b"\n", 0, match.start()) + 1) for match in URL.finditer(content)),
    )


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_java.language()))


def _text(node: Node | None) -> str:
    return "" if node is None or node.text is None else node.text.decode("utf-8", "replace")


def _import(node: Node) -> Import:
    name = next(
        (_text(child) for child in node.named_children if child.type in {"scoped_identifier", "identifier"}), ""
    )
    wildcard = any(child.type == "asterisk" for child in node.children)
    static = any(child.type == "static" for child in node.children)
    name = re.sub(r"\s+", "", name)[:500]
    return Import(name=f"{name}.*" if wildcard else name, line=node.start_point[0] + 1, static=static)


def _has_main(node: Node, *, instance: bool) -> bool:
    body = node.child_by_field_name("body")
    members = list(body.children) if body is not None else []
    # The members of an enum lie one level deeper.
    members += [inner for item in members if item.type == "enum_body_declarations" for inner in item.children]
    return any(_is_main(item) and (instance or _is_static(item, node)) for item in members)


def _is_main(node: Node) -> bool:
    if node.type != "method_declaration" or _text(node.child_by_field_name("name")) != "main":
        return False
    if _text(node.child_by_field_name("type")) != "void":
        return False
    parameters = node.child_by_field_name("parameters")
    given = [item for item in parameters.named_children if "comment" not in item.type] if parameters is not None else []
    return not given or (len(given) == 1 and "String" in _text(given[0]))


def _is_static(method: Node, owner: Node) -> bool:
    del owner
    modifiers = next((child for child in method.children if child.type == "modifiers"), None)
    words = _text(modifiers).split()
    parameters = method.child_by_field_name("parameters")
    return "static" in words and parameters is not None and bool(parameters.named_children)


def _qualified(root: Node, content: bytes) -> Iterator[Import]:
    """Types that are named in full where they are used."""
    if not QUALIFIED.search(content):
        return
    seen: set[str] = set()
    pending = [root]
    while pending:
        node = pending.pop()
        if node.type in {"import_declaration", "package_declaration"}:
            continue
        if node.type in {"scoped_type_identifier", "field_access"}:
            match = QUALIFIED.match(re.sub(rb"\s+", b"", node.text or b""))
            name = match[0].decode("utf-8", "replace")[:500] if match else ""
            if name and name not in seen and len(seen) < MAX_QUALIFIED:
                seen.add(name)
                yield Import(name=name, line=node.start_point[0] + 1)
            continue
        pending.extend(reversed(node.children))
