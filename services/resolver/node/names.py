"""npm's names, versions, hashes and purls."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Container
from urllib.parse import quote

NAME = re.compile(r"(?:@[A-Za-z0-9~][A-Za-z0-9._~-]{0,213}/)?[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,213}")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,200}")
MODULES = "node_modules/"
# How deep packages lie in each other.
MAX_LEVELS = 64
# Best first: a lock may give several hashes, and the strongest decides.
ALGORITHMS = {"sha512": 64, "sha384": 48, "sha256": 32, "sha1": 20}


def purl_of(name: str, version: str) -> str:
    """A package's purl; a scope's `@` is quoted."""
    return f"pkg:npm/{quote(name, safe='/')}@{quote(version, safe='')}"


def hashes_of(integrity: str) -> tuple[str, ...]:
    """The strongest hash of npm's `integrity` as `sha512:<hex>`; empty if it holds none that is known."""
    for algorithm, size in ALGORITHMS.items():
        for item in integrity.split():
            kind, _, digest = item.partition("-")
            value = _decoded(digest.partition("?")[0]) if kind == algorithm else b""
            if len(value) == size:
                return (f"{algorithm}:{value.hex()}",)
    return ()


def integrity_of(hashes: tuple[str, ...]) -> str:
    """The `integrity` of npm for hashes as a qila.lock.json has them; empty if none is known."""
    found = []
    for item in hashes:
        algorithm, _, digest = item.partition(":")
        if len(digest) == 2 * ALGORITHMS.get(algorithm, 0) and re.fullmatch(r"(?:[0-9a-f]{2})+", digest):
            found.append(f"{algorithm}-{base64.b64encode(bytes.fromhex(digest)).decode()}")
    return " ".join(found)


def directory_name(location: str) -> str:
    """The name under which a package at a location is imported."""
    return location.rpartition(MODULES)[2]


def split_specifier(specifier: str) -> tuple[str, str]:
    """`name@range` as name and range; the range is empty where there is none."""
    at = specifier.find("@", 1)
    return (specifier, "") if at < 0 else (specifier[:at], specifier[at + 1 :])


def is_location(location: str) -> bool:
    """Whether a path is one where npm puts a package."""
    parts = location.split(f"/{MODULES}") if location.startswith(MODULES) else []
    return 0 < len(parts) <= MAX_LEVELS and all(NAME.fullmatch(part.removeprefix(MODULES)) for part in parts)


def found_from(location: str, name: str, locations: Container[str]) -> str | None:
    """Where a package at a location finds another by name: in its own modules, else in the nearest above."""
    while True:
        candidate = f"{location}/{MODULES}{name}" if location else MODULES + name
        if candidate in locations:
            return candidate
        if not location:
            return None
        location = location.rpartition(f"/{MODULES}")[0]


def _decoded(digest: str) -> bytes:
    try:
        return base64.b64decode(digest, validate=True)
    except (ValueError, binascii.Error):
        return b""
