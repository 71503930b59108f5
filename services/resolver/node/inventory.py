"""The inventory that the sandbox takes of an environment, read strictly: a stranger's packages wrote most of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.resolver.errors import InventoryError
from services.resolver.inventories import list_of, matching, object_of, read_document, text_of, texts_of
from services.resolver.node.names import NAME, VERSION, is_location

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PACKAGES = 20_000
MAX_ITEMS = 2_000
ECOSYSTEM = "node"


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledPackage:
    """One package as its own package.json describes it. `license` is a text, a tuple of them, or None."""

    location: str
    name: str
    version: str
    license: str | tuple[str, ...] | None
    needs: tuple[str, ...]


def read_inventory(raw: bytes) -> dict[str, InstalledPackage]:
    """Read an inventory, by location; raises InventoryError, which says where."""
    installed: dict[str, InstalledPackage] = {}
    for path, item in _rows(raw):
        _add(installed, path, _package(path, item))
    return installed


def read_unmanaged(raw: bytes) -> tuple[dict[str, InstalledPackage], bool]:
    """Read what programs installed by hand, by location, and whether that is all of it.

    Anything may lie among those packages: rows that describe none are left out. Raises InventoryError for what is no
    inventory at all.
    """
    installed: dict[str, InstalledPackage] = {}
    complete = not read_unknown(raw)
    for path, item in _rows(raw):
        try:
            package = _package(path, item)
        except InventoryError:
            complete = False
            continue
        _add(installed, path, package)
    return installed, complete


def _rows(raw: bytes) -> Iterator[tuple[str, Any]]:
    packages = list_of("packages", read_document(raw, ECOSYSTEM).get("packages"), MAX_PACKAGES)
    return ((f"packages[{index}]", item) for index, item in enumerate(packages))


def _add(installed: dict[str, InstalledPackage], path: str, package: InstalledPackage) -> None:
    if package.location in installed:
        raise InventoryError(path=f"{path}.location", reason=f"{package.location} is there twice")
    installed[package.location] = package


def read_unknown(raw: bytes) -> tuple[str, ...]:
    """What Node would load of an environment although it is no package; raises InventoryError."""
    return texts_of("unknown", read_document(raw, ECOSYSTEM).get("unknown", []), MAX_PACKAGES)


def _package(path: str, value: Any) -> InstalledPackage:
    fields = object_of(path, value)
    location = text_of(f"{path}.location", fields.get("location"))
    if not is_location(location):
        raise InventoryError(path=f"{path}.location", reason=f"is no place of a package: {location[:80]!r}")
    kinds = ("dependencies", "optional_dependencies", "peer_dependencies")
    needs = [name for kind in kinds for name in _texts(f"{path}.{kind}", fields.get(kind))]
    return InstalledPackage(
        location=location,
        name=matching(f"{path}.name", fields.get("name"), NAME),
        version=matching(f"{path}.version", fields.get("version"), VERSION),
        license=_license(f"{path}.license", fields.get("license")),
        needs=tuple(name for name in dict.fromkeys(needs) if NAME.fullmatch(name)),
    )


def _texts(path: str, value: Any) -> tuple[str, ...]:
    return texts_of(path, value, MAX_ITEMS)


def _license(path: str, value: Any) -> str | tuple[str, ...] | None:
    if value is None:
        return None
    return text_of(path, value) if isinstance(value, str) else _texts(path, value)
