"""Dataclasses as JSON and back, strictly: what comes back crossed a boundary and is not trusted.

Bytes travel beside the JSON, as numbered blobs. A message is, each with its length as 4 bytes in front: the JSON, then
the blobs.
"""

from __future__ import annotations

import json
import struct
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
MAX_BLOBS = 100_000
LENGTH = struct.Struct(">I")
BLOB_KEY = "$blob"


class CodecError(Exception):
    """A message is not what its type says."""


def pack(value: Any) -> bytes:
    """A message; lengths, JSON and blobs. Raises CodecError if it is too large."""
    blobs: list[bytes] = []
    document = json.dumps(_to_data(value, blobs)).encode()
    body = b"".join(LENGTH.pack(len(part)) + part for part in (document, *blobs))
    if len(body) > MAX_MESSAGE_BYTES:
        raise CodecError(f"a message of {len(body)} bytes")
    return LENGTH.pack(len(body)) + body


def unpack(kind: Any, body: bytes) -> Any:
    """The value of a message without its outer length; raises CodecError."""
    parts: list[bytes] = []
    position = 0
    while position < len(body):
        if len(parts) > MAX_BLOBS or position + LENGTH.size > len(body):
            raise CodecError("a broken frame")
        (length,) = LENGTH.unpack_from(body, position)
        position += LENGTH.size
        if position + length > len(body):
            raise CodecError("a cut frame")
        parts.append(body[position : position + length])
        position += length
    try:
        document = json.loads(parts[0])
    except (IndexError, ValueError, RecursionError) as error:
        raise CodecError("no JSON") from error
    return _from_data(kind, document, parts[1:])


def _to_data(value: Any, blobs: list[bytes]) -> Any:
    if isinstance(value, bytes):
        blobs.append(value)
        return {BLOB_KEY: len(blobs) - 1}
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {item.name: _to_data(getattr(value, item.name), blobs) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: _to_data(item, blobs) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_data(item, blobs) for item in value]
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _from_data(kind: Any, data: Any, blobs: list[bytes]) -> Any:
    origin = get_origin(kind)
    if origin in {Union, types.UnionType}:
        rest = [choice for choice in get_args(kind) if choice is not type(None)]
        return None if data is None else _from_data(rest[0], data, blobs)
    if origin is tuple:
        return tuple(_from_data(get_args(kind)[0], item, blobs) for item in _checked(data, list))
    if origin in {dict, Mapping}:
        value_kind = get_args(kind)[1]
        return {str(key): _from_data(value_kind, item, blobs) for key, item in _checked(data, dict).items()}
    if kind is bytes:
        return _blob(data, blobs)
    if is_dataclass(kind):
        return _dataclass(kind, _checked(data, dict), blobs)
    return _enum(kind, data) if issubclass(kind, Enum) else _checked(data, kind)


def _checked(data: Any, kind: type) -> Any:
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise CodecError(f"{type(data).__name__} instead of {kind.__name__}")
    return data


def _blob(data: Any, blobs: list[bytes]) -> bytes:
    index = _checked(data, dict).get(BLOB_KEY)
    if not isinstance(index, int) or not 0 <= index < len(blobs):
        raise CodecError("no such blob")
    return blobs[index]


def _dataclass(kind: Any, data: dict[str, Any], blobs: list[bytes]) -> Any:
    hints = _hints(kind)
    if data.keys() != {item.name for item in fields(kind)}:
        raise CodecError(f"other fields than those of {kind.__name__}")
    return kind(**{name: _from_data(hints[name], item, blobs) for name, item in data.items()})


def _enum(kind: type[Enum], data: Any) -> Enum:
    try:
        return kind(data)
    except ValueError as error:
        raise CodecError(f"no {kind.__name__}: {str(data)[:40]}") from error
