"""What the probe says of a sandbox from inside; untrusted until it is read here, field by field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Value = TypeVar("Value")

MAX_REPORT_BYTES = 256 << 10


@dataclass
class ReportError(Exception):
    """The probe's answer is not what it was asked for."""

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One mount: where it is, which directory of its file system it shows, type, options."""

    point: str
    root: str
    kind: str
    options: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one user finds. `space` is bytes and inodes; `swap_total` is the machine's, in KiB."""

    user: Sequence[int]
    group: Sequence[int]
    groups: Sequence[int]
    status: Mapping[str, str]
    interfaces: Sequence[str]
    mounts: Sequence[Mount]
    space: Mapping[str, Sequence[int]]
    writable: Sequence[str]
    masked: Mapping[str, str]
    read_only: Mapping[str, bool]
    nofile: Sequence[int]
    core: Sequence[int]
    control_groups: Mapping[str, str]
    swap_total: int
    hostname: str
    nameservers: Sequence[str]
    hosts: Sequence[str]
    nameserver_port: str
    control_socket: str
    first_process: Sequence[str]
    devices: Sequence[str]
    calls: Mapping[str, str]
    environment: Mapping[str, str]


def read_report(text: bytes) -> Report:
    """Reads an answer. ReportError if anything is missing, surplus or of another type."""
    if len(text) > MAX_REPORT_BYTES:
        raise ReportError(f"an answer of {len(text)} bytes")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ReportError(f"an answer that is not JSON: {text[:80]!r}") from None
    if not isinstance(data, dict) or data.keys() != _READERS.keys():
        raise ReportError("an answer with other fields than were asked for")
    fields: dict[str, Any] = {}
    for name, read in _READERS.items():
        try:
            fields[name] = read(data[name])
        except ReportError as error:
            raise ReportError(f"{name}: {error.detail}") from None
    return Report(**fields)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ReportError("not a text")
    return value


def _number(value: Any) -> int:
    if type(value) is not int:
        raise ReportError("not a whole number")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ReportError("not true or false")
    return value


def _list_of(read: Callable[[Any], Value]) -> Callable[[Any], Sequence[Value]]:
    def read_list(value: Any) -> Sequence[Value]:
        if not isinstance(value, list):
            raise ReportError("not a list")
        return [read(item) for item in value]

    return read_list


def _object_of(read: Callable[[Any], Value]) -> Callable[[Any], Mapping[str, Value]]:
    def read_object(value: Any) -> Mapping[str, Value]:
        if not isinstance(value, dict):
            raise ReportError("not an object")
        return {name: read(item) for name, item in value.items()}

    return read_object


def _mount(value: Any) -> Mount:
    match value:
        case [str(point), str(root), str(kind), list(options)]:
            return Mount(point=point, root=root, kind=kind, options=frozenset(map(_text, options)))
    raise ReportError("not a mount")


_texts, _numbers = _list_of(_text), _list_of(_number)
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "user": _numbers,
    "group": _numbers,
    "groups": _numbers,
    "status": _object_of(_text),
    "interfaces": _texts,
    "mounts": _list_of(_mount),
    "space": _object_of(_numbers),
    "writable": _texts,
    "masked": _object_of(_text),
    "read_only": _object_of(_flag),
    "nofile": _numbers,
    "core": _numbers,
    "control_groups": _object_of(_text),
    "swap_total": _number,
    "hostname": _text,
    "nameservers": _texts,
    "hosts": _texts,
    "nameserver_port": _text,
    "control_socket": _text,
    "first_process": _texts,
    "devices": _texts,
    "calls": _object_of(_text),
    "environment": _object_of(_text),
}
