"""Request bodies and queries: bounded in size, depth and time, whatever their Content-Type says."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, NoReturn, TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request

from services.gateway import checks
from services.gateway.http.answers import ClientGoneError
from services.rpc.errors import QilaError, deadline_exceeded, invalid_argument, resource_exhausted

Model = TypeVar("Model", bound=BaseModel)

MAX_BODY_BYTES: Final = 4 << 20
MAX_LOCK_BODY_BYTES: Final = 48 << 20
# It waits here as long as its program does not read.
MAX_STDIN_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 32
# A lockfile is one string: whoever sends more values than this wants them to take room, and time.
_MAX_VALUES: Final = 100_000
# Taken for a string to the body's end if it has none, so that each byte is looked at once.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
BODY_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 60.0
# Bodies that hold lockfiles: so many are in memory at once.
LARGE_AT_ONCE: Final = 4
_UPLOAD_SLACK: Final = 1 << 20
MAX_UPLOAD_BYTES: Final = checks.MAX_UPLOAD_BYTES + _UPLOAD_SLACK


async def read_json(request: Request, limit: int, seconds: float = BODY_SECONDS) -> dict[str, Any]:
    """The JSON object of a body; an empty body is an empty one.

    Args:
        request: is read to its end.
        limit: bytes that the body may have.
        seconds: that it may take to come.

    Raises:
        QilaError: INVALID_ARGUMENT, RESOURCE_EXHAUSTED or DEADLINE_EXCEEDED, as the body breaks a bound.
        ClientGoneError: the client left.
    """
    return _parsed(await read_bytes(request, limit, seconds))


async def read_bytes(request: Request, limit: int, seconds: float = BODY_SECONDS) -> bytes:
    """A whole body. Raises as `read_json` does of its size and time."""
    _check_announced(request, limit)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise _too_slow() from None
    except ClientDisconnect:
        raise ClientGoneError from None
    return bytes(body)


async def upload(request: Request) -> AsyncGenerator[bytes, None]:
    """The chunks of a body that is a file or a form of files, as they come, at most 64 KiB each.

    Raises:
        QilaError: RESOURCE_EXHAUSTED if it is larger than an upload may be, DEADLINE_EXCEEDED if it stands still.
        ClientGoneError: the client left in the middle.
    """
    size = 0
    _check_announced(request, MAX_UPLOAD_BYTES)
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(_PAUSE_SECONDS):
                chunk = await anext(stream, b"")
        except TimeoutError:
            raise _too_slow() from None
        except ClientDisconnect:
            raise ClientGoneError from None
        if not chunk:
            return
        size += len(chunk)
        if size > MAX_UPLOAD_BYTES:
            raise _too_large(MAX_UPLOAD_BYTES)
        for start in range(0, len(chunk), checks.MAX_CHUNK_BYTES):
            yield chunk[start : start + checks.MAX_CHUNK_BYTES]


def validated(model: type[Model], document: Mapping[str, Any]) -> Model:
    """The document as the model. INVALID_ARGUMENT names the first field that breaks its rule."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part)[:64] for part in first["loc"])
        raise invalid_argument("FIELD_INVALID", f"{field}: {first['msg']}", field=field) from None


def read_query(model: type[Model], query: QueryParams) -> Model:
    """The query as the model. INVALID_ARGUMENT, if a parameter comes twice that is not a list."""
    lists = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}
    document: dict[str, Any] = {name: query.getlist(name) for name in lists if name in query}
    for name, value in query.multi_items():
        if name in lists:
            continue
        if name in document:
            raise invalid_argument("QUERY_INVALID", f"{name[:64]}: must come once in the query")
        document[name] = value
    return validated(model, document)


def _check_announced(request: Request, limit: int) -> None:
    """A length that is too large is refused before a byte of it is read."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise _too_large(limit)


def _parsed(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    _check_values(body)
    try:
        document = json.loads(body, parse_constant=_no_constant)
        if b"\\u" in body:
            # An escape may be half a character, which is none.
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        words = (
            str(error) if isinstance(error, json.JSONDecodeError) else "its text is not Unicode, or a number is none"
        )
        raise invalid_argument("JSON_INVALID", f"the body must be a JSON object: {words}") from None
    if not isinstance(document, dict):
        raise invalid_argument("JSON_INVALID", "the body must be a JSON object, as {}")
    _check_depth(document)
    return document


def _check_values(body: bytes) -> None:
    """Values take far more room than their text: they are counted before there are any."""
    bare, strings = _STRING.subn(b"", body, _MAX_VALUES)
    if strings == _MAX_VALUES or sum(bare.count(mark) for mark in (b",", b"[", b"{")) > _MAX_VALUES:
        raise invalid_argument("JSON_INVALID", f"the body must have at most {_MAX_VALUES} values")


def _check_depth(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _too_deep() -> QilaError:
    return invalid_argument("JSON_INVALID", f"the body must be nested at most {_MAX_DEPTH} deep")


def _too_large(limit: int) -> QilaError:
    return resource_exhausted("BODY_TOO_LARGE", f"the body must be at most {limit} bytes", limit=str(limit))


def _too_slow() -> QilaError:
    return deadline_exceeded("BODY_TOO_SLOW", "the body did not come in time; send it again without a pause")
