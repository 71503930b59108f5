"""`requirements.txt`, read as pip documents it, without what would leave the registry or the workspace."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as ParsedRequirement

from services.resolver.errors import ManifestError
from services.resolver.python.manifests.text import decode_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_DEPTH = 16
MAX_LINES = 20_000
COMMENT = re.compile(r"(^|\s)#.*$")
HASH = re.compile(r"\s--hash[= ]\s*(?P<value>\S+)")
HASH_VALUE = re.compile(r"sha(256|384|512):[0-9a-f]{64,128}")
INCLUDE = re.compile(r"(?P<option>-r|--requirement|-c|--constraint)(\s+|=|(?=[^\s=-]))(?P<path>.+)")
URL = re.compile(r"([a-z][a-z0-9+.-]*://|\S+@\s*[a-z]+://|git\+)", re.IGNORECASE)
LOCAL_PATH = re.compile(r"(\.{1,2}(/|$)|/|~|\S+\.(whl|zip|tar\.gz|tgz)$)")
REFUSED_OPTIONS = {
    "-e": "editable installs are not supported; put the package into the workspace and import it from there",
    "-i": "another index cannot be reached from a sandbox; remove this line",
    "-f": "another place to find packages cannot be reached from a sandbox; remove this line",
}
LONG_OPTIONS = {"--editable": "-e", "--index-url": "-i", "--extra-index-url": "-i", "--find-links": "-f"}
NO_URL = "a package from a URL or a version control system cannot be installed; name a release on PyPI instead"


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """One requirement of a manifest and the line it stands in."""

    specifier: ParsedRequirement
    hashes: tuple[str, ...]
    path: str
    line: int


@dataclass(kw_only=True, slots=True)
class Declarations:
    """All that a manifest and its includes say; `paths` are the files read, in order."""

    requirements: list[Declared] = field(default_factory=list)
    constraints: list[Declared] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


def read_requirements(path: str, files: Mapping[str, bytes]) -> Declarations:
    """Read a requirements file with its includes; raises ManifestError with file and line."""
    declarations = Declarations()
    _read(path, files, declarations, constraint=False, chain=())
    return declarations


def _read(
    path: str, files: Mapping[str, bytes], into: Declarations, *, constraint: bool, chain: tuple[str, ...]
) -> None:
    if path not in into.paths:
        into.paths.append(path)
    for line, text in logical_lines(path, files[path]):
        include = INCLUDE.fullmatch(text)
        if include:
            wanted = _included(path, line, include["path"], files)
            if wanted in (*chain, path) or len(chain) == MAX_DEPTH:
                raise ManifestError(path=path, line=line, reason=f"{wanted} is included in a circle")
            is_constraint = constraint or include["option"] in {"-c", "--constraint"}
            if len(into.requirements) + len(into.constraints) > MAX_LINES:
                raise ManifestError(path=path, line=line, reason=f"more than {MAX_LINES} requirements")
            _read(wanted, files, into, constraint=is_constraint, chain=(*chain, path))
        else:
            declared = _declared(path, line, text)
            if declared is not None:
                (into.constraints if constraint else into.requirements).append(declared)


def logical_lines(path: str, raw: bytes) -> Iterator[tuple[int, str]]:
    """Lines with continuations joined and comments removed, each with the number of its first."""
    joined = ""
    start = 0
    lines = decode_manifest(path, raw).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(lines) > MAX_LINES * 20:
        raise ManifestError(path=path, reason=f"more than {MAX_LINES * 20} lines")
    for number, line in enumerate(lines, start=1):
        start = start or number
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            joined += line[:-1]
            continue
        text = COMMENT.sub("", joined + ("" if is_comment else line)).strip()
        if text:
            yield start, text
        joined, start = "", 0
    if joined.strip():
        yield start, COMMENT.sub("", joined).strip()


def _included(path: str, line: int, wanted: str, files: Mapping[str, bytes]) -> str:
    target = wanted.strip().strip("'\"")
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if URL.match(target) or target.startswith("/") or resolved.startswith("../") or resolved == "..":
        raise ManifestError(path=path, line=line, reason=f"{target} is outside the workspace; put the file inside it")
    if resolved not in files:
        reason = (
            f"{resolved} was not read; an included file must exist, and be named like "
            "requirements*.txt or constraints*.txt or lie in a directory named requirements"
        )
        raise ManifestError(path=path, line=line, reason=reason)
    return resolved


def _declared(path: str, line: int, text: str) -> Declared | None:
    if text.startswith("-"):
        _refuse_option(path, line, text)
        return None
    hashes = tuple(match["value"] for match in HASH.finditer(text))
    bad = next((value for value in hashes if not HASH_VALUE.fullmatch(value)), None)
    if bad is not None:
        raise ManifestError(path=path, line=line, reason=f"{bad[:80]!r} is no sha256, sha384 or sha512 hash")
    bare = HASH.sub("", text).strip()
    return Declared(specifier=parse_requirement(path, line, bare), hashes=hashes, path=path, line=line)


def _refuse_option(path: str, line: int, text: str) -> None:
    """Raise for an option that would change what is installed; the rest only speaks to pip."""
    option = re.split(r"[\s=]", text, maxsplit=1)[0]
    if option in {"--require-hashes", "--prefer-binary", "--no-cache-dir", "--disable-pip-version-check"}:
        return
    short = LONG_OPTIONS.get(option, option[:2] if not option.startswith("--") else option)
    reason = REFUSED_OPTIONS.get(short, f"the option {option[:80]} is not supported; remove this line")
    raise ManifestError(path=path, line=line, reason=reason)


def parse_requirement(path: str, line: int, text: str) -> ParsedRequirement:
    """A requirement on a release of PyPI; raises ManifestError."""
    if URL.match(text) or " @ " in text:
        raise ManifestError(path=path, line=line, reason=NO_URL)
    if LOCAL_PATH.match(text):
        reason = f"{text[:80]!r} is a path; only packages of PyPI can be installed"
        raise ManifestError(path=path, line=line, reason=reason)
    try:
        parsed = ParsedRequirement(text)
    except InvalidRequirement as error:
        words = str(error).splitlines()[0]
        raise ManifestError(path=path, line=line, reason=f"not a requirement: {words}: {text[:80]!r}") from error
    if parsed.url:
        raise ManifestError(path=path, line=line, reason=NO_URL)
    return parsed
