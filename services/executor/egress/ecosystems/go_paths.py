"""The grammar of the Go door: the module proxy's protocol, and the checksum database's below `/sumdb/<name>/`."""

import re
from dataclasses import dataclass
from typing import Literal

_MAX_MODULE_CHARACTERS = 255
_MAX_VERSION_CHARACTERS = 128

# The host that a module's path begins with: lower case, at least one dot, and no number, which an address would end in.
_HOST = r"(?:[a-z0-9][a-z0-9-]*\.)+[a-z][a-z0-9-]*"
# Go's own rule for the rest, but for the names that Windows reserves: no element begins or ends with a dot.
_ELEMENT = r"(?![^/]*\.(?:/|$))[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
_MODULE = re.compile(rf"{_HOST}(?:/{_ELEMENT})*")
_NUMBER = r"(?:0|[1-9][0-9]{0,18})"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
# Canonical semantic versions. Pseudo-versions are pre-releases; build metadata is only ever `+incompatible`.
_VERSION = re.compile(
    rf"v(?P<core>{_NUMBER}\.{_NUMBER}\.{_NUMBER})(?:-(?P<pre>{_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+incompatible)?"
)
_MODULE_PATH = re.compile(
    r"/(?P<module>[^@]+)/@(?:(?P<index>v/list|latest)|v/(?P<version>[^@/]+)\.(?P<kind>info|mod|zip))"
)
_LOOKUP = re.compile(r"lookup/(?P<module>[^@]+)@(?P<version>[^@/]+)")
# The database has tiles of height 8 alone: 64 bits of record number make levels 0 to 7, and `data`.
_TILE = re.compile(r"tile/8/(?:[0-7]|data)/(?:x[0-9]{3}/){0,6}[0-9]{3}(?P<partial>\.p/(?P<width>[1-9][0-9]{0,2}))?")
_TILE_WIDTH = 256
# What Go writes for `!`, and others for `+`; no other escape has any business here.
_ESCAPES = {"%21": "!", "%2B": "+", "%2b": "+"}

VersionFile = Literal["info", "mod", "zip"]


@dataclass(frozen=True, kw_only=True)
class ListRequest:
    """The known versions of a module."""

    module: str


@dataclass(frozen=True, kw_only=True)
class LatestRequest:
    """The newest version of a module, whatever that is where none is tagged."""

    module: str


@dataclass(frozen=True, kw_only=True)
class VersionRequest:
    """One of the three files of a version; module and version are unescaped."""

    module: str
    version: str
    kind: VersionFile


@dataclass(frozen=True, kw_only=True)
class SupportedRequest:
    """Whether the checksum database can be asked through here."""


@dataclass(frozen=True, kw_only=True)
class LookupRequest:
    """The checksums of a version."""

    module: str
    version: str


@dataclass(frozen=True, kw_only=True)
class DatabaseRequest:
    """A page of the database that names no module: its newest tree head, or a tile. A full tile never changes."""

    path: str
    immutable: bool


Request = ListRequest | LatestRequest | VersionRequest | SupportedRequest | LookupRequest | DatabaseRequest


def parse_path(path: str, *, database: str) -> Request | None:
    """What a raw path below the prefix asks for; None if the door has no such path. `database` is our one's name."""
    for escape, character in _ESCAPES.items():
        path = path.replace(escape, character)
    if path.startswith("/sumdb/"):
        prefix = f"/sumdb/{database}/"
        return _parse_database(path.removeprefix(prefix)) if path.startswith(prefix) else None
    match = _MODULE_PATH.fullmatch(path)
    module = _module(match["module"]) if match else None
    if match is None or module is None:
        return None
    if match["index"]:
        return ListRequest(module=module) if match["index"] == "v/list" else LatestRequest(module=module)
    version = _version(match["version"])
    kinds: dict[str, VersionFile] = {"info": "info", "mod": "mod", "zip": "zip"}
    return VersionRequest(module=module, version=version, kind=kinds[match["kind"]]) if version else None


def _parse_database(path: str) -> Request | None:
    if path == "supported":
        return SupportedRequest()
    if path == "latest":
        return DatabaseRequest(path=path, immutable=False)
    tile = _TILE.fullmatch(path)
    if tile:
        partial = tile["partial"] is not None
        known = not partial or int(tile["width"]) < _TILE_WIDTH
        return DatabaseRequest(path=path, immutable=not partial) if known else None
    lookup = _LOOKUP.fullmatch(path)
    if lookup is None:
        return None
    module, version = _module(lookup["module"]), _version(lookup["version"])
    return LookupRequest(module=module, version=version) if module and version else None


def escape(text: str) -> str:
    """A module's path or a version as it stands in a URL: `!` and the lower-case letter for each capital."""
    return re.sub(r"[A-Z]", lambda capital: f"!{capital[0].lower()}", text)


def is_version(text: str) -> bool:
    """Whether this is a version as Go writes it."""
    return len(text) <= _MAX_VERSION_CHARACTERS and _VERSION.fullmatch(text) is not None


def precedence(version: str) -> tuple[object, ...]:
    """A key that sorts versions by the rules of semantic versioning, the oldest first; `version` is a valid one."""
    match = _VERSION.fullmatch(version)
    assert match is not None
    core = tuple(int(number) for number in match["core"].split("."))
    if match["pre"] is None:
        return (core, 1, ())
    # Numbers are below words, and compared as numbers.
    words = tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in match["pre"].split("."))
    return (core, 0, words)


def _module(escaped: str) -> str | None:
    module = _unescape(escaped)
    if module is None or len(module) > _MAX_MODULE_CHARACTERS or not _MODULE.fullmatch(module):
        return None
    return module


def _version(escaped: str) -> str | None:
    version = _unescape(escaped)
    return version if version is not None and is_version(version) else None


def _unescape(text: str) -> str | None:
    """None if a capital stands there as it is, or `!` before anything but a lower-case letter."""
    if re.search(r"[A-Z]|!(?![a-z])", text):
        return None
    return re.sub(r"!([a-z])", lambda escaped: escaped[1].upper(), text)
