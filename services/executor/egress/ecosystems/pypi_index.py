"""PyPI's index pages: read as untrusted JSON, rewritten to this door, rendered as JSON (PEP 691) or HTML (PEP 503)."""

import html
import json
import re
from dataclasses import dataclass
from typing import Any

from services.executor.egress.ecosystems.pypi_paths import file_path, normalise_name, stored_filename, unescape

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPE = "text/html"

_SHA256 = re.compile(r"[0-9a-f]{64}")


class InvalidIndex(Exception):
    """The registry's page is not what PEP 691 describes."""

    def __init__(self, *, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


@dataclass(frozen=True, kw_only=True)
class IndexFile:
    """One artefact of a project; `path` is the mirror's, None means that the registry did not say."""

    filename: str
    stored_path: str
    path: str
    sha256: str
    metadata_sha256: str | None
    requires_python: str | None
    size: int | None
    upload_time: str | None
    yanked: bool | str


@dataclass(frozen=True, kw_only=True)
class DroppedFile:
    """An artefact that the door does not pass on, and why."""

    filename: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ProjectIndex:
    """A project's page; every file leads back to the mirror."""

    name: str
    versions: tuple[str, ...]
    files: tuple[IndexFile, ...]
    dropped: tuple[DroppedFile, ...]


def read_index(page: bytes, *, name: str, files_origin: str) -> ProjectIndex:
    """Read the page of the project `name` (normalised), whose files must lie at `files_origin` (`https://host`).

    Raises:
        InvalidIndex: no JSON, not this project, or not in the form of PEP 691.
    """
    try:
        document = json.loads(page)
    except (ValueError, RecursionError) as error:
        raise InvalidIndex(problem="no JSON") from error
    if not isinstance(document, dict) or not isinstance(document.get("files"), list):
        raise InvalidIndex(problem="no list of files")
    if not isinstance(document.get("name"), str) or normalise_name(document["name"]) != name:
        raise InvalidIndex(problem="the page of another project")
    files: list[IndexFile] = []
    dropped: list[DroppedFile] = []
    for entry in document["files"]:
        outcome = _read_file(entry, files_origin)
        (files if isinstance(outcome, IndexFile) else dropped).append(outcome)  # type: ignore[arg-type]  # chosen by type
    versions = document.get("versions")
    return ProjectIndex(
        name=name,
        versions=tuple(v for v in versions if isinstance(v, str)) if isinstance(versions, list) else (),
        files=tuple(files),
        dropped=tuple(dropped),
    )


def _read_file(entry: Any, files_origin: str) -> IndexFile | DroppedFile:
    if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
        return DroppedFile(filename="", reason="no file name")
    filename = entry["filename"]
    sha256 = _sha256(entry.get("hashes"))
    if sha256 is None:
        return DroppedFile(filename=filename, reason="no SHA-256")
    url = entry.get("url")
    if not isinstance(url, str) or not url.startswith(f"{files_origin}/"):
        return DroppedFile(filename=filename, reason="link to another host")
    stored_path = unescape(url.removeprefix(f"{files_origin}/"))
    if stored_filename(stored_path) != filename:
        return DroppedFile(filename=filename, reason="link of an unknown form")
    metadata_sha256 = _sha256(entry.get("core-metadata")) or _sha256(entry.get("dist-info-metadata"))
    size = entry.get("size")
    yanked = entry.get("yanked", False)
    return IndexFile(
        filename=filename,
        stored_path=stored_path,
        path=file_path(stored_path=stored_path, sha256=sha256, metadata_sha256=metadata_sha256),
        sha256=sha256,
        metadata_sha256=metadata_sha256,
        requires_python=_text(entry.get("requires-python")),
        size=size if type(size) is int and size >= 0 else None,
        upload_time=_text(entry.get("upload-time")),
        yanked=yanked if isinstance(yanked, bool | str) else False,
    )


def _sha256(hashes: Any) -> str | None:
    digest = hashes.get("sha256") if isinstance(hashes, dict) else None
    return digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def wants_html(accept: str) -> bool:
    """Whether a client's Accept header leaves out JSON and names HTML."""
    offers = {offer.split(";")[0].strip().lower() for offer in accept.split(",")}
    return HTML_TYPE in offers and not offers & {JSON_TYPE, "application/vnd.pypi.simple.latest+json", "*/*"}


def render_json(index: ProjectIndex) -> bytes:
    """The page as PEP 691 JSON; links are absolute paths, so that they hold behind any loopback port."""
    document = {
        "meta": {"api-version": "1.1"},
        "name": index.name,
        "versions": index.versions,
        "files": [_file_object(file) for file in index.files],
    }
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def _file_object(file: IndexFile) -> dict[str, object]:
    entry: dict[str, object] = {
        "filename": file.filename,
        "url": file.path,
        "hashes": {"sha256": file.sha256},
        "requires-python": file.requires_python,
        "yanked": file.yanked,
    }
    if file.metadata_sha256 is not None:
        # The second key is the older spelling, which older installers read.
        entry["core-metadata"] = entry["dist-info-metadata"] = {"sha256": file.metadata_sha256}
    if file.size is not None:
        entry["size"] = file.size
    if file.upload_time is not None:
        entry["upload-time"] = file.upload_time
    return entry


def render_html(index: ProjectIndex) -> bytes:
    """The page as PEP 503 HTML, for clients that know nothing newer."""
    links = "\n".join(_anchor(file) for file in index.files)
    title = html.escape(index.name)
    page = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>\n{links}\n</body></html>\n"
    return page.encode("utf-8", "replace")


def _anchor(file: IndexFile) -> str:
    attributes = {"href": f"{file.path}#sha256={file.sha256}"}
    if file.requires_python is not None:
        attributes["data-requires-python"] = file.requires_python
    if file.metadata_sha256 is not None:
        attributes["data-core-metadata"] = f"sha256={file.metadata_sha256}"
    if file.yanked is not False:
        attributes["data-yanked"] = file.yanked if isinstance(file.yanked, str) else ""
    rendered = " ".join(f'{key}="{html.escape(value)}"' for key, value in attributes.items())
    return f"<a {rendered}>{html.escape(file.filename)}</a><br>"
