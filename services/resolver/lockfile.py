"""qila.lock.json: what is installed, in the same words for every ecosystem."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from packageurl import PackageURL

from services.resolver.errors import LockError
from services.resolver.model import ROOT_PROJECT, LockedPackage
from services.resolver.packages import version_of_purl
from services.resolver.paths import normal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from services.resolver.model import Lockfile

LOCK_NAME = "qila.lock.json"
LOCK_FORMAT = 1
# Left out where it says nothing, so that most entries are short.
OPTIONAL_KEYS = ("license_text", "locations")

MAX_LOCK_BYTES = 64 << 20
MAX_PACKAGES = 50_000
MAX_ITEMS = 100_000
MAX_TOOLS = 64
MAX_TEXT = 4_096

TOP_KEYS = frozenset({"format", "ecosystem", "toolchain", "packages"})
# In a lock of several projects: which one it is.
PROJECT_KEY = "project"
PACKAGE_KEYS = frozenset(field.name for field in fields(LockedPackage))
ECOSYSTEM = re.compile(r"[a-z][a-z0-9_-]{0,30}")
PURL = re.compile(r"pkg:[a-z][a-z0-9.+-]{0,30}/[!-~]{1,1000}")
HASH = re.compile(r"[A-Za-z0-9]{1,20}[:-][A-Za-z0-9+/=_-]{1,300}")
PACKAGES_START = re.compile(r'"packages"\s*:\s*\[')
BETWEEN_ENTRIES = re.compile(r"[\s,]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class QilaLock:
    """What a qila.lock.json says; `project` is the directory, "." for the workspace itself, in a lock of several."""

    ecosystem: str
    toolchain: Mapping[str, str]
    packages: tuple[LockedPackage, ...]
    project: str = ""


class _MisfitError(Exception):
    """A value is not what it should be: the key, and the number of the package that it belongs to, from 0."""

    def __init__(self, key: str, reason: str, package: int | None = None) -> None:
        super().__init__(reason)
        self.key, self.reason, self.package = key, reason, package


def lock_to_json(ecosystem: str, packages: Iterable[LockedPackage], toolchain: Mapping[str, str]) -> bytes:
    """The canonical bytes: the same for the same packages, whatever their order."""
    document = {
        "format": LOCK_FORMAT,
        "ecosystem": ecosystem,
        "toolchain": dict(toolchain),
        "packages": [_package_to_json(package) for package in sorted(packages, key=lambda package: package.purl)],
    }
    return (json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def is_qila_lock(lockfile: Lockfile) -> bool:
    """Whether a lock is a qila.lock.json, by its name or else by its keys."""
    if lockfile.name.rpartition("/")[2] == LOCK_NAME:
        return True
    if lockfile.content.lstrip()[:1] != b"{":
        return False
    try:
        document = json.loads(lockfile.content)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.keys() >= {"ecosystem", "format", "packages"}


def read_qila_lock(content: bytes, name: str = LOCK_NAME) -> QilaLock:
    """Read a qila.lock.json strictly; raises LockError with the line. `name` is for messages."""
    text = decode_lock(content, name)
    try:
        return _lock(parse_lock(text, name))
    except _MisfitError as misfit:
        raise LockError(name=name, line=_line_of(text, misfit), reason=misfit.reason) from misfit


def lines_of_packages(content: bytes) -> dict[str, int]:
    """The line, from 1, of each package's purl in a qila.lock.json that was read."""
    text = content.decode()
    lines: dict[str, int] = {}
    position, line = 0, 1
    for start, _, entry in entries(text, PACKAGES_START):
        place = _place_of_key(text, start, "purl")
        line += text.count("\n", position, place)
        position = place
        lines[entry["purl"]] = line
    return lines


def line_of_package(content: bytes, purl: str) -> int:
    """The line, from 1, of a package's purl in a qila.lock.json that was read; 0 if it is not there."""
    return lines_of_packages(content).get(purl, 0)


def _package_to_json(package: LockedPackage) -> dict[str, object]:
    document = asdict(package)
    for key in OPTIONAL_KEYS:
        if not document[key]:
            del document[key]
    return document


def decode_lock(content: bytes, name: str) -> str:
    """The text of a lock, within its limit; raises LockError."""
    if len(content) > MAX_LOCK_BYTES:
        raise LockError(name=name, line=0, reason=f"{len(content)} bytes is above the limit of {MAX_LOCK_BYTES}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise LockError(name=name, line=line, reason="is not UTF-8") from error


def parse_lock(text: str, name: str) -> Any:
    """The JSON of a lock, in which no key is there twice; raises LockError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_repetition)
    except json.JSONDecodeError as error:
        raise LockError(name=name, line=error.lineno, reason=f"is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise LockError(name=name, line=0, reason="is nested too deep") from error
    except ValueError as error:
        raise LockError(name=name, line=0, reason=str(error)[:200]) from error


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no value of a lock")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What another reader would take from the second of two equal keys must not be hidden from this one."""
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"the key {key[:80]!r} is there twice in one object")
        document[key] = value
    return document


def _lock(document: Any) -> QilaLock:
    if not isinstance(document, dict):
        raise _MisfitError("", "must be a JSON object")
    _check_keys(document, TOP_KEYS | {PROJECT_KEY}, TOP_KEYS, None)
    if type(document["format"]) is not int or document["format"] != LOCK_FORMAT:
        raise _MisfitError("format", f"format must be {LOCK_FORMAT}; a newer Qila may have written it")
    entries = document["packages"]
    if not isinstance(entries, list) or len(entries) > MAX_PACKAGES:
        raise _MisfitError("packages", f"packages must be a list of at most {MAX_PACKAGES}")
    packages: dict[str, LockedPackage] = {}
    for number, entry in enumerate(entries):
        package = _package(entry, number)
        if package.purl in packages:
            raise _MisfitError("purl", f"{package.purl} is there twice", number)
        packages[package.purl] = package
    return QilaLock(
        ecosystem=_matching(document, "ecosystem", ECOSYSTEM, None),
        toolchain=_toolchain(document["toolchain"]),
        packages=tuple(packages.values()),
        project=_project(document),
    )


