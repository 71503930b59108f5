"""package-lock.json and npm-shrinkwrap.json, versions 1 to 3, read strictly."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.resolver.errors import LockError
from services.resolver.node.json_text import has_lone_surrogate
from services.resolver.node.names import MAX_LEVELS, MODULES, NAME, VERSION, directory_name, is_location

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_LOCK_BYTES = 64 << 20
MAX_PACKAGES = 50_000
MAX_ITEMS = 10_000
MAX_TEXT = 8_192
# What the registries' archives have in their addresses; nothing else can be had by name and version.
ARCHIVE = re.compile(r"https?://[^\s?#]+/-/[^\s?#]+\.tgz(?:[?#]\S*)?")
ROOT_KEYS = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedEntry:
    """One package of npm's lock, at one location."""

    name: str
    version: str
    line: int = 0
    integrity: str = ""
    license: object = None
    needs: tuple[str, ...] = ()
    resolved: str = ""
    optional: bool = False
    link: bool = False
    has_install_script: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NpmLock:
    """What npm's lock says. `root` maps the project's own dependencies to their ranges; None where it does not say."""

    version: int
    entries: Mapping[str, LockedEntry]
    root: Mapping[str, str] | None = field(default=None)


def read_npm_lock(raw: bytes, name: str = "package-lock.json") -> NpmLock:
    """Read a lock; raises LockError with the line."""
    text = _decoded(raw, name)
    document = parse_object(text, name)
    version = document.get("lockfileVersion", 1)
    if not isinstance(version, int) or version not in {1, 2, 3}:
        reason = f"lockfileVersion {str(version)[:80]} is unknown"
        raise LockError(name=name, line=_line_of(text, "lockfileVersion"), reason=reason)
    lines = _LinesOfKeys(text)
    try:
        return _lock_of(document, version, lines)
    except _MisfitError as misfit:
        reason = f"{misfit.key[:200]}: {misfit.reason}"
        raise LockError(name=name, line=lines.of(misfit.key), reason=reason) from misfit


def _lock_of(document: dict[str, Any], version: int, lines: _LinesOfKeys) -> NpmLock:
    """Both halves are checked, as others walk them; each version counts one of them."""
    packages = _objects(document.get("packages", {} if version == 1 else None), "packages")
    root = packages.get("", {})
    for key in ROOT_KEYS:
        _check_ranges(root.get(key, {}), key)
    if version == 1:
        return NpmLock(version=1, entries=dict(_entries_of_tree(document, lines)))
    _check_tree(document.get("dependencies", {}))
    entries = {
        location: _entry(location, value, lines.of(location)) for location, value in packages.items() if location
    }
    return NpmLock(version=version, entries=entries, root=root_ranges(root))


def parse_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object; raises LockError."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise LockError(name=name, line=error.lineno, reason=f"is not JSON: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise LockError(name=name, line=0, reason="is nested too deep, or has a number that is too long") from error
    if not isinstance(document, dict):
        raise LockError(name=name, line=1, reason="must be a JSON object")
    if has_lone_surrogate(text, document):
        raise LockError(name=name, line=0, reason="holds half of a surrogate pair, which is no character")
    return document


