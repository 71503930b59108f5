"""The inventory of an environment: JSON that crossed a trust boundary, read strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name

from services.resolver.errors import InventoryError
from services.resolver.inventories import list_of, matching, object_of, read_document, text_of, texts_of

MAX_PACKAGES = 10_000
MAX_ITEMS = 100_000
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
    packages, machine = _entries(raw)
    installed = [_package(f"packages[{index}]", item, machine) for index, item in enumerate(packages)]
    names: set[str] = set()
    for index, package in enumerate(installed):
        if package.name in names:
            raise InventoryError(path=f"packages[{index}].name", reason=f"{package.name} is there twice")
        names.add(package.name)
    return installed


def read_unmanaged(raw: bytes) -> tuple[list[InstalledPackage], bool]:
    """Read what programs installed by hand, and whether that is all of it: entries that are no packages are left out.

    Of several of a name the first counts: it is the one that Python imports.

    Raises InventoryError for what is no inventory at all.
    """
    packages, machine = _entries(raw)
    found: dict[str, InstalledPackage] = {}
    complete = True
    for index, item in enumerate(packages):
        try:
            package = _package(f"packages[{index}]", item, machine)
        except InventoryError:
            complete = False
            continue
        found.setdefault(package.name, package)
    return list(found.values()), complete


def _entries(raw: bytes) -> tuple[list[Any], str]:
    """The entries, not yet looked at, and the type of machine."""
    document = read_document(raw, ECOSYSTEM)
    packages = list_of("packages", document.get("packages"), MAX_PACKAGES)
    return packages, _optional_text("machine", document.get("machine")) or ""


def _package(path: str, value: Any, machine: str) -> InstalledPackage:
    fields = object_of(path, value)
    return InstalledPackage(
        name=str(canonicalize_name(matching(f"{path}.name", fields.get("name"), NAME))),
        version=matching(f"{path}.version", fields.get("version"), VERSION),
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


def _optional_text(path: str, value: Any) -> str | None:
    return None if value is None else text_of(path, value)


def _texts(path: str, value: Any) -> tuple[str, ...]:
    return texts_of(path, value, MAX_ITEMS)
