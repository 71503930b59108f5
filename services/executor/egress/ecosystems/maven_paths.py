"""The grammar of the Maven door: the repository layout, restricted to what Maven Central holds."""

import re
from dataclasses import dataclass

_MAX_PATH_CHARACTERS = 1024
_GROUP_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
# Artifacts may have dots (`core_2.13`), versions a `+` as well; neither begins with a dot, so none is `..`.
_ARTIFACT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
# What follows `<artifact>-<version>` in a file's name: a classifier and an extension, `-linux-x86_64.tar.gz`.
_REST = re.compile(r"(?:-[A-Za-z0-9_][A-Za-z0-9._+-]{0,127})?\.[A-Za-z0-9]{1,16}(?:\.[A-Za-z0-9]{1,16})?")
_METADATA = "maven-metadata.xml"
_SNAPSHOT = "-SNAPSHOT"
_CHECKSUMS = ("sha1", "md5", "sha256", "sha512")
_SIGNATURE = "asc"
_ESCAPES = {"%2B": "+", "%2b": "+"}


@dataclass(frozen=True, kw_only=True)
class MetadataRequest:
    """The index of an artifact, or the plugin prefixes of a group; `checksum` is set if only its digest is asked for.

    `parts` are the path's: the last one is an artifact's name or the end of a group, which only the page itself tells.
    """

    parts: tuple[str, ...]
    checksum: str | None = None

    @property
    def artifact(self) -> str:
        """`group:artifact`, should this be an artifact's index."""
        return f"{'.'.join(self.parts[:-1])}:{self.parts[-1]}"

    @property
    def group(self) -> str:
        """The group, should this be a group's index."""
        return ".".join(self.parts)

    @property
    def path(self) -> str:
        """Where the page lies in the repository."""
        return "/".join((*self.parts, _METADATA))


@dataclass(frozen=True, kw_only=True)
class FileRequest:
    """A file of a version; `sibling` is set for what lies beside one: a checksum, or a signature."""

    group: str
    artifact: str
    version: str
    filename: str
    sibling: bool

    @property
    def name(self) -> str:
        """`group:artifact`, as the package rules know it."""
        return f"{self.group}:{self.artifact}"

    @property
    def path(self) -> str:
        """Where the file lies in the repository."""
        return f"{version_path(self.group, self.artifact, self.version)}/{self.filename}"


@dataclass(frozen=True, kw_only=True)
class SnapshotRequest:
    """Anything of a version that is still being worked on."""


Request = MetadataRequest | FileRequest | SnapshotRequest


def parse_path(path: str) -> Request | None:
    """What a raw path below the prefix asks for; None if the door has no such path."""
    if len(path) > _MAX_PATH_CHARACTERS or not path.startswith("/"):
        return None
    for escape, character in _ESCAPES.items():
        path = path.replace(escape, character)
    *directories, filename = path[1:].split("/")
    if any(part.endswith(_SNAPSHOT) for part in directories):
        return SnapshotRequest()
    plain, _, suffix = filename.rpartition(".")
    if filename == _METADATA:
        return _metadata(directories, None)
    if plain == _METADATA:
        return _metadata(directories, suffix) if suffix in _CHECKSUMS else None
    return _file(directories, filename)


def _metadata(directories: list[str], checksum: str | None) -> MetadataRequest | None:
    if not directories:
        return None
    *group, last = directories
    if not all(_GROUP_PART.fullmatch(part) for part in group) or not _ARTIFACT.fullmatch(last):
        return None
    return MetadataRequest(parts=tuple(directories), checksum=checksum)


def _file(directories: list[str], filename: str) -> FileRequest | None:
    if len(directories) < 3:  # noqa: PLR2004  # a part of the group, the artifact and the version
        return None
    *group, artifact, version = directories
    if not all(_GROUP_PART.fullmatch(part) for part in group):
        return None
    if not _ARTIFACT.fullmatch(artifact) or not is_version(version):
        return None
    stem, sibling = _without_siblings(filename)
    prefix = f"{artifact}-{version}"
    if not stem.startswith(prefix) or not _REST.fullmatch(stem.removeprefix(prefix)):
        return None
    return FileRequest(group=".".join(group), artifact=artifact, version=version, filename=filename, sibling=sibling)


def _without_siblings(filename: str) -> tuple[str, bool]:
    """The file that a name is about, and whether the name is of something beside it: `.sha1`, `.asc`, `.asc.md5`."""
    stem = filename
    plain, _, suffix = stem.rpartition(".")
    if suffix in _CHECKSUMS:
        stem = plain
    plain, _, suffix = stem.rpartition(".")
    if suffix == _SIGNATURE:
        stem = plain
    return stem, stem != filename


def is_version(text: str) -> bool:
    """Whether this can be the directory of a released version."""
    return _VERSION.fullmatch(text) is not None and not text.endswith(_SNAPSHOT)


def is_artifact(text: str) -> bool:
    """Whether this can be an artifact's name."""
    return _ARTIFACT.fullmatch(text) is not None


def version_path(group: str, artifact: str, version: str) -> str:
    """The directory of a version in the repository."""
    return f"{group.replace('.', '/')}/{artifact}/{version}"
