"""Strict readers of inventories: JSON that crossed a trust boundary. Errors say where, as in `packages[3].name`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from services.resolver.errors import InventoryError

if TYPE_CHECKING:
    import re

MAX_BYTES = 64 * 1024 * 1024
MAX_TEXT = 1024 * 1024
FORMAT = 1


def read_document(raw: bytes, ecosystem: str) -> dict[str, Any]:
    """The object that an inventory of the ecosystem is; raises InventoryError."""
    if len(raw) > MAX_BYTES:
        raise InventoryError(path="", reason=f"{len(raw)} bytes is above the limit of {MAX_BYTES}")
    document = object_of("", _parse(raw))
    for key, expected in (("format", FORMAT), ("ecosystem", ecosystem)):
        if document.get(key) != expected:
            raise InventoryError(path=key, reason=f"must be {expected!r}")
    return document


def object_of(path: str, value: Any) -> dict[str, Any]:
    """The value, if it is an object; raises InventoryError."""
    if not isinstance(value, dict):
        raise InventoryError(path=path, reason="must be an object")
    return value


def list_of(path: str, value: Any, limit: int) -> list[Any]:
    """The value, if it is a list within the limit; raises InventoryError."""
    if not isinstance(value, list) or len(value) > limit:
        raise InventoryError(path=path, reason=f"must be a list of at most {limit}")
    return value


def text_of(path: str, value: Any) -> str:
    """The value, if it is a text that can be written down again; raises InventoryError."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise InventoryError(path=path, reason="must be a string of at most 1 MiB")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InventoryError(path=path, reason="holds a lone surrogate") from error
    return value


def texts_of(path: str, value: Any, limit: int) -> tuple[str, ...]:
    """The value, if it is a list of texts within the limit; raises InventoryError."""
    return tuple(text_of(f"{path}[{index}]", item) for index, item in enumerate(list_of(path, value, limit)))


def matching(path: str, value: Any, pattern: re.Pattern[str]) -> str:
    """The value, if it is a text of this form; raises InventoryError."""
    text = text_of(path, value)
    if not pattern.fullmatch(text):
        raise InventoryError(path=path, reason=f"is not valid: {text[:80]!r}")
    return text


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (UnicodeDecodeError, ValueError) as error:
        raise InventoryError(path="", reason="is not JSON in UTF-8") from error
    except RecursionError as error:
        raise InventoryError(path="", reason="is nested too deep") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