def root_ranges(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The dependencies of a package.json or of a lock's root, all kinds but peers."""
    found: dict[str, str] = {}
    for key in ROOT_KEYS[:3]:
        value = manifest.get(key)
        if isinstance(value, dict):
            found.update({str(name): str(wanted) for name, wanted in value.items()})
    return found


class _MisfitError(Exception):
    """A value is not what it should be."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason


class _LinesOfKeys:
    """The lines of keys in a JSON text, found at the first question."""

    KEY = re.compile(r'"((?:[^"\\\n]){1,1000})"\s*:')

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: dict[str, int] | None = None

    def of(self, key: str) -> int:
        """The first line with the key; 0 if there is none."""
        if self._lines is None:
            self._lines = {}
            for number, line in enumerate(self._text.split("\n"), start=1):
                for match in self.KEY.finditer(line):
                    self._lines.setdefault(match[1], number)
        return self._lines.get(key, 0)


def _line_of(text: str, key: str) -> int:
    return _LinesOfKeys(text).of(key)


def _decoded(raw: bytes, name: str) -> str:
    if len(raw) > MAX_LOCK_BYTES:
        raise LockError(name=name, line=0, reason=f"{len(raw)} bytes is above the limit of {MAX_LOCK_BYTES}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LockError(name=name, line=raw[: error.start].count(b"\n") + 1, reason="is not UTF-8") from error


def _objects(value: object, key: str) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or len(value) > MAX_PACKAGES:
        raise _MisfitError(key, f"must be an object of at most {MAX_PACKAGES}")
    for name, item in value.items():
        if not isinstance(item, dict):
            raise _MisfitError(name, "must be an object")
    return value


def _check_ranges(value: object, key: str) -> None:
    if not isinstance(value, dict) or not all(isinstance(wanted, str) for wanted in value.values()):
        raise _MisfitError(key, "must be an object of names and version ranges")


def _check_tree(value: object) -> None:
    """What a lock of version 2 says once more for older versions of npm: objects, however deep."""
    pending = [(value, "dependencies")]
    while pending:
        dependencies, key = pending.pop()
        entries = _objects(dependencies, key)
        pending += [(entry["dependencies"], name) for name, entry in entries.items() if "dependencies" in entry]


def _entry(location: str, value: dict[str, Any], line: int) -> LockedEntry:
    name = value.get("name", directory_name(location))
    link = value.get("link") is True
    if link or not location.startswith(MODULES):
        return LockedEntry(name=str(name), version=str(value.get("version", "")), line=line, link=True)
    if not is_location(location):
        raise _MisfitError(location, f"is no place of a package, or more than {MAX_LEVELS} levels deep")
    needs = [key for kind in ROOT_KEYS if kind != "devDependencies" for key in _names(location, value.get(kind))]
    return LockedEntry(
        name=_matching(location, "name", name, NAME),
        version=_matching(location, "version", value.get("version"), VERSION),
        line=line,
        integrity=_text(location, value.get("integrity", "")),
        license=value.get("license"),
        needs=tuple(dict.fromkeys(needs)),
        resolved=_text(location, value.get("resolved", "")) if value.get("resolved") else "",
        optional=value.get("optional") is True or value.get("devOptional") is True,
        has_install_script=value.get("hasInstallScript") is True,
    )


def _entries_of_tree(document: dict[str, Any], lines: _LinesOfKeys) -> Iterator[tuple[str, LockedEntry]]:
    """The packages of a lock of version 1, which nests them."""
    pending = [("", _objects(document.get("dependencies", {}), "dependencies"))]
    count = 0
    while pending:
        above, dependencies = pending.pop()
        for name, value in dependencies.items():
            count += 1
            location = f"{above}/{MODULES}{name}".removeprefix("/")
            if count > MAX_PACKAGES or not is_location(location):
                reason = f"is no package, or one beyond {MAX_PACKAGES} or {MAX_LEVELS} levels"
                raise _MisfitError(name, reason)
            yield location, _entry_of_tree(location, value, lines.of(name))
            if "dependencies" in value:
                pending.append((location, _objects(value["dependencies"], name)))


def _entry_of_tree(location: str, value: dict[str, Any], line: int) -> LockedEntry:
    version = _text(location, value.get("version", ""))
    name = directory_name(location)
    if version.startswith("npm:"):
        name, _, version = version.removeprefix("npm:").rpartition("@")
    registry = VERSION.fullmatch(version) is not None and NAME.fullmatch(name) is not None
    requires = value.get("requires")
    return LockedEntry(
        name=name,
        version=version,
        line=line,
        integrity=_text(location, value.get("integrity", "")),
        needs=tuple(_names(location, requires)) if isinstance(requires, dict) else (),
        # Anything else in place of a version is an address.
        resolved=_text(location, value.get("resolved", "")) if registry else version,
        optional=value.get("optional") is True,
    )


def _names(location: str, value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, dict) or len(value) > MAX_ITEMS:
        raise _MisfitError(location, f"has dependencies that are no object of at most {MAX_ITEMS}")
    return [str(name) for name in value]


def _text(location: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise _MisfitError(location, f"has a value that is no text of at most {MAX_TEXT} characters")
    return value


def _matching(location: str, key: str, value: object, pattern: re.Pattern[str]) -> str:
    text = _text(location, value)
    if not pattern.fullmatch(text):
        raise _MisfitError(location, f"{key} is not valid: {text[:80]!r}")
    return text
