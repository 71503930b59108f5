"""`requirements.txt`, read as pip documents it, without what would leave the registry or the workspace."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as ParsedRequirement
from packaging.version import InvalidVersion

from services.resolver.errors import ManifestError
from services.resolver.model import Notice, NoticeKind
from services.resolver.python.environment import marker_environment
from services.resolver.python.manifests.text import decode_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.markers import Marker

    from services.resolver.python.artefacts import LockedFile
    from services.resolver.python.manifests.request import Request

MAX_DEPTH = 16
MAX_LINES = 20_000
MAX_REQUIREMENT_LENGTH = 4_000
COMMENT = re.compile(r"(^|\s)#.*$")
HASH = re.compile(r"\s--hash[= ]\s*(?P<value>\S+)")
HASH_VALUE = re.compile(r"sha(256|384|512):[0-9a-f]{64,128}")
INCLUDE = re.compile(r"(?P<option>-r|--requirement|-c|--constraint)(\s+|=|(?=[^\s=-]))(?P<path>.+)")
INDEX = re.compile(r"(-i|--index-url|--extra-index-url)(\s+|=)?(?P<url>\S+)")
OWN_PROJECT = re.compile(r"((-e|--editable)(\s+|=))?(file:)?\./?(\[(?P<extras>[\w\s,.-]*)\])?")
URL = re.compile(r"([a-z][a-z0-9+.-]*://|\S+@\s*[a-z]+://|git\+)", re.IGNORECASE)
LOCAL_PATH = re.compile(r"(\.{1,2}(/|$)|/|~|\S+\.(whl|zip|tar\.gz|tgz)$)")
OTHER_OPTION = re.compile(r"\s--?[a-z]", re.IGNORECASE)
REFUSED_OPTIONS = {
    "-e": "editable installs are not supported; put the package into the workspace and import it from there",
    "-i": "another index cannot be reached from a sandbox; remove this line",
    "-f": "another place to find packages cannot be reached from a sandbox; remove this line",
    "--no-index": "without an index nothing can be installed in a sandbox; remove this line",
}
LONG_OPTIONS = {"--editable": "-e", "--index-url": "-i", "--extra-index-url": "-i", "--find-links": "-f"}
# They speak to pip alone, and change nothing of what is installed.
WITHOUT_EFFECT = frozenset(
    {"--prefer-binary", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar", "--no-color", "-q", "-v"}
)
IGNORED_OPTIONS = {
    "--pre": "pre-releases are installed only where a requirement names one",
    "--no-binary": "a wheel is installed where there is one",
    "--only-binary": "a package without a wheel is built in the sandbox",
    "--trusted-host": "packages come from the sandbox's own registry",
    "--use-feature": "it speaks to pip alone",
}
REQUIRE_HASHES = "--require-hashes"
NO_URL = "a package from a URL or a version control system cannot be installed; name a release on PyPI instead"


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """One requirement of a manifest and the line it stands in; `files` are those that a lock lists by name."""

    specifier: ParsedRequirement
    hashes: tuple[str, ...]
    path: str
    line: int
    files: tuple[LockedFile, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnProject:
    """A line that asks for the workspace's own project, with extras."""

    extras: tuple[str, ...]
    path: str
    line: int


@dataclass(kw_only=True, slots=True)
class Declarations:
    """All that a manifest and its includes say; `paths` are the files read, in order.

    `hashes_required` says that a line demands a hash of each requirement.
    """

    requirements: list[Declared] = field(default_factory=list)
    constraints: list[Declared] = field(default_factory=list)
    projects: list[OwnProject] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    hashes_required: bool = False


def read_requirements(path: str, request: Request) -> Declarations:
    """Read a requirements file with its includes; raises ManifestError with file and line."""
    reader = RequirementsReader(request)
    reader.read(path)
    return reader.found


