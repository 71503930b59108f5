"""`pylock.toml` (PEP 751) as uv writes it: the native lock of an environment."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
from packaging.utils import canonicalize_name

from services.resolver.errors import LockError
from services.resolver.python.artefacts import LockedFile, file_name
from services.resolver.python.environment import marker_environment
from services.resolver.python.inventory import NAME, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HEAD = re.compile(rb"^lock-version[ \t]*=", re.MULTILINE)
HEAD_BYTES = 4096
HASH = re.compile(r"sha(?:256|384|512):[0-9a-f]{64,128}")
TOML_PLACE = re.compile(r"\(at line (?P<line>\d+), column \d+\)")
# What a door puts between its own address and the registry's path: the digests of the file and of its metadata.
DIGESTS = rb"[0-9a-f]{64}/(?:[0-9a-f]{64}|-)/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """One package of a native lock; `files` are those that it lists by name."""

    name: str
    version: str
    hashes: tuple[str, ...]
    files: tuple[LockedFile, ...] = ()


def is_pylock(raw: bytes) -> bool:
    """Whether the bytes are a pylock.toml rather than a list of requirements."""
    return bool(HEAD.search(raw[:HEAD_BYTES]))


def read_pylock(raw: bytes, python: str) -> list[Pin]:
    """The pins that apply to the sandbox's Python; raises LockError.

    Only what decides an install is read: a file name in an odd form that uv accepted is no reason to refuse the lock.
    """
    document = _parse(raw)
    packages = document.get("packages")
    if str(document.get("lock-version", "")).partition(".")[0] != "1" or not isinstance(packages, list):
        raise LockError(line=0, reason="is not a pylock.toml of version 1 with packages")
    environment = marker_environment(python)
    return [pin for index, item in enumerate(packages) if (pin := _pin(index, item, environment))]


def preferences(pins: Iterable[Pin]) -> bytes:
    """A pylock.toml that says versions and nothing else: a solver that finds it prefers them."""
    tables = (f'\n[[packages]]\nname = "{pin.name}"\nversion = "{pin.version}"\n' for pin in pins)
    return ('lock-version = "1.0"\ncreated-by = "qila"\n' + "".join(tables)).encode()


def public_lock(raw: bytes, registry_urls: Mapping[str, str]) -> bytes:
    """The lock with the registry's own addresses instead of those of the doors; of index pages, too."""
    for door, registry in registry_urls.items():
        pattern = re.escape(door.encode()) + b"(?:" + DIGESTS + b")?"
        raw = re.sub(pattern, lambda _, registry=registry: registry.encode(), raw)  # type: ignore[misc]
        raw = raw.replace(b'"' + door.rstrip("/").encode() + b'"', b'"' + registry.rstrip("/").encode() + b'"')
    return raw


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise LockError(line=raw[: error.start].count(b"\n") + 1, reason="is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        place = TOML_PLACE.search(str(error))
        line = int(place["line"]) if place else raw.count(b"\n") + 1
        raise LockError(line=line, reason=f"is not TOML: {TOML_PLACE.sub('', str(error)).strip()}") from error
    except RecursionError as error:
        raise LockError(line=0, reason="is nested too deep; no lock needs that") from error


def _pin(index: int, package: Any, environment: Mapping[str, str]) -> Pin | None:
    fields = package if isinstance(package, dict) else {}
    name, version, marker = (fields.get(key, "") for key in ("name", "version", "marker"))
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise LockError(line=0, reason=f"packages[{index}].name is not the name of a package")
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise LockError(line=0, reason=f"{name} has no exact version")
    if marker and not _applies(name, str(marker), environment):
        return None
    listed = _files(fields)
    return Pin(
        name=str(canonicalize_name(name)),
        version=version,
        hashes=tuple(sorted({value for _, hashes in listed for value in hashes})),
        files=tuple(LockedFile(name=name, hashes=hashes) for name, hashes in listed if name),
    )


def _applies(name: str, marker: str, environment: Mapping[str, str]) -> bool:
    try:
        return Marker(marker).evaluate(dict(environment))
    except (InvalidMarker, UndefinedEnvironmentName) as error:
        raise LockError(line=0, reason=f"{name} has a marker that cannot be read: {marker[:80]!r}") from error


def _files(package: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """The files of a package: name and hashes; a name is empty where the lock does not say it."""
    wheels = package.get("wheels")
    files = [*(wheels if isinstance(wheels, list) else ()), package.get("sdist"), package.get("archive")]
    return [(file_name(file), _hashes(file)) for file in files if isinstance(file, dict)]


def _hashes(file: Mapping[str, Any]) -> tuple[str, ...]:
    table = file.get("hashes")
    found = {f"{algorithm}:{digest}" for algorithm, digest in table.items()} if isinstance(table, dict) else set()
    return tuple(sorted(value for value in found if HASH.fullmatch(value)))
