"""A form of files as it comes: each file's bytes go on before the next are read, and none are kept."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from services.rpc.errors import QilaError, invalid_argument, resource_exhausted

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MAX_PARTS: Final = 2000
_MAX_FIELD_BYTES: Final = 8 << 10


@dataclass(frozen=True, kw_only=True)
class Part:
    """The head of one part. `filename` is None for a field that is no file."""

    name: str
    filename: str | None


class MultipartReader:
    """Reads one form. A part's content must be read before the next part is asked for."""

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            message = "the body must be multipart/form-data with a boundary, as curl -F file=@main.py sends it"
            raise invalid_argument("FORM_INVALID", message)
        self._chunks = chunks
        self._header: list[bytes] = [b"", b""]
        self._headers: dict[bytes, bytes] = {}
        # A part's head, pieces of its content, None for its end.
        self._events: deque[Part | bytes | None] = deque()
        self._whole = False
        self._parts = 0
        try:
            self._parser = MultipartParser(options[b"boundary"], self._callbacks())
        except FormParserError as error:
            raise _broken(error) from None

    async def parts(self) -> AsyncIterator[Part]:
        """The heads of the parts, in order.

        Raises:
            QilaError: INVALID_ARGUMENT, FORM_INVALID, if it is no form; RESOURCE_EXHAUSTED if it has too many parts.
        """
        while True:
            event = await self._next()
            if event is None and self._whole and not self._events:
                return
            if isinstance(event, Part):
                yield event

    async def content(self) -> AsyncGenerator[bytes, None]:
        """The pieces of the present part's content."""
        while isinstance(event := await self._next(), bytes):
            yield event

    async def text(self) -> str:
        """The present part's content as a short text."""
        value = b""
        async for piece in self.content():
            value += piece
            if len(value) > _MAX_FIELD_BYTES:
                raise invalid_argument("FORM_INVALID", f"a field must be at most {_MAX_FIELD_BYTES} bytes")
        return _text(value)

    async def _next(self) -> Part | bytes | None:
        while not self._events:
            chunk = await anext(self._chunks, b"")
            if not chunk:
                if not self._whole:
                    raise invalid_argument("FORM_INVALID", "the form broke off before its last boundary")
                return None
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise _broken(error) from None
        return self._events.popleft()

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add(1, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": lambda data, start, end: self._events.append(bytes(data[start:end])),
            "on_part_end": lambda: self._events.append(None),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._headers = {}
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise resource_exhausted("TOO_MANY_PARTS", f"a form must have at most {_MAX_PARTS} parts; send several")

    def _add(self, index: int, data: bytes) -> None:
        self._header[index] += data

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[name.lower()] = value
        self._header = [b"", b""]

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        filename = options.get(b"filename")
        part = Part(name=_text(options.get(b"name", b"")), filename=None if filename is None else _text(filename))
        self._events.append(part)

    def _end(self) -> None:
        self._whole = True


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise invalid_argument("FORM_INVALID", "names and fields of a form must be UTF-8") from None


def _broken(error: FormParserError) -> QilaError:
    return invalid_argument("FORM_INVALID", f"the body is no form of the type multipart/form-data: {error}")
