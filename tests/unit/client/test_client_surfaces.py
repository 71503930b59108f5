"""Whatever one client can do, the other can, under the same names and with the same arguments."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from qila.client import AsyncClient, AsyncExec, AsyncFileWatch, AsyncPortStream, Client, Exec, FileWatch, PortStream
from qila.client.trees import async_unpack, unpack

# As a synchronous signature is written, and as the other one is.
_AWAITED = {
    "Iterator": "AsyncIterator",
    "Iterable": "AsyncIterable",
    "Exec": "AsyncExec",
    "PortStream": "AsyncPortStream",
    "FileWatch": "AsyncFileWatch",
    "Callable[[pb.ExecEvent], None]": "Callable[[pb.ExecEvent], Awaitable[None]]",
}
_PROTOCOLS = {"__enter__": "__aenter__", "__exit__": "__aexit__", "__iter__": "__aiter__", "__next__": "__anext__"}
# How each comes to be is its own affair: a connection is awaited, and a constructor cannot be.
_OWN = {"connect"}


def _public(kind: type[Any]) -> dict[str, Any]:
    found = {name: getattr(kind, name) for name in dir(kind) if name in _PROTOCOLS or not name.startswith("_")}
    found |= {name: getattr(kind, name) for name in _PROTOCOLS.values() if hasattr(kind, name)}
    return {name: member for name, member in found.items() if name not in _OWN}


def _awaited(annotation: object) -> str:
    text = str(annotation)
    for plain, awaited in _AWAITED.items():
        text = re.sub(rf"(?<![\w.]){re.escape(plain)}(?!\w)", awaited, text)
    return text


def _parameters(function: Any, told: Any) -> list[tuple[object, ...]]:
    parameters = inspect.signature(function).parameters.values()
    return [(item.name, item.kind, item.default, told(item.annotation)) for item in parameters]


PAIRS = [(Client, AsyncClient), (Exec, AsyncExec), (PortStream, AsyncPortStream), (FileWatch, AsyncFileWatch)]


@pytest.mark.parametrize(("plain", "awaited"), PAIRS)
def test_both_have_the_same_calls(plain: type[Any], awaited: type[Any]) -> None:
    assert {_PROTOCOLS.get(name, name) for name in _public(plain)} == set(_public(awaited))


@pytest.mark.parametrize(
    ("plain", "awaited"),
    [
        pytest.param(member, getattr(two, _PROTOCOLS.get(name, name)), id=f"{one.__name__}.{name}")
        for one, two in PAIRS
        for name, member in _public(one).items()
    ]
    + [pytest.param(unpack, async_unpack, id="unpack")],
)
def test_both_take_and_answer_the_same(plain: Any, awaited: Any) -> None:
    if isinstance(plain, property):
        assert isinstance(awaited, property)
        plain, awaited = plain.fget, awaited.fget
    assert _parameters(plain, _awaited) == _parameters(awaited, str)
    answers = inspect.signature(plain).return_annotation
    assert _awaited(answers) == str(inspect.signature(awaited).return_annotation)
    assert awaited.__doc__ or awaited.__name__.startswith("__")


def test_both_are_made_alike() -> None:
    assert _parameters(Client.__init__, str) == _parameters(AsyncClient.__init__, str)
