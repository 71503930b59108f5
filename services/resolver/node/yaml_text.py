"""YAML as lockfiles use it: mappings, lists and texts with their lines. No aliases, no tags, bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from services.resolver.errors import LockError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 20
MAX_VALUES = 2_000_000


class Mapping(dict[str, object]):
    """A mapping with the line of each key, from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}

    def mapping(self, key: str) -> Mapping:
        """The mapping at a key; an empty one if there is none."""
        value = self.get(key)
        return value if isinstance(value, Mapping) else Mapping()

    def text(self, key: str) -> str:
        """The text at a key, or an empty one."""
        value = self.get(key)
        return value if isinstance(value, str) else ""


def read_yaml(text: str, name: str) -> Mapping:
    """The document's mapping; every scalar is a text. Raises LockError with the line."""
    try:
        events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return _Reader(events, name).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = f"is not YAML: {getattr(error, 'problem', None) or 'it cannot be read'}"
        raise LockError(name=name, line=mark.line + 1 if mark else 0, reason=reason) from error


class _Reader:
    """Builds values from the parser's events."""

    def __init__(self, events: Iterator[yaml.Event], name: str) -> None:
        self._events = events
        self._name = name
        self._count = 0

    def document(self) -> Mapping:
        """The first document, which must be a mapping."""
        for event in self._events:
            if isinstance(event, yaml.MappingStartEvent):
                return self._mapping(1)
            if not isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
                raise self._error(event, "must be a mapping")
        raise LockError(name=self._name, line=0, reason="is empty")

    def _value(self, event: yaml.Event, depth: int) -> object:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise self._error(event, f"has more than {MAX_VALUES} values or {MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            return event.value
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(depth + 1)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(depth + 1)
        raise self._error(event, "uses an alias, which no lock does")

    def _mapping(self, depth: int) -> Mapping:
        found = Mapping()
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "has a key that is no text")
            found.lines[event.value] = _line(event)
            found[event.value] = self._value(next(self._events), depth)
        return found

    def _sequence(self, depth: int) -> list[object]:
        found: list[object] = []
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            found.append(self._value(event, depth))
        return found

    def _error(self, event: yaml.Event, reason: str) -> LockError:
        return LockError(name=self._name, line=_line(event), reason=reason)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0
