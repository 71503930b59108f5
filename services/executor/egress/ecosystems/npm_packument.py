"""npm's index pages (packuments): read as untrusted JSON, rewritten to this door, rendered in npm's two forms."""

import base64
import datetime
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from services.executor.egress.ecosystems.npm_paths import stored_file, tarball_path, usual_file
from services.executor.egress.ecosystems.npm_versions import is_version
from services.executor.egress.ecosystems.npm_walk import is_end, read_value, walk_object
from services.executor.egress.ecosystems.port import Digest

ABBREVIATED_TYPE = "application/vnd.npm.install-v1+json"
FULL_TYPE = "application/json"
MAX_RELEASES = 100_000

# `releases` reads what artefacts need and renders nothing.
Form = Literal["abbreviated", "full", "releases"]

_MAX_TAG = 128
_MAX_VERSION = 128
_SHA512_BYTES = 64
# What a package manager needs of a release to choose and install it (npm's own list for its abbreviated form).
_ABBREVIATED = (
    "name", "version", "deprecated", "dependencies", "optionalDependencies", "devDependencies", "bundleDependencies",
    "bundledDependencies", "peerDependencies", "peerDependenciesMeta", "acceptDependencies", "bin", "directories",
    "dist", "engines", "os", "cpu", "libc", "funding", "hasInstallScript", "_hasShrinkwrap",
)  # fmt: skip  # a list of words
_INSTALL_SCRIPTS = ("preinstall", "install", "postinstall")
# What the full form says of a package beyond its releases.
_ABOUT = (
    "_id", "description", "license", "homepage", "keywords", "repository", "bugs", "author", "contributors",
    "maintainers", "readme", "readmeFilename",
)  # fmt: skip  # as above
_SHA1 = re.compile(r"[0-9a-f]{40}")


