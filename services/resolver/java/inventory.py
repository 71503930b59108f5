"""The inventory that the sandbox takes of an environment, read strictly: strangers wrote what it tells of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from services.resolver.errors import InventoryError
from services.resolver.inventories import list_of, matching, object_of, read_document, text_of
from services.resolver.java.locks import HASH, ID

MAX_FILES = 30_000
MAX_LICENSES = 50
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
    document = read_document(raw, ECOSYSTEM)
    files = list_of("files", document.get("files"), MAX_FILES)
    found: dict[str, InstalledFile] = {}
    for index, item in enumerate(files):
        file = _file(f"files[{index}]", item)
        if file.path in found:
            raise InventoryError(path=f"files[{index}].path", reason=f"{file.path[:80]} is there twice")
        found[file.path] = file
    return found


def _file(path: str, value: Any) -> InstalledFile:
    fields = object_of(path, value)
    parent = fields.get("parent")
    return InstalledFile(
        path=matching(f"{path}.path", fields.get("path"), FILE),
        sha256=matching(f"{path}.sha256", fields.get("sha256"), HASH),
        group=_optional(f"{path}.group", fields.get("group")),
        artifact=_optional(f"{path}.artifact", fields.get("artifact")),
        version=_optional(f"{path}.version", fields.get("version")),
        parent=parent if isinstance(parent, str) and ID.fullmatch(parent) else "",
        licenses=_licenses(f"{path}.licenses", fields.get("licenses")),
    )


def _licenses(path: str, value: Any) -> tuple[License, ...]:
    if value is None:
        return ()
    found = []
    for index, item in enumerate(list_of(path, value, MAX_LICENSES)):
        fields = object_of(f"{path}[{index}]", item)
        name = text_of(f"{path}[{index}].name", fields.get("name", ""))
        found.append(License(name=name, url=text_of(f"{path}[{index}].url", fields.get("url", ""))))
    return tuple(found)


def _optional(path: str, value: Any) -> str:
    """A name that a stranger's file gives itself; one that no artefact can have says nothing."""
    if value is None:
        return ""
    text = text_of(path, value)
    return text if NAME.fullmatch(text) and text == text.strip() else ""
