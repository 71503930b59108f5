"""What the executor believes of a watch: sandboxd may say anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.executor.errors import ProtocolError
from services.executor.file_watches import ChangeKind, EndReason, FileChange, Sign, parsed_end, parsed_event

GOOD = ["moved", "b", "a", "file", 1, 2, True]


def row(place: int, value: Any) -> bytes:
    return json.dumps([[*GOOD[:place], value, *GOOD[place + 1 :]]]).encode()


def test_what_is_well_formed_is_taken_over() -> None:
    assert parsed_event({"kind": "ready"}, b"[]") is Sign.READY
    assert parsed_event({"kind": "overflow"}, b"[]") is Sign.OVERFLOW
    assert parsed_event({"kind": "changes"}, json.dumps([GOOD]).encode()) == [
        FileChange(
            kind=ChangeKind.MOVED, path="b", from_path="a", file_kind="file", size=1, mtime_ns=2, executable=True
        )
    ]
    assert parsed_end({"end": "path_gone"}) is EndReason.PATH_GONE


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        ({}, b"[]"),
        ({"kind": "other"}, b"[]"),
        ({"kind": 1}, b"[]"),
        ({"kind": "changes"}, b""),
        ({"kind": "changes"}, b"\xff"),
        ({"kind": "changes"}, b"[" * 60_000),
        ({"kind": "changes"}, b"{}"),
        ({"kind": "changes"}, b"[1]"),
        ({"kind": "changes"}, b"[[]]"),
        ({"kind": "changes"}, row(0, "other")),
        ({"kind": "changes"}, row(0, ["moved"])),
        ({"kind": "changes"}, row(1, "\ud800")),
        ({"kind": "changes"}, row(2, None)),
        ({"kind": "changes"}, row(3, 1)),
        ({"kind": "changes"}, row(4, -1)),
        ({"kind": "changes"}, row(4, 1 << 64)),
        ({"kind": "changes"}, row(5, 1.5)),
        ({"kind": "changes"}, b"[[" + b"9" * 50_000 + b"]]"),
    ],
)
def test_what_is_not_breaks_the_protocol(header: dict[str, Any], payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        parsed_event(header, payload)


@pytest.mark.parametrize("end", ["removed", "stopped", "", None, 1])
def test_what_becomes_of_the_sandbox_is_not_sandboxds_to_say(end: Any) -> None:
    with pytest.raises(ProtocolError):
        parsed_end({"end": end})
