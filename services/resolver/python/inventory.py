"""The inventory of an environment: JSON that crossed a trust boundary, read strictly."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name

from services.resolver.errors import InventoryError

MAX_BYTES = 64 * 1024 * 1024
MAX_PACKAGES = 10_000
MAX_ITEMS = 100_000
MAX_TEXT = 1024 * 1024
FORMAT = 1
ECOSYSTEM = "python"
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,200}[A-Za-z0-9])?")
VERSION = re.compile(r"[0-9A-Za-z.!+_-]{1,200}")


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledPackage:
    """One package as its own metadata describes it; `name` is canonical.

    `tags` and `build` are those of the wheel that it came in, or that was built of its source; `machine` is the type of
    machine that it was installed on.
    """

    name: str
    version: str
    license_expression: str | None
    license: str | None
    classifiers: tuple[str, ...]
    requires_dist: tuple[str, ...]
    missing: tuple[str, ...]
    modified: tuple[str, ...]
    tags: tuple[str, ...] = ()
    build: str = ""
    machine: str = ""


def read_inventory(raw: bytes) -> list[InstalledPackage]:
    """Read an inventory; raises InventoryError, which says where."""
    if len(raw) > MAX_BYTES:
        raise InventoryError(path="", reason=f"{len(raw)} bytes is above the limit of {MAX_BYTES}")
    document = _object("", _parse(raw))
    for key, expected in (("format", FORMAT), ("ecosystem", ECOSYSTEM)):
        if document.get(key) != expected:
            raise InventoryError(path=key, reason=f"must be {expected!r}")
    packages = document.get("packages")
    if not isinstance(packages, list) or len(packages) > MAX_PACKAGES:
        raise InventoryError(path="packages", reason=f"must be a list of at most {MAX_PACKAGES}")
    machine = _optional_text("machine", document.get("machine")) or ""
    installed = [_package(f"packages[{index}]", item, machine) for index, item in enumerate(packages)]
    names: set[str] = set()
    for index, package in enumerate(installed):
        if package.name in names:
            raise InventoryError(path=f"packages[{index}].name", reason=f"{package.name} is there twice")
        names.add(package.name)
    return installed


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (UnicodeDecodeError, ValueError) as error:
        raise InventoryError(path="", reason="is not JSON in UTF-8") from error
    except RecursionError as error:
        raise InventoryError(path="", reason="is nested too deep") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _package(path: str, value: Any, machine: str) -> InstalledPackage:
    fields = _object(path, value)
    return InstalledPackage(
        name=str(canonicalize_name(_matching(f"{path}.name", fields.get("name"), NAME))),
        version=_matching(f"{path}.version", fields.get("version"), VERSION),
        license_expression=_optional_text(f"{path}.license_expression", fields.get("license_expression")),
        license=_optional_text(f"{path}.license", fields.get("license")),
        classifiers=_texts(f"{path}.classifiers", fields.get("classifiers")),
        requires_dist=_texts(f"{path}.requires_dist", fields.get("requires_dist")),
        missing=_texts(f"{path}.missing", fields.get("missing")),
        modified=_texts(f"{path}.modified", fields.get("modified")),
        tags=_texts(f"{path}.tags", fields.get("tags", [])),
        build=_optional_text(f"{path}.build", fields.get("build")) or "",
        machine=machine,
    )


def _object(path: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InventoryError(path=path, reason="must be an object")
    return value


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise InventoryError(path=path, reason="must be a string of at most 1 MiB")
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


def _optional_text(path: str, value: Any) -> str | None:
    return None if value is None else _text(path, value)


def _texts(path: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise InventoryError(path=path, reason=f"must be a list of at most {MAX_ITEMS}")
    return tuple(_text(f"{path}[{index}]", item) for index, item in enumerate(value))
