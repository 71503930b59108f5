"""A TOML file that knows in which line each of its keys and strings stands."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from services.resolver.errors import ManifestError
from services.resolver.python.manifests.text import decode_manifest

TOML_PLACE = re.compile(r"\(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)")
QUOTED = re.compile(r"\"([^\"\\]*)\"|'([^']*)'")
MAX_ENTRIES = 20_000
# The parser's time and memory grow with the square of how deep dotted keys go.
MAX_DOTS_IN_LINE = 300
MAX_DOTS = 100_000
TOO_DEEP = "is nested too deep; no manifest needs that"


@dataclass(frozen=True, kw_only=True)
class TomlFile:
    """The document, and where it stands; `offset` is the number of lines before it in its file."""

    path: str
    text: str
    data: dict[str, Any]
    offset: int = 0

    def line(self, *keys: str) -> int:
        """The line of a key or of the nearest table around it that can be found."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self._key_lines:
                return self._key_lines[keys[:length]] + self.offset
        return 1 + self.offset

    def line_of_string(self, value: str, start: int) -> int:
        """The first line from `start` on that holds the quoted string, else `start`."""
        for line in self._string_lines.get(value, ()):
            if line + self.offset >= start:
                return line + self.offset
        return start

    def error(self, reason: str, *keys: str) -> ManifestError:
        """An error that names the key's line."""
        return ManifestError(path=self.path, line=self.line(*keys), reason=reason)

    def get(self, *keys: str) -> Any:
        """The value of a key, or None; raises ManifestError if what should be a table around it is none."""
        value: Any = self.data
        for depth, key in enumerate(keys):
            if not isinstance(value, dict):
                raise self.error(f"{'.'.join(keys[:depth])} must be a table", *keys[:depth])
            if key not in value:
                return None
            value = value[key]
        return value

    def table(self, *keys: str) -> dict[str, Any]:
        """A table, empty if it is not there; raises ManifestError."""
        value = self.get(*keys)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(f"{'.'.join(keys)} must be a table", *keys)
        return value

    def strings(self, *keys: str) -> list[str]:
        """A list of strings, empty if it is not there; raises ManifestError."""
        value = self.get(*keys)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(f"{'.'.join(keys)} must be a list of strings", *keys)
        if len(value) > MAX_ENTRIES:
            raise self.error(f"{'.'.join(keys)} has more than {MAX_ENTRIES} entries", *keys)
        return value

    @cached_property
    def header_lines(self) -> dict[tuple[str, ...], list[int]]:
        """All lines of each table's header: an array of tables has several."""
        found: dict[tuple[str, ...], list[int]] = {}
        for number, line in enumerate(self.text.split("\n"), start=1):
            header = _header(line)
            if header:
                found.setdefault(header, []).append(number + self.offset)
        return found

    @cached_property
    def _key_lines(self) -> dict[tuple[str, ...], int]:
        found: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        for number, line in enumerate(self.text.split("\n"), start=1):
            header = _header(line)
            if header:
                table = header
                found.setdefault(table, number)
            elif "=" in line:
                found.setdefault((*table, *_parts(line.partition("=")[0])), number)
        return found

    @cached_property
    def _string_lines(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, line in enumerate(self.text.split("\n"), start=1):
            for match in QUOTED.finditer(line):
                found.setdefault(match[1] if match[1] is not None else match[2], []).append(number)
        return found


def read_toml(path: str, raw: bytes) -> TomlFile:
    """Parse a TOML file; raises ManifestError."""
    text = decode_manifest(path, raw)
    return TomlFile(path=path, text=text, data=parse_toml(path, text))


def parse_toml(path: str, text: str, offset: int = 0) -> dict[str, Any]:
    """Parse TOML that begins after `offset` lines of its file; raises ManifestError."""
    _check_dots(path, text, offset)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = TOML_PLACE.search(str(error))
        last = text.count("\n") + 1
        raise ManifestError(
            path=path,
            line=(int(place["line"]) if place and place["line"] else last) + offset,
            column=int(place["column"]) if place and place["column"] else 0,
            reason=TOML_PLACE.sub("", str(error)).strip(),
        ) from error
    except RecursionError as error:
        deep = "[" * 50 if "[" * 50 in text else "{"
        line = text[: text.find(deep)].count("\n") + 1 + offset
        raise ManifestError(path=path, line=line, reason=TOO_DEEP) from error


def _check_dots(path: str, text: str, offset: int) -> None:
    """Raise ManifestError for keys of very many parts: dots that stand in no string and no comment."""
    total = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if "." not in line:
            continue
        dots = QUOTED.sub("", line).partition("#")[0].count(".")
        total += dots
        if dots > MAX_DOTS_IN_LINE or total > MAX_DOTS:
            raise ManifestError(path=path, line=number + offset, reason=TOO_DEEP)


def _header(line: str) -> tuple[str, ...]:
    """The name of the table that a line begins, as its parts; empty for any other line."""
    text = line.strip()
    if not text.startswith("[") or "]" not in text or '"' in text.partition("]")[2].partition("#")[0]:
        return ()
    return _parts(text.lstrip("[").partition("]")[0])


def _parts(dotted: str) -> tuple[str, ...]:
    """The parts of a key. Dots inside quotes are rare enough to be left to chance: only a line number is at stake."""
    text = dotted.strip()
    if text[:1] in {'"', "'"} and text[-1:] == text[:1]:
        return (text[1:-1],)
    return tuple(part.strip().strip("\"'") for part in text.split("."))
