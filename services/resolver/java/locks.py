"""Qila's lock for Maven's packages: what is installed, each file with its SHA-256."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.resolver.errors import LockError
from services.resolver.java.coordinates import CLASSIFIER, EXTENSION, NAME, VERSION, Coordinate, purl_of

if TYPE_CHECKING:
    from collections.abc import Iterable

LOCK = "maven.lock.json"
FORMAT = 1
TOOL = "maven"
MAX_BYTES = 16 * 1024 * 1024
MAX_PACKAGES = 5_000
MAX_POMS = 20_000
MAX_REQUIRERS = 10_000
HASH = re.compile(r"[0-9a-f]{64}")
FILE = re.compile(r"(?:lib|pom)/[A-Za-z0-9_][A-Za-z0-9_.+-]{0,500}")
ID = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}:[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}:[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedArtifact:
    """One file of a lock; `required_by` holds `group:artifact:version`."""

    coordinate: Coordinate
    file: str
    sha256: str
    direct: bool = False
    required_by: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """`group:artifact:version`."""
        return f"{self.coordinate.name}:{self.coordinate.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class MavenLock:
    """The packages of a lock, and the POMs that describe them."""

    packages: tuple[LockedArtifact, ...]
    poms: tuple[LockedArtifact, ...] = ()


def is_maven_lock(name: str, content: bytes) -> bool:
    """Whether this is Qila's lock for Maven, by its name or by its keys."""
    if name.rpartition("/")[2] == LOCK:
        return True
    if content.lstrip()[:1] != b"{" or len(content) > MAX_BYTES:
        return False
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("tool") == TOOL and "packages" in document


def read_maven_lock(content: bytes, name: str = LOCK) -> MavenLock:
    """Read a lock strictly; raises LockError with the line of the package that is wrong."""
    if len(content) > MAX_BYTES:
        raise LockError(name=name, line=0, reason=f"{len(content)} bytes is above the limit of {MAX_BYTES}")
    document = _parse(content, name)
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("tool") != TOOL:
        raise LockError(name=name, line=1, reason=f"is no lock of Maven's packages in format {FORMAT}")
    reader = _Reader(name, content)
    return MavenLock(
        packages=tuple(reader.entries(document.get("packages"), "packages", MAX_PACKAGES)),
        poms=tuple(reader.entries(document.get("poms", []), "poms", MAX_POMS)),
    )


def install_rows(lock: MavenLock) -> bytes:
    """A lock as the sandbox's own programs read it: a line for each file, tabs between its fields."""
    rows = [_row("package", item) for item in lock.packages] + [_row("pom", item) for item in lock.poms]
    return "".join(f"{row}\n" for row in rows).encode()


def preferences(lock: MavenLock) -> bytes:
    """The versions of a lock, for a solve that leaves the choice: `group:artifact`, a tab, the version."""
    return "".join(f"{item.coordinate.name}\t{item.coordinate.version}\n" for item in lock.packages).encode()


def with_files(artifacts: Iterable[LockedArtifact]) -> tuple[LockedArtifact, ...]:
    """The artefacts, each with a place in the environment: as a solve names them."""
    taken: set[str] = set()
    found = []
    for item in artifacts:
        coordinate = item.coordinate
        classifier = f"-{coordinate.classifier}" if coordinate.classifier else ""
        name = f"{coordinate.artifact}-{coordinate.version}{classifier}.{coordinate.extension}"
        name = f"{coordinate.group}.{name}" if name in taken else name
        taken.add(name)
        found.append(
            LockedArtifact(
                coordinate=coordinate,
                file=f"lib/{name}",
                sha256=item.sha256,
                direct=item.direct,
                required_by=item.required_by,
            )
        )
    return tuple(found)


def purl_of_id(identity: str) -> str:
    """The purl of `group:artifact:version`."""
    group, artifact, version = identity.split(":")
    return purl_of(Coordinate(group=group, artifact=artifact, version=version))


def _row(kind: str, item: LockedArtifact) -> str:
    coordinate = item.coordinate
    fields = (
        kind, coordinate.group, coordinate.artifact, coordinate.version, coordinate.classifier, coordinate.extension,
        "direct" if item.direct else "", item.file, item.sha256, ",".join(item.required_by),
    )  # fmt: skip
    return "\t".join(fields)


def _parse(content: bytes, name: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise LockError(name=name, line=content[: error.start].count(b"\n") + 1, reason="is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise LockError(name=name, line=error.lineno, reason=f"is not JSON: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise LockError(name=name, line=0, reason="is nested too deep, or holds a number that is too long") from error


class _Reader:
    def __init__(self, name: str, content: bytes) -> None:
        self._name, self._content = name, content

    def entries(self, value: Any, key: str, limit: int) -> list[LockedArtifact]:
        if not isinstance(value, list) or len(value) > limit:
            raise LockError(name=self._name, line=1, reason=f"{key} must be a list of at most {limit}")
        found: dict[str, LockedArtifact] = {}
        for item in value:
            entry = self._entry(item, key)
            if entry.file in found:
                raise self._error(entry.file, f"{entry.file} is there twice")
            found[entry.file] = entry
        return list(found.values())

    def _entry(self, value: Any, key: str) -> LockedArtifact:
        if not isinstance(value, dict):
            raise LockError(name=self._name, line=1, reason=f"an entry of {key} must be an object")
        is_pom = key == "poms"
        coordinate = Coordinate(
            group=self._text(value, "group", NAME),
            artifact=self._text(value, "artifact", NAME),
            version=self._text(value, "version", VERSION),
            classifier=self._text(value, "classifier", CLASSIFIER) if value.get("classifier") else "",
            extension="pom" if is_pom else self._text(value, "extension", EXTENSION),
        )
        file = self._text(value, "file", FILE)
        if file.startswith("pom/") != is_pom:
            raise self._error(file, f"{file} is no place for an entry of {key}")
        required = value.get("required_by", [])
        if not isinstance(required, list) or len(required) > MAX_REQUIRERS:
            raise self._error(file, f"required_by must be a list of at most {MAX_REQUIRERS}")
        for item in required:
            if not isinstance(item, str) or not ID.fullmatch(item):
                raise self._error(file, f"{str(item)[:80]!r} is not written group:artifact:version")
        return LockedArtifact(
            coordinate=coordinate,
            file=file,
            sha256=self._text(value, "sha256", HASH),
            direct=value.get("direct") is True,
            required_by=tuple(required),
        )

    def _text(self, entry: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
        value = entry.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            shown = str(entry.get("file") or entry.get("artifact") or "")
            raise self._error(shown, f"{key} of {shown[:80]!r} is not valid: {str(value)[:80]!r}")
        return value

    def _error(self, near: str, reason: str) -> LockError:
        at = self._content.find(json.dumps(near).encode()) if near else -1
        return LockError(name=self._name, line=self._content.count(b"\n", 0, at) + 1 if at >= 0 else 1, reason=reason)
