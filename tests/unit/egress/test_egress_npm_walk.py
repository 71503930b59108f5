import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.egress.ecosystems.npm_walk import is_end, read_value, walk_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def walk(text: str) -> dict[str, Any]:
    members: dict[str, Any] = {}

    def take(key: str, at: int) -> int:
        members[key], end = read_value(text, at)
        return end

    end = walk_object(text, 0, take)
    if not is_end(text, end):
        raise ValueError(text)
    return members


@given(
    document=st.dictionaries(st.text(), VALUES), indent=st.sampled_from([None, 1]), space=st.sampled_from(["", "\n"])
)
def test_an_object_reads_as_json_reads_it(document: dict[str, Any], indent: int | None, space: str) -> None:
    text = space + json.dumps(document, indent=indent) + space
    assert walk(text) == json.loads(text) == document


@given(text=st.lists(st.sampled_from(["{", "}", '"a"', ":", ",", "1", "[", "]", " ", "null", "NaN"]), max_size=9))
def test_what_is_no_json_object_is_refused(text: list[str]) -> None:
    joined = "".join(text)
    try:
        expected = json.loads(joined, parse_constant=int)
    except ValueError:
        expected = None
    found: dict[str, Any] | None
    try:
        found = walk(joined)
    except ValueError:
        found = None
    assert found == (expected if isinstance(expected, dict) else None)


@pytest.mark.parametrize("text", ["", "{", '{"a"1}', '{"a":1:"b":2}', '{"a":1,}', '{,"a":1}', "{1:2}", "[]", '{"a":1]'])
def test_marks_in_the_wrong_place_are_refused(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        walk(text)


def test_deep_nesting_ends_in_an_error() -> None:
    with pytest.raises(RecursionError):
        walk('{"a":' + "[" * 100_000)
