"""The grammar of the npm door: which paths exist, and what each one asks for.

Names are those that npm accepts today, and the capitals of older ones. Not accepted are the punctuation that a few
names of the first years have (one of `~'!()*`) and the package called `-`, whose paths would be those of the registry's
own functions.
"""

import re
from dataclasses import dataclass

MAX_NAME = 214

_PART = r"(?:[A-Za-z0-9]|-(?=[A-Za-z0-9._-]))[A-Za-z0-9._-]*"
_NAME = rf"(?:@(?P<scope>[A-Za-z0-9-][A-Za-z0-9._-]*)(?:/|%2[Ff]))?(?P<part>{_PART})"
_FILE = r"[A-Za-z0-9_-][A-Za-z0-9._+-]{0,250}\.tgz"
# A version, or the name of a tag.
_VERSION = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,255}"

_PACKUMENT = re.compile(rf"/{_NAME}")
_MANIFEST = re.compile(rf"/{_NAME}/(?P<version>{_VERSION})")
_TAGS = re.compile(rf"/-/package/{_NAME}/dist-tags")
_TARBALL = re.compile(rf"/{_NAME}/-/(?P<file>{_FILE})")
_STORED_FILE = re.compile(_FILE)
# npm's own words for what can be no package.
_RESERVED = frozenset({"node_modules", "favicon.ico"})


@dataclass(frozen=True, kw_only=True)
class PackumentRequest:
    """The index page of a package."""

    name: str


@dataclass(frozen=True, kw_only=True)
class ManifestRequest:
    """One release's manifest; `version` may be a tag."""

    name: str
    version: str


@dataclass(frozen=True, kw_only=True)
class TagsRequest:
    """The tags of a package."""

    name: str


@dataclass(frozen=True, kw_only=True)
class TarballRequest:
    """An artefact of a package, by its file name."""

    name: str
    file: str


NpmRequest = PackumentRequest | ManifestRequest | TagsRequest | TarballRequest


def parse_path(path: str) -> NpmRequest | None:
    """What a raw request path asks for; None if the door has no such path. Queries and fragments are no part of one."""
    path = unescape(path)
    if match := _PACKUMENT.fullmatch(path):
        name = _name(match)
        return None if name is None else PackumentRequest(name=name)
    if match := _TARBALL.fullmatch(path):
        name = _name(match)
        return None if name is None else TarballRequest(name=name, file=match["file"])
    if match := _TAGS.fullmatch(path):
        name = _name(match)
        return None if name is None else TagsRequest(name=name)
    if match := _MANIFEST.fullmatch(path):
        name = _name(match)
        return None if name is None else ManifestRequest(name=name, version=match["version"])
    return None


def _name(match: re.Match[str]) -> str | None:
    name = match["part"] if match["scope"] is None else f"@{match['scope']}/{match['part']}"
    return None if len(name) > MAX_NAME or name.lower() in _RESERVED else name


def packument_path(name: str) -> str:
    """The registry's path of a package's index page, in the spelling that npm itself uses."""
    return f"/{name.replace('/', '%2f')}"


def tarball_path(name: str, file: str) -> str:
    """The path of an artefact, which is the same at the registry and at this door."""
    return f"/{name}/-/{file.replace('+', '%2B')}"


def usual_file(name: str, version: str) -> str:
    """The file name that clients expect of a release: they write no link into a lockfile if it has this one."""
    return f"{name.rpartition('/')[2]}-{version}.tgz"


def stored_file(path: str, name: str) -> str | None:
    """The file name in a registry's link to an artefact of `name`; None if the path is not of the one form."""
    directory, _, file = unescape(path).rpartition("/-/")
    return file if directory == f"/{name}" and _STORED_FILE.fullmatch(file) else None


def unescape(path: str) -> str:
    """`path` with the one escape undone that a legitimate file name can have, besides that of a scope's slash."""
    return path.replace("%2B", "+").replace("%2b", "+")
