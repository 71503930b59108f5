"""Frames between the executor and sandboxd; sandbox/sandboxd/PROTOCOL.md is the specification."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from services.executor.errors import ProtocolError

MAX_HEADER_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 64 << 10
_LENGTHS = struct.Struct(">II")

Header = dict[str, Any]


class Frame(NamedTuple):
    """A frame as it was read; `size` in bytes, both parts together."""

    header: Header
    payload: bytes
    size: int


def encode_frame(header: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    # As it stands: escaped, text of most languages would take two to three times its room.
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
    return _LENGTHS.pack(len(text), len(payload)) + text + payload


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame, or None at the end of the stream. ProtocolError on anything that is not a frame."""
    try:
        header_length, payload_length = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        if header_length > MAX_HEADER_BYTES or payload_length > MAX_PAYLOAD_BYTES:
            raise ProtocolError(f"a frame of {header_length} and {payload_length} bytes")
        text = await reader.readexactly(header_length)
        payload = await reader.readexactly(payload_length) if payload_length else b""
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a header that is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise ProtocolError("a header without a type")
    return Frame(header, payload, header_length + payload_length)


def as_text(value: object, name: str) -> str:
    """A string that UTF-8 can carry. ProtocolError, naming the field, if it is something else."""
    if not isinstance(value, str):
        raise ProtocolError(f"field {name!r} is not a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ProtocolError(f"field {name!r} is not UTF-8") from None
    return value


def as_count(value: object, name: str) -> int:
    """A whole number of at least 0, below 2**63. ProtocolError, naming the field, if it is something else."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ProtocolError(f"field {name!r} is not a count")
    return value


def text_field(header: Header, name: str) -> str:
    """A string field of a header. ProtocolError if it is something else."""
    return as_text(header.get(name), name)


def optional_text_field(header: Header, name: str) -> str:
    """A string field that may be absent or null, then empty. ProtocolError if it is something else."""
    value = header.get(name)
    return "" if value is None else as_text(value, name)


def count_field(header: Header, name: str) -> int:
    """A whole number of at least 0, below 2**63. ProtocolError if it is something else."""
    return as_count(header.get(name), name)


def mapping_field(header: Header, name: str) -> Header:
    """An object field of a header. ProtocolError if it is something else."""
    value = header.get(name)
    if not isinstance(value, dict):
        raise ProtocolError(f"field {name!r} is not an object")
    return value


def list_field(header: Header, name: str) -> list[Any]:
    """An array field of a header. ProtocolError if it is something else."""
    value = header.get(name)
    if not isinstance(value, list):
        raise ProtocolError(f"field {name!r} is not an array")
    return value