def _project(document: dict[str, Any]) -> str:
    if PROJECT_KEY not in document:
        return ""
    project = _text(document, PROJECT_KEY, None)
    if project != ROOT_PROJECT and (normal(project) != project or "\\" in project):
        raise _MisfitError(PROJECT_KEY, f"{project[:80]!r} is not a directory of a workspace")
    return project


def _toolchain(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_TOOLS:
        raise _MisfitError("toolchain", f"toolchain must be an object of at most {MAX_TOOLS}")
    for name in value:
        _check_text("toolchain", name, None)
        _check_text("toolchain", value[name], None)
    return value


def _package(entry: Any, number: int) -> LockedPackage:
    if not isinstance(entry, dict):
        raise _MisfitError("", "a package must be an object", number)
    _check_keys(entry, PACKAGE_KEYS, PACKAGE_KEYS.difference(OPTIONAL_KEYS), number)
    if not isinstance(entry["direct"], bool):
        raise _MisfitError("direct", "direct must be true or false", number)
    package = LockedPackage(
        purl=_purl(entry, number),
        name=_text(entry, "name", number),
        version=_text(entry, "version", number),
        hashes=_texts(entry, "hashes", number),
        license=_text(entry, "license", number),
        direct=entry["direct"],
        license_text=_raw_text(entry, "license_text", number),
        required_by=_texts(entry, "required_by", number),
        locations=_texts(entry, "locations", number),
    )
    _check_package(package, number)
    return package


def _purl(entry: dict[str, Any], number: int) -> str:
    purl = _matching(entry, "purl", PURL, number)
    try:
        PackageURL.from_string(purl)
    except ValueError as error:
        raise _MisfitError("purl", f"{purl[:80]!r} is not a purl", number) from error
    return purl


def _check_package(package: LockedPackage, number: int) -> None:
    if version_of_purl(package.purl) != package.version:
        raise _MisfitError("version", f"version {package.version} is not that of {package.purl}", number)
    for item in package.hashes:
        if not HASH.fullmatch(item):
            raise _MisfitError("hashes", f"{item[:80]!r} is not a hash", number)
    for item in package.required_by:
        if not PURL.fullmatch(item):
            raise _MisfitError("required_by", f"{item[:80]!r} is not a purl", number)
    for item in package.locations:
        if item.startswith("/") or "\\" in item or not {"", ".", ".."}.isdisjoint(item.split("/")):
            raise _MisfitError("locations", f"{item[:80]!r} is not a path inside the environment", number)


def _check_keys(document: dict[str, Any], known: frozenset[str], required: frozenset[str], number: int | None) -> None:
    for key in document:
        if key not in known:
            raise _MisfitError(key, f"unknown key {key[:80]!r}", number)
    for key in sorted(required):
        if key not in document:
            raise _MisfitError("", f"{key} is missing", number)


def _matching(document: dict[str, Any], key: str, pattern: re.Pattern[str], number: int | None) -> str:
    value = _text(document, key, number)
    if not pattern.fullmatch(value):
        raise _MisfitError(key, f"{key} is not valid: {value[:80]!r}", number)
    return value


def _text(document: dict[str, Any], key: str, number: int | None) -> str:
    value = document[key]
    _check_text(key, value, number)
    return str(value)


def _check_text(key: str, value: Any, number: int | None) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        raise _MisfitError(key, f"{key} must be a text of 1 to {MAX_TEXT} characters", number)
    if not value.isprintable():
        raise _MisfitError(key, f"{key} holds characters that cannot be printed", number)


def _raw_text(entry: dict[str, Any], key: str, number: int) -> str:
    """A text that a stranger wrote and that nothing depends on; lines may be in it."""
    value = entry.get(key, "")
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise _MisfitError(key, f"{key} must be a text of at most {MAX_TEXT} characters", number)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _MisfitError(key, f"{key} holds a lone surrogate", number)
    return value


def _texts(entry: dict[str, Any], key: str, number: int) -> tuple[str, ...]:
    values = entry.get(key, [])
    if not isinstance(values, list) or len(values) > MAX_ITEMS:
        raise _MisfitError(key, f"{key} must be a list of at most {MAX_ITEMS}", number)
    for value in values:
        _check_text(key, value, number)
    return tuple(values)


def _line_of(text: str, misfit: _MisfitError) -> int:
    """The line of a key, else of the package, else 1."""
    start = 0
    if misfit.package is not None:
        start = next((begin for begin, number, _ in entries(text, PACKAGES_START) if number == misfit.package), 0)
    return text.count("\n", 0, _place_of_key(text, start, misfit.key)) + 1


def _place_of_key(text: str, start: int, key: str) -> int:
    """Where a key of the object at `start` stands, or that start."""
    found = re.compile(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:").search(text, start) if key else None
    return found.start() if found else start


def entries(text: str, beginning: re.Pattern[str]) -> Iterator[tuple[int, int, Any]]:
    """Start, number and value of each entry of the list that begins where a pattern ends, of a text that is JSON."""
    found = beginning.search(text)
    position = found.end() if found else len(text)
    decoder = json.JSONDecoder()
    number = 0
    while position < len(text):
        gap = BETWEEN_ENTRIES.match(text, position)
        position = gap.end() if gap else position
        if text[position : position + 1] in {"]", ""}:
            return
        value, end = decoder.raw_decode(text, position)
        yield position, number, value
        position, number = end, number + 1
