"""JSON as people write it into manifests: strict, bounded, with the line of every key that errors may have to name."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any

from services.resolver.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_DEPTH = 100
# How deep the keys lie whose lines are known.
KNOWN_DEPTH = 2
# One token of valid JSON that says something about structure; numbers and words are passed over.
# A string or comment that nothing ends takes the rest: tried again at every quote in it, it would cost its square.
TOKEN = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[{}\[\],:\n]')
COMMENT_OR_TRAILING_COMMA = re.compile(r'("(?:[^"\\\n]|\\.?)*+"?)|//[^\n]*|/\*.*?(?:\*/|\Z)|,(?=\s*+[}\]])', re.DOTALL)
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Where a key stands: its own name behind those of the objects around it.
KeyPath = tuple[str, ...]


class JsonText:
    """A JSON object and the places of its keys."""

    def __init__(self, path: str, raw: bytes) -> None:
        """Read the file; raises ManifestError with line and column for anything that is not one JSON object."""
        self.path = path
        text = _decode(path, raw)
        _check_depth(path, text)
        self.value = _parse(path, text)
        self._text = text
        self._lines: Mapping[KeyPath, int] | None = None

    def line(self, *key: str) -> int:
        """The line of a key at most two objects deep, else of the nearest object around it that is known."""
        if self._lines is None:
            self._lines = _key_lines(self._text)
        place = key[:KNOWN_DEPTH]
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines[place] if place else 1

    def error(self, reason: str, *key: str) -> ManifestError:
        """An error about what stands behind a key."""
        return ManifestError(path=self.path, line=self.line(*key), reason=reason)


def has_lone_surrogate(text: str, value: object) -> bool:
    """Whether JSON that was read holds half of a surrogate pair, which can be written nowhere else."""
    # Only escapes can bring one.
    return "\\ud" in text.lower() and bool(LONE_SURROGATE.search(json.dumps(value, ensure_ascii=False)))


def read_relaxed(raw: bytes) -> dict[str, Any] | None:
    """An object of JSON with comments and trailing commas, as TypeScript's compiler reads it; None if it is none."""
    try:
        text = _decode("", raw)
        # What hides in strings must not be taken for a comment, so strings are matched first and kept.
        without_comments = COMMENT_OR_TRAILING_COMMA.sub(lambda match: match[1] or " ", text)
        plain = COMMENT_OR_TRAILING_COMMA.sub(lambda match: match[1] or " ", without_comments)
        _check_depth("", plain)
        value = json.loads(plain)
    except (ManifestError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not has_lone_surrogate(plain, value) else None


def _decode(path: str, raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ManifestError(path=path, line=1, reason="is UTF-16; save it as UTF-8")
    content = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ManifestError(path=path, line=line, reason="is not UTF-8; save it as UTF-8") from error


def _check_depth(path: str, text: str) -> None:
    """Refuse what nests too deep before anything walks it: Python's own reader would recurse."""
    depth, line = 0, 1
    for match in TOKEN.finditer(text):
        mark = match[0]
        if mark == "\n":
            line += 1
        elif mark in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                raise ManifestError(path=path, line=line, reason=f"is nested more than {MAX_DEPTH} deep")
        elif mark in "}]":
            depth -= 1


def _parse(path: str, text: str) -> dict[str, Any]:
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            repeated.append(_first_repeated(name for name, _ in items))
        return found

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        reason = f"is not valid JSON: {_reason(error, text)}"
        raise ManifestError(path=path, line=error.lineno, column=error.colno, reason=reason) from error
    except ValueError as error:
        raise ManifestError(path=path, line=1, reason=f"is not valid JSON: {str(error)[:80]}") from error
    if repeated:
        reason = f"the key {repeated[0][:80]!r} stands twice in one object; remove one of them"
        raise ManifestError(path=path, line=_second_line(text, repeated[0]), reason=reason)
    if not isinstance(value, dict):
        raise ManifestError(path=path, line=1, reason="must hold a JSON object, {…}")
    if has_lone_surrogate(text, value):
        raise ManifestError(path=path, line=1, reason="holds half of a surrogate pair, which is no character")
    return value


def _first_repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _reason(error: json.JSONDecodeError, text: str) -> str:
    """The reader's words, and what to do where the cause is a usual one."""
    rest = text[error.pos : error.pos + 2]
    before = text[: error.pos].rstrip()[-1:]
    if rest in {"//", "/*"}:
        return "comments are not allowed; remove them"
    if rest[:1] in {"}", "]"} and before == ",":
        return "a comma before the closing bracket; remove it"
    if "property name" in error.msg and before == ",":
        return "a comma before the closing bracket, or a key without double quotes"
    return error.msg


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line = 1
    for match in TOKEN.finditer(text):
        if match[0] == "\n":
            line += 1
        else:
            yield match[0], line


def _key_lines(text: str) -> dict[KeyPath, int]:
    """The lines of the keys of the outermost object and of the objects in it."""
    lines: dict[KeyPath, int] = {}
    for place, line in _keys(text):
        lines.setdefault(place, line)
    return lines


def _keys(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Every key at most two objects deep, in order; `text` is valid JSON."""
    path: list[str] = []
    depth = 0
    last: tuple[str, int] = ("", 0)
    for mark, line in _tokens(text):
        if mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
            path = path[:depth]
        elif mark == ":" and depth <= KNOWN_DEPTH:
            path = [*path[: depth - 1], json.loads(last[0])]
            yield tuple(path), last[1]
        elif mark not in ",:":
            last = (mark, line)


def _second_line(text: str, name: str) -> int:
    """Where a key that stands twice stands for the second time."""
    seen: set[KeyPath] = set()
    for place, line in _keys(text):
        if place[-1] == name and place in seen:
            return line
        seen.add(place)
    return 1