class RequirementsReader:
    """Reads lines of requirements; each included file counts once, so that no pile of includes takes long."""

    def __init__(self, request: Request) -> None:
        self.found = Declarations()
        self._request = request
        self._read: set[tuple[str, bool]] = set()

    def read(self, path: str, *, constraint: bool = False, chain: tuple[str, ...] = ()) -> None:
        """Read a file of the workspace; `chain` are the files through which it was reached."""
        if (path, constraint) in self._read:
            return
        self._read.add((path, constraint))
        if path not in self.found.paths:
            self.found.paths.append(path)
        for line, text in logical_lines(path, self._request.files[path]):
            self.read_line(path, line, text, constraint=constraint, chain=chain)

    def read_line(
        self, path: str, line: int, text: str, *, constraint: bool = False, chain: tuple[str, ...] = ()
    ) -> None:
        """Read one logical line without its comment."""
        if len(self.found.requirements) + len(self.found.constraints) > MAX_LINES:
            raise ManifestError(path=path, line=line, reason=f"more than {MAX_LINES} requirements")
        include = INCLUDE.fullmatch(text)
        own = OWN_PROJECT.fullmatch(text)
        if include:
            wanted = self._included(path, line, include["path"])
            if wanted in (*chain, path):
                raise ManifestError(path=path, line=line, reason=f"{wanted} is included in a circle")
            if len(chain) == MAX_DEPTH:
                raise ManifestError(path=path, line=line, reason=f"includes are nested deeper than {MAX_DEPTH}")
            is_constraint = constraint or include["option"] in {"-c", "--constraint"}
            self.read(wanted, constraint=is_constraint, chain=(*chain, path))
        elif own:
            extras = tuple(part.strip() for part in (own["extras"] or "").split(",") if part.strip())
            self.found.projects.append(OwnProject(extras=extras, path=path, line=line))
        elif text.startswith("-"):
            self._option(path, line, text)
        else:
            declared = declared_of_line(path, line, text)
            (self.found.constraints if constraint else self.found.requirements).append(declared)

    def _included(self, path: str, line: int, wanted: str) -> str:
        target = wanted.strip().strip("'\"")
        resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if URL.match(target) or target.startswith("/") or resolved.startswith("../") or resolved == "..":
            raise ManifestError(
                path=path, line=line, reason=f"{target[:80]} is outside the workspace; put the file inside it"
            )
        if resolved not in self._request.files:
            reason = (
                f"{resolved[:200]} was not read; an included file must exist, and be named like "
                "requirements*.txt or constraints*.txt or lie in a directory named requirements"
            )
            raise ManifestError(path=path, line=line, reason=reason)
        return resolved

    def _option(self, path: str, line: int, text: str) -> None:
        """Pass over an option that changes nothing, say that another is ignored, refuse all others."""
        option = re.split(r"[\s=]", text, maxsplit=1)[0]
        index = INDEX.fullmatch(text)
        if option == REQUIRE_HASHES:
            self.found.hashes_required = True
            return
        if option in WITHOUT_EFFECT or (index and self._request.is_registry(index["url"])):
            return
        if option in IGNORED_OPTIONS:
            detail = f"{text[:80]}: {IGNORED_OPTIONS[option]}"
            kind = NoticeKind.SETTING_IGNORED
            self.found.notices.append(Notice(kind=kind, path=path, line=line, subject=option, detail=detail))
            return
        short = LONG_OPTIONS.get(option, option[:2] if not option.startswith("--") else option)
        reason = REFUSED_OPTIONS.get(short, f"the option {option[:80]} is not supported; remove this line")
        raise ManifestError(path=path, line=line, reason=reason)


def logical_lines(path: str, raw: bytes) -> Iterator[tuple[int, str]]:
    """Lines with continuations joined and comments removed, each with the number of its first."""
    joined: list[str] = []
    start = 0
    lines = decode_manifest(path, raw).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(lines) > MAX_LINES * 20:
        raise ManifestError(path=path, reason=f"more than {MAX_LINES * 20} lines")
    for number, line in enumerate(lines, start=1):
        start = start or number
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            joined.append(line[:-1])
            continue
        text = COMMENT.sub("", "".join((*joined, "" if is_comment else line))).strip()
        if text:
            yield start, text
        joined, start = [], 0
    text = COMMENT.sub("", "".join(joined)).strip()
    if text:
        yield start, text


def declared_of_line(path: str, line: int, text: str) -> Declared:
    """A requirement with its hashes, as a line of a requirements file holds it; raises ManifestError."""
    hashes = tuple(match["value"] for match in HASH.finditer(text))
    bad = next((value for value in hashes if not HASH_VALUE.fullmatch(value)), None)
    if bad is not None:
        raise ManifestError(path=path, line=line, reason=f"{bad[:80]!r} is no sha256, sha384 or sha512 hash")
    bare = HASH.sub("", text).strip()
    option = OTHER_OPTION.search(bare)
    if option:
        reason = f"{bare[option.start() :].strip()[:80]!r}: options for one package are not supported; remove them"
        raise ManifestError(path=path, line=line, reason=reason)
    return Declared(specifier=parse_requirement(path, line, bare), hashes=hashes, path=path, line=line)


def parse_requirement(path: str, line: int, text: str) -> ParsedRequirement:
    """A requirement on a release of PyPI; raises ManifestError."""
    if len(text) > MAX_REQUIREMENT_LENGTH:
        reason = f"a requirement of {len(text)} characters; more than {MAX_REQUIREMENT_LENGTH} are not read"
        raise ManifestError(path=path, line=line, reason=reason)
    if URL.match(text) or " @ " in text:
        raise ManifestError(path=path, line=line, reason=NO_URL)
    if LOCAL_PATH.match(text):
        reason = f"{text[:80]!r} is a path; only packages of PyPI can be installed"
        raise ManifestError(path=path, line=line, reason=reason)
    try:
        parsed = ParsedRequirement(text)
    except (InvalidRequirement, RecursionError) as error:
        words = str(error).splitlines()[0]
        raise ManifestError(path=path, line=line, reason=f"not a requirement: {words}: {text[:80]!r}") from error
    if parsed.url:
        raise ManifestError(path=path, line=line, reason=NO_URL)
    if parsed.marker is not None:
        try_marker(path, line, parsed.marker)
    return parsed


def try_marker(path: str, line: int, marker: Marker) -> None:
    """Raise ManifestError for a marker that has no value in any environment."""
    try:
        marker.evaluate(dict(marker_environment("3.13.0")))
    except (UndefinedComparison, UndefinedEnvironmentName, InvalidVersion, RecursionError) as error:
        reason = f"the marker {str(marker)[:80]!r} cannot be evaluated"
        raise ManifestError(path=path, line=line, reason=reason) from error
