"""The inventory that the sandbox takes of an environment, read strictly: a stranger's packages wrote most of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from services.resolver.errors import InventoryError
from services.resolver.node.names import NAME, VERSION, is_location

MAX_BYTES = 64 * 1024 * 1024
MAX_PACKAGES = 20_000
MAX_ITEMS = 2_000
MAX_TEXT = 64 * 1024
FORMAT = 1
ECOSYSTEM = "node"


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledPackage:
    """One package as its own package.json describes it. `license` is a text, a tuple of them, or None."""

    location: str
    name: str
    version: str
    license: str | tuple[str, ...] | None
    needs: tuple[str, ...]


def read_inventory(raw: bytes, *, lenient: bool = False) -> dict[str, InstalledPackage]:
    """Read an inventory, by location; raises InventoryError, which says where.

    Where no install was verified, anything may lie among the packages: `lenient` passes over rows that describe none.
    """
    installed: dict[str, InstalledPackage] = {}
    for index, item in enumerate(_rows(_document(raw), "packages")):
        try:
            package = _package(f"packages[{index}]", item)
        except InventoryError:
            if lenient:
                continue
            raise
        if package.location in installed:
            raise InventoryError(path=f"packages[{index}].location", reason=f"{package.location} is there twice")
        installed[package.location] = package
    return installed


def read_unknown(raw: bytes) -> tuple[str, ...]:
    """What Node would load of an environment although it is no package; raises InventoryError."""
    document = {"unknown": [], **_document(raw)}
    return tuple(_text(f"unknown[{index}]", item) for index, item in enumerate(_rows(document, "unknown")))


def _document(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_BYTES:
        raise InventoryError(path="", reason=f"{len(raw)} bytes is above the limit of {MAX_BYTES}")
    document = _object("", _parse(raw))
    for key, expected in (("format", FORMAT), ("ecosystem", ECOSYSTEM)):
        if document.get(key) != expected:
            raise InventoryError(path=key, reason=f"must be {expected!r}")
    return document


def _rows(document: dict[str, Any], key: str) -> list[Any]:
    rows = document.get(key)
    if not isinstance(rows, list) or len(rows) > MAX_PACKAGES:
        raise InventoryError(path=key, reason=f"must be a list of at most {MAX_PACKAGES}")
    return rows


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (UnicodeDecodeError, ValueError) as error:
        raise InventoryError(path="", reason="is not JSON in UTF-8") from error
    except RecursionError as error:
        raise InventoryError(path="", reason="is nested too deep") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _package(path: str, value: Any) -> InstalledPackage:
    fields = _object(path, value)
    location = _text(f"{path}.location", fields.get("location"))
    if not is_location(location):
        raise InventoryError(path=f"{path}.location", reason=f"is no place of a package: {location[:80]!r}")
    kinds = ("dependencies", "optional_dependencies", "peer_dependencies")
    needs = [name for kind in kinds for name in _texts(f"{path}.{kind}", fields.get(kind))]
    return InstalledPackage(
        location=location,
        name=_matching(f"{path}.name", fields.get("name"), NAME),
        version=_matching(f"{path}.version", fields.get("version"), VERSION),
        license=_license(f"{path}.license", fields.get("license")),
        needs=tuple(name for name in dict.fromkeys(needs) if NAME.fullmatch(name)),
    )


def _object(path: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InventoryError(path=path, reason="must be an object")
    return value


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise InventoryError(path=path, reason="must be a string of at most 64 KiB")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InventoryError(path=path, reason="holds a lone surrogate") from error
    return value


def _matching(path: str, value: Any, pattern: re.Pattern[str]) -> str:
    text = _text(path, value)
    if not pattern.fullmatch(text):
        raise InventoryError(path=path, reason=f"is not valid: {text[:80]!r}")
    return text


def _texts(path: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise InventoryError(path=path, reason=f"must be a list of at most {MAX_ITEMS}")
    return tuple(_text(f"{path}[{index}]", item) for index, item in enumerate(value))


def _license(path: str, value: Any) -> str | tuple[str, ...] | None:
    if value is None:
        return None
    return _text(path, value) if isinstance(value, str) else _texts(path, value)
