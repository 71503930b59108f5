"""The inventory that the sandbox takes of an environment, read strictly."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from services.resolver.errors import InventoryError
from services.resolver.go.licenses import LicenseFile
from services.resolver.go.names import ECOSYSTEM, HASH, VERSION, is_path

MAX_BYTES = 64 * 1024 * 1024
MAX_MODULES = 20_000
MAX_EDGES = 200_000
MAX_LICENSES = 16
MAX_TEXT = 64 * 1024
FORMAT = 1
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
    if len(raw) > MAX_BYTES:
        raise InventoryError(path="", reason=f"{len(raw)} bytes is above the limit of {MAX_BYTES}")
    document = _object("", _parse(raw))
    for key, expected in (("format", FORMAT), ("ecosystem", ECOSYSTEM)):
        if document.get(key) != expected:
            raise InventoryError(path=key, reason=f"must be {expected!r}")
    modules: dict[str, InstalledModule] = {}
    for index, item in enumerate(_list("modules", document.get("modules"), MAX_MODULES)):
        module = _module(f"modules[{index}]", item)
        if module.path in modules:
            raise InventoryError(path=f"modules[{index}].path", reason=f"{module.path} is there twice")
        modules[module.path] = module
    edges = [_edge(f"graph[{at}]", item) for at, item in enumerate(_list("graph", document.get("graph"), MAX_EDGES))]
    return Inventory(modules=modules, edges=tuple(edges))


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (UnicodeDecodeError, ValueError) as error:
        raise InventoryError(path="", reason="is not JSON in UTF-8") from error
    except RecursionError as error:
        raise InventoryError(path="", reason="is nested too deep") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _module(path: str, value: Any) -> InstalledModule:
    fields = _object(path, value)
    name, version = _text(f"{path}.path", fields.get("path")), _text(f"{path}.version", fields.get("version"))
    if not is_path(name):
        raise InventoryError(path=f"{path}.path", reason=f"is no path of a module: {name[:80]!r}")
    if not VERSION.fullmatch(version):
        raise InventoryError(path=f"{path}.version", reason=f"is no version: {version[:80]!r}")
    digest = _text(f"{path}.hash", fields.get("hash"))
    if digest and not HASH.fullmatch(digest):
        raise InventoryError(path=f"{path}.hash", reason=f"is no hash: {digest[:80]!r}")
    licenses = _list(f"{path}.licenses", fields.get("licenses"), MAX_LICENSES)
    found = [_license(f"{path}.licenses[{index}]", item) for index, item in enumerate(licenses)]
    return InstalledModule(path=name, version=version, hash=digest, licenses=tuple(found))


def _license(path: str, value: Any) -> LicenseFile:
    fields = _object(path, value)
    return LicenseFile(name=_text(f"{path}.name", fields.get("name")), text=_text(f"{path}.text", fields.get("text")))


def _edge(path: str, value: Any) -> tuple[tuple[str, str], tuple[str, str]]:
    pair = _list(path, value, PAIR)
    if len(pair) != PAIR:
        raise InventoryError(path=path, reason="must be a pair")
    first, second = (_text(path, item).partition("@") for item in pair)
    return (first[0], first[2]), (second[0], second[2])


def _object(path: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InventoryError(path=path, reason="must be an object")
    return value


def _list(path: str, value: Any, limit: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        raise InventoryError(path=path, reason=f"must be a list of at most {limit}")
    return value


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise InventoryError(path=path, reason="must be a string of at most 64 KiB")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InventoryError(path=path, reason="holds a lone surrogate") from error
    return value
