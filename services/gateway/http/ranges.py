"""Parts of a file or an archive, as HTTP asks for them: Range, If-Range, If-None-Match. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers

from services.rpc.errors import ErrorCode, QilaError

_RANGE: Final = re.compile(r"bytes=(?:(?P<first>[0-9]{1,18})-(?P<last>[0-9]{0,18})|-(?P<suffix>[0-9]{1,18}))\Z")
RANGE_HEADERS: Final[Mapping[str, str]] = {
    "Range": "`bytes=100-`, `bytes=0-99` or `bytes=-100`. What is no single range of bytes is answered with all of it.",
    "If-Range": "An ETag: the range is of that very content; if it is another one by now, all of it is answered.",
    "If-None-Match": "ETags, commas between: what has one of them is not sent again.",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which bytes are to be sent of so many; `asked_for` if a range says so."""

    offset: int
    length: int
    size: int
    asked_for: bool

    def headers(self, etag: str) -> dict[str, str]:
        """What an answer says of them."""
        told = {"etag": etag, "accept-ranges": "bytes", "content-length": str(self.length)}
        if self.asked_for:
            told["content-range"] = f"bytes {self.offset}-{self.offset + self.length - 1}/{self.size}"
        return told


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request says about parts and about what its client has."""

    first: int | None
    last: int | None
    suffix: int | None
    if_range: str
    if_none_match: tuple[str, ...]

    @classmethod
    def of(cls, headers: Headers) -> Asked:
        """As the headers say; what is no single range of bytes is none."""
        found = _RANGE.match(headers.get("range", ""))
        first, last, suffix = (_number(found, name) for name in ("first", "last", "suffix"))
        if first is not None and last is not None and last < first:
            first = last = None
        seen = tuple(item.strip().removeprefix("W/") for item in headers.get("if-none-match", "").split(","))
        return cls(first=first, last=last, suffix=suffix, if_range=headers.get("if-range", ""), if_none_match=seen)

    @property
    def is_part(self) -> bool:
        """Whether a range is asked for."""
        return self.first is not None or self.suffix is not None

    def has(self, etag: str) -> bool:
        """Whether the client has this content already."""
        return etag in self.if_none_match or "*" in self.if_none_match

    def part(self, size: int, etag: str) -> Part:
        """The bytes to send. OUT_OF_RANGE if none of them are there."""
        if not self.is_part or self.if_range not in {"", etag}:
            return Part(offset=0, length=size, size=size, asked_for=False)
        offset = max(size - self.suffix, 0) if self.suffix is not None else self.first or 0
        end = size if self.last is None else min(self.last + 1, size)
        if offset >= end:
            message = f"the range begins behind the end: there are {size} bytes"
            raise QilaError(ErrorCode.OUT_OF_RANGE, "RANGE_NOT_SATISFIABLE", message, {"size": str(size)})
        return Part(offset=offset, length=end - offset, size=size, asked_for=True)


def _number(found: re.Match[str] | None, name: str) -> int | None:
    return int(found[name]) if found and found[name] else None