class InvalidPackument(Exception):
    """The registry's page is no packument of the package."""

    def __init__(self, *, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class UnusableRelease(Exception):
    """A release that the door does not pass on."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """One version; `file` is its tarball's name at the registry, `manifest` is JSON and leads back to this door."""

    version: str
    file: str
    digest: Digest
    manifest: bytes


@dataclass(frozen=True, kw_only=True)
class DroppedRelease:
    """A version that the door does not pass on, and why; `version` is what the page has, cut to 128 characters."""

    version: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Packument:
    """A package's page. `times` has the text that the registry gives, by version, `created` and `modified`."""

    name: str
    releases: dict[str, Release]
    tags: Mapping[str, str]
    times: Mapping[str, str]
    about: Mapping[str, Any]
    dropped: tuple[DroppedRelease, ...]
    is_unpublished: bool

    def released(self, version: str) -> datetime.datetime | None:
        """When a version was published; None if the page does not say."""
        try:
            moment = datetime.datetime.fromisoformat(self.times[version])
        except (KeyError, ValueError):
            return None
        return moment if moment.tzinfo is not None else None

    def release_of(self, file: str) -> Release | None:
        """The release whose tarball has this name, at this door or at the registry."""
        return self.files.get(file)

    @cached_property
    def files(self) -> Mapping[str, Release]:
        """The releases by the names of their tarballs; the name at this door comes before the registry's own."""
        named = {release.file: release for release in reversed(self.releases.values())}
        return named | {usual_file(self.name, release.version): release for release in self.releases.values()}


@dataclass(frozen=True, kw_only=True)
class PackumentReader:
    """Reads pages: `origin` is the registry's, `base` what this door's clients put before a path (no slash at the end).

    Both look like `https://host`; `base` may have a path.
    """

    origin: str
    base: str

    def read(self, page: bytes, *, name: str, form: Form) -> Packument:
        """Read the page of the package `name`.

        Raises:
            InvalidPackument: no JSON, not this package, or no packument.
        """
        reading = _Reading(reader=self, name=name, form=form)
        try:
            reading.text = page.decode("utf-8")
            end = walk_object(reading.text, 0, reading.take_member)
        except (ValueError, RecursionError) as error:
            raise InvalidPackument(problem="no JSON object") from error
        if not is_end(reading.text, end):
            raise InvalidPackument(problem="no JSON object")
        return reading.packument()

    def read_release(self, manifest: Any, *, name: str, version: str, form: Form) -> Release:
        """Read one release's manifest, and rewrite it to lead to this door.

        Raises:
            UnusableRelease: it is not to be passed on.
        """
        if not is_version(version):
            raise UnusableRelease(reason="no version number")
        if not isinstance(manifest, dict) or manifest.get("name") != name or manifest.get("version") != version:
            raise UnusableRelease(reason="the manifest of something else")
        dist = manifest.get("dist")
        if not isinstance(dist, dict):
            raise UnusableRelease(reason="no link")
        file, digest = self._file(dist.get("tarball"), name), _digest(dist)
        if form == "releases":
            return Release(version=version, file=file, digest=digest, manifest=b"")
        dist["tarball"] = self.base + tarball_path(name, usual_file(name, version))
        passed_on = _abbreviate(manifest) if form == "abbreviated" else manifest
        return Release(version=version, file=file, digest=digest, manifest=_render(passed_on))

    def _file(self, link: Any, name: str) -> str:
        if not isinstance(link, str):
            raise UnusableRelease(reason="no link")
        if not link.startswith(f"{self.origin}/"):
            raise UnusableRelease(reason="link to another host")
        file = stored_file(link.removeprefix(self.origin), name)
        if file is None:
            raise UnusableRelease(reason="link of an unknown form")
        return file


@dataclass(kw_only=True)
class _Reading:
    """A page while it is read."""

    reader: PackumentReader
    name: str
    form: Form
    text: str = ""
    releases: dict[str, Release] | None = None
    dropped: list[DroppedRelease] = field(default_factory=list)
    members: dict[str, Any] = field(default_factory=dict)

    def take_member(self, key: str, at: int) -> int:
        if key == "versions":
            self.releases, self.dropped = {}, []
            return walk_object(self.text, at, self.take_release)
        value, end = read_value(self.text, at)
        if key in {"name", "dist-tags", "time", "modified", *_ABOUT}:
            self.members[key] = value
        return end

    def take_release(self, version: str, at: int) -> int:
        assert self.releases is not None
        manifest, end = read_value(self.text, at)
        try:
            release = self.reader.read_release(manifest, name=self.name, version=version, form=self.form)
        except UnusableRelease as error:
            self.dropped.append(DroppedRelease(version=version[:_MAX_VERSION], reason=error.reason))
        else:
            self.releases[version] = release
        if len(self.releases) + len(self.dropped) > MAX_RELEASES:
            raise InvalidPackument(problem=f"more than {MAX_RELEASES} versions")
        return end

    def packument(self) -> Packument:
        times = self.members.get("time")
        times = times if isinstance(times, dict) else {}
        is_unpublished = self.releases is None and isinstance(times.get("unpublished"), dict)
        if self.members.get("name") != self.name:
            raise InvalidPackument(problem="the page of another package")
        if self.releases is None and not is_unpublished:
            raise InvalidPackument(problem="no versions")
        modified = self.members.get("modified", times.get("modified"))
        return Packument(
            name=self.name,
            releases=self.releases or {},
            tags=self._tags(),
            times=_times(times, ["created", *(self.releases or {})]) | _times({"modified": modified}, ["modified"]),
            about={key: self.members[key] for key in _ABOUT if key in self.members} if self.form == "full" else {},
            dropped=tuple(self.dropped),
            is_unpublished=is_unpublished,
        )

    def _tags(self) -> dict[str, str]:
        tags = self.members.get("dist-tags")
        if not isinstance(tags, dict):
            return {}
        return {tag: version for tag, version in tags.items() if isinstance(version, str) and len(tag) <= _MAX_TAG}


def _times(times: dict[str, Any], keys: Iterable[str]) -> dict[str, str]:
    return {key: time for key in keys if isinstance(time := times.get(key), str)}


def _digest(dist: dict[str, Any]) -> Digest:
    """The strongest digest that a release names: SHA-512 since 2017, SHA-1 before."""
    integrity, shasum = dist.get("integrity"), dist.get("shasum")
    for word in integrity.split() if isinstance(integrity, str) else ():
        algorithm, _, encoded = word.partition("-")
        if algorithm == "sha512":
            return Digest(algorithm="sha512", hex=_sha512(encoded).hex())
    if isinstance(shasum, str) and _SHA1.fullmatch(shasum):
        return Digest(algorithm="sha1", hex=shasum)
    raise UnusableRelease(reason="no digest")


def _sha512(encoded: str) -> bytes:
    try:
        digest = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise UnusableRelease(reason="no digest") from error
    if len(digest) != _SHA512_BYTES:
        raise UnusableRelease(reason="no digest")
    return digest


def _abbreviate(manifest: dict[str, Any]) -> dict[str, Any]:
    short = {key: manifest[key] for key in _ABBREVIATED if key in manifest}
    scripts = manifest.get("scripts")
    if isinstance(scripts, dict) and any(scripts.get(script) for script in _INSTALL_SCRIPTS):
        short["hasInstallScript"] = True
    return short


def _render(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def render_tags(tags: Mapping[str, str]) -> bytes:
    """A package's tags as JSON."""
    return _render(dict(tags))


def wants_abbreviated(accept: str) -> bool:
    """Whether a client's Accept header names npm's abbreviated form."""
    return ABBREVIATED_TYPE in {offer.split(";")[0].strip().lower() for offer in accept.split(",")}


def render_packument(packument: Packument, *, versions: Iterable[str], tags: Mapping[str, str], form: Form) -> bytes:
    """The page with these of its versions and these tags, in the form that it was read in."""
    releases = [packument.releases[version] for version in versions]
    times = packument.times
    head: dict[str, Any] = {"name": packument.name, "dist-tags": dict(tags)}
    if form == "full":
        kept = ["created", "modified", *(release.version for release in releases)]
        head |= packument.about
        head["time"] = {key: times[key] for key in kept if key in times}
    elif "modified" in times:
        head["modified"] = times["modified"]
    # Member by member, as it was read: one call that renders everything would stop every other thread meanwhile.
    entries = b",".join(_render(release.version) + b":" + release.manifest for release in releases)
    return _render(head)[:-1] + b',"versions":{' + entries + b"}}"
