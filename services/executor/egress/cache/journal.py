"""The rows of the cache's journal: one line each, with a checksum, so that a torn or damaged one is passed over.

A database would do this too, but none can be opened here: the doors hold their directory open and have no path to it,
for what lies above it belongs to root alone.
"""

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from services.executor.egress.cache.port import Entry
from services.executor.egress.ecosystems.port import Digest

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ALGORITHMS = get_args(get_type_hints(Digest)["algorithm"])


@dataclass(frozen=True)
class Put:
    """An entry took its key's place."""

    entry: Entry


@dataclass(frozen=True)
class Use:
    """A blob was used."""

    sha256: str


@dataclass(frozen=True)
class Drop:
    """A key leads nowhere any more."""

    key: str


@dataclass(frozen=True)
class Gone:
    """A blob was removed, with every key that led to it."""

    sha256: str


Row = Put | Use | Drop | Gone


def encode(row: Row) -> bytes:
    """The row as a line; it begins with a line break, which keeps it apart from one that was torn before it."""
    text = json.dumps(_fields(row), separators=(",", ":")).encode("ascii")
    return b"\n%08x %s" % (zlib.crc32(text), text)


def decode(content: bytes) -> Iterator[Row]:
    """The rows of a journal; lines that are not whole are passed over."""
    for line in content.split(b"\n"):
        checksum, _, text = line.partition(b" ")
        if checksum == b"%08x" % zlib.crc32(text):
            try:
                row = _row(json.loads(text))
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            if row is not None:
                yield row


def _fields(row: Row) -> list[object]:
    match row:
        case Put(entry):
            digest = None if entry.digest is None else [entry.digest.algorithm, entry.digest.hex]
            return [
                "put", entry.key, entry.sha256, entry.size, entry.host, digest,
                entry.etag, entry.last_modified, entry.fetched,
            ]  # fmt: skip  # the columns of a row
        case Use(sha256):
            return ["use", sha256]
        case Drop(key):
            return ["drop", key]
        case Gone(sha256):
            return ["gone", sha256]


def _row(fields: Any) -> Row | None:
    match fields:
        case ["put", str(key), str(sha256), int(size), str(host), digest, etag, last_modified, float(fetched)]:
            entry = Entry(
                key=key, sha256=sha256, size=size, host=host, digest=_digest(digest),
                etag=_text(etag), last_modified=_text(last_modified), fetched=fetched,
            )  # fmt: skip  # the columns of a row
            return Put(entry) if _SHA256.fullmatch(sha256) and size >= 0 else None
        case ["use", str(sha256)]:
            return Use(sha256)
        case ["drop", str(key)]:
            return Drop(key)
        case ["gone", str(sha256)]:
            return Gone(sha256)
    return None


def _digest(value: Any) -> Digest | None:
    if value is None:
        return None
    algorithm, digits = value
    if algorithm not in _ALGORITHMS or not isinstance(digits, str):
        raise ValueError(value)
    return Digest(algorithm=algorithm, hex=digits)


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(value)
    return value
