"""Reads a large JSON object member by member, so that a thread that does so lets others run in between."""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

_WHITESPACE = re.compile(r"[ \t\n\r]*")


def _refuse_constant(name: str) -> NoReturn:
    """NaN and the infinities are Python's, not JSON's."""
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def read_value(text: str, at: int) -> tuple[Any, int]:
    """The value at a position of a JSON text, and the position after it.

    Raises:
        ValueError: no JSON.
        RecursionError: nested too deeply.
    """
    value, end = _DECODER.raw_decode(text, at)
    return value, end


def walk_object(text: str, at: int, take: Callable[[str, int], int]) -> int:
    """Call `take` with the key and the position of the value of every member of the object at `at`.

    `take` returns the position after the value, which it may have read by `read_value` or by this function again.
    Returns the position after the object.

    Raises:
        ValueError: no object, or no JSON.
        RecursionError: nested too deeply.
    """
    at = _skip(text, _expect(text, _skip(text, at), "{"))
    if text.startswith("}", at):
        return at + 1
    while True:
        _expect(text, at, '"')
        key, at = read_value(text, at)
        at = take(key, _skip(text, _expect(text, _skip(text, at), ":")))
        at = _skip(text, at)
        if text.startswith("}", at):
            return at + 1
        at = _skip(text, _expect(text, at, ","))


def is_end(text: str, at: int) -> bool:
    """Whether nothing but white space follows."""
    return _skip(text, at) == len(text)


def _skip(text: str, at: int) -> int:
    match = _WHITESPACE.match(text, at)
    assert match is not None
    return match.end()


def _expect(text: str, at: int, mark: str) -> int:
    if not text.startswith(mark, at):
        raise json.JSONDecodeError(f"expecting {mark}", text, at)
    return at + 1
