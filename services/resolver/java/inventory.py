"""The inventory that the sandbox takes of an environment, read strictly: strangers wrote what it tells of."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from services.resolver.errors import InventoryError
from services.resolver.java.locks import HASH, ID

MAX_BYTES = 64 * 1024 * 1024
MAX_FILES = 30_000
MAX_TEXT = 64 * 1024
MAX_LICENSES = 50
FORMAT = 1
ECOSYSTEM = "java"
FILE = re.compile(r"[^\x00-\x1f\x7f]{1,600}")
NAME = re.compile(r"[A-Za-z0-9_.+ -]{1,200}")


@dataclass(frozen=True, kw_only=True, slots=True)
class License:
    """A licence as a POM names it."""

    name: str
    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledFile:
    """One file of an environment, or of a directory of jars; what it does not say of itself is empty.

    `parent` is `group:artifact:version` of a POM's parent.
    """

    path: str
    sha256: str
    group: str = ""
    artifact: str = ""
    version: str = ""
    parent: str = ""
    licenses: tuple[License, ...] = ()


def read_inventory(raw: bytes) -> dict[str, InstalledFile]:
    """Read an inventory, by path; raises InventoryError, which says where."""
    if len(raw) > MAX_BYTES:
        raise InventoryError(path="", reason=f"{len(raw)} bytes is above the limit of {MAX_BYTES}")
    document = _object("", _parse(raw))
    for key, expected in (("format", FORMAT), ("ecosystem", ECOSYSTEM)):
        if document.get(key) != expected:
            raise InventoryError(path=key, reason=f"must be {expected!r}")
    files = document.get("files")
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise InventoryError(path="files", reason=f"must be a list of at most {MAX_FILES}")
    found: dict[str, InstalledFile] = {}
    for index, item in enumerate(files):
        file = _file(f"files[{index}]", item)
        if file.path in found:
            raise InventoryError(path=f"files[{index}].path", reason=f"{file.path[:80]} is there twice")
        found[file.path] = file
    return found


def _file(path: str, value: Any) -> InstalledFile:
    fields = _object(path, value)
    parent = fields.get("parent")
    return InstalledFile(
        path=_matching(f"{path}.path", fields.get("path"), FILE),
        sha256=_matching(f"{path}.sha256", fields.get("sha256"), HASH),
        group=_optional(f"{path}.group", fields.get("group")),
        artifact=_optional(f"{path}.artifact", fields.get("artifact")),
        version=_optional(f"{path}.version", fields.get("version")),
        parent=parent if isinstance(parent, str) and ID.fullmatch(parent) else "",
        licenses=_licenses(f"{path}.licenses", fields.get("licenses")),
    )


def _licenses(path: str, value: Any) -> tuple[License, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_LICENSES:
        raise InventoryError(path=path, reason=f"must be a list of at most {MAX_LICENSES}")
    found = []
    for index, item in enumerate(value):
        fields = _object(f"{path}[{index}]", item)
        name = _text(f"{path}[{index}].name", fields.get("name", ""))
        found.append(License(name=name, url=_text(f"{path}[{index}].url", fields.get("url", ""))))
    return tuple(found)


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise InventoryError(path="", reason="is not JSON in UTF-8") from error
    except RecursionError as error:
        raise InventoryError(path="", reason="is nested too deep") from error


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


def _optional(path: str, value: Any) -> str:
    """A name that a stranger's file gives itself; one that no artefact can have says nothing."""
    if value is None:
        return ""
    text = _text(path, value)
    return text if NAME.fullmatch(text) and text == text.strip() else ""
