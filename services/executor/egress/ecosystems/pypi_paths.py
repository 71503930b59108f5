"""The grammar of the PyPI door: which paths exist below its prefix, and what each one asks for."""

import re
from dataclasses import dataclass

PREFIX = "pypi"
METADATA_SUFFIX = ".metadata"

_PROJECT_PATH = re.compile(r"/simple/(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?)/")
_STORED_PATH = re.compile(
    r"packages/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{60}/(?P<filename>[A-Za-z0-9][A-Za-z0-9._+!~-]{0,254})"
)
_FILE_PATH = re.compile(
    rf"/files/(?P<sha256>[0-9a-f]{{64}})/(?P<metadata_sha256>[0-9a-f]{{64}}|-)/(?P<stored_path>{_STORED_PATH.pattern})"
)
# pip escapes these two, which file names of epochs and local versions have; no other escape has any business here.
_ESCAPES = {"%21": "!", "%2B": "+", "%2b": "+"}


@dataclass(frozen=True, kw_only=True)
class ProjectRequest:
    """The index page of a project; `name` is normalised (PEP 503)."""

    name: str


@dataclass(frozen=True, kw_only=True)
class FileRequest:
    """An artefact, or the metadata beside one; `sha256` is what its bytes must have."""

    stored_path: str
    sha256: str


def normalise_name(name: str) -> str:
    """The one spelling of a project's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_path(path: str) -> ProjectRequest | FileRequest | None:
    """What a raw path below the prefix asks for; None if the door has no such path. It has no query."""
    project = _PROJECT_PATH.fullmatch(path)
    if project:
        return ProjectRequest(name=normalise_name(project["name"]))
    file = _FILE_PATH.fullmatch(unescape(path))
    if file is None:
        return None
    if not file["filename"].endswith(METADATA_SUFFIX):
        return FileRequest(stored_path=file["stored_path"], sha256=file["sha256"])
    if file["metadata_sha256"] == "-":
        return None
    return FileRequest(stored_path=file["stored_path"], sha256=file["metadata_sha256"])


def stored_filename(stored_path: str) -> str | None:
    """The file name in a path of the files host; None if the path is not of the one form that PyPI uses."""
    match = _STORED_PATH.fullmatch(stored_path)
    return match["filename"] if match and not match["filename"].endswith(METADATA_SUFFIX) else None


def file_path(*, stored_path: str, sha256: str, metadata_sha256: str | None) -> str:
    """The mirror's path of an artefact. Clients append `.metadata` to it, so it tells that digest too."""
    return f"/{PREFIX}/files/{sha256}/{metadata_sha256 or '-'}/{stored_path}"


def unescape(path: str) -> str:
    """`path` with the few escapes undone that a legitimate file name can have."""
    for escape, character in _ESCAPES.items():
        path = path.replace(escape, character)
    return path
