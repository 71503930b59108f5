"""The inventory that the sandbox takes of an environment, read strictly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from services.resolver.errors import InventoryError
from services.resolver.go.licenses import LicenseFile
from services.resolver.go.names import ECOSYSTEM, HASH, VERSION, is_path
from services.resolver.inventories import list_of, object_of, read_document, text_of

MAX_MODULES = 20_000
MAX_EDGES = 200_000
MAX_LICENSES = 16
PAIR = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledModule:
    """One module as it lies in the environment; `hash` is that of its files, empty if they are not there."""

    path: str
    version: str
    hash: str
    licenses: tuple[LicenseFile, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """Modules by path, and pairs of a requirer and what it requires, as (path, version); the version may be empty."""

    modules: dict[str, InstalledModule] = field(default_factory=dict)
    edges: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = ()


def read_inventory(raw: bytes) -> Inventory:
    """Read an inventory; raises InventoryError, which says where."""
    document = read_document(raw, ECOSYSTEM)
    modules: dict[str, InstalledModule] = {}
    for index, item in enumerate(list_of("modules", document.get("modules"), MAX_MODULES)):
        module = _module(f"modules[{index}]", item)
        if module.path in modules:
            raise InventoryError(path=f"modules[{index}].path", reason=f"{module.path} is there twice")
        modules[module.path] = module
    edges = [_edge(f"graph[{at}]", item) for at, item in enumerate(list_of("graph", document.get("graph"), MAX_EDGES))]
    return Inventory(modules=modules, edges=tuple(edges))


def _module(path: str, value: Any) -> InstalledModule:
    fields = object_of(path, value)
    name, version = text_of(f"{path}.path", fields.get("path")), text_of(f"{path}.version", fields.get("version"))
    if not is_path(name):
        raise InventoryError(path=f"{path}.path", reason=f"is no path of a module: {name[:80]!r}")
    if not VERSION.fullmatch(version):
        raise InventoryError(path=f"{path}.version", reason=f"is no version: {version[:80]!r}")
    digest = text_of(f"{path}.hash", fields.get("hash"))
    if digest and not HASH.fullmatch(digest):
        raise InventoryError(path=f"{path}.hash", reason=f"is no hash: {digest[:80]!r}")
    licenses = list_of(f"{path}.licenses", fields.get("licenses"), MAX_LICENSES)
    found = [_license(f"{path}.licenses[{index}]", item) for index, item in enumerate(licenses)]
    return InstalledModule(path=name, version=version, hash=digest, licenses=tuple(found))


def _license(path: str, value: Any) -> LicenseFile:
    fields = object_of(path, value)
    return LicenseFile(
        name=text_of(f"{path}.name", fields.get("name")), text=text_of(f"{path}.text", fields.get("text"))
    )


def _edge(path: str, value: Any) -> tuple[tuple[str, str], tuple[str, str]]:
    pair = list_of(path, value, PAIR)
    if len(pair) != PAIR:
        raise InventoryError(path=path, reason="must be a pair")
    first, second = (text_of(path, item).partition("@") for item in pair)
    return (first[0], first[2]), (second[0], second[2])
