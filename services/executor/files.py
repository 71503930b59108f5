"""File calls: carried out inside the sandbox by sandboxd, with the rights of the sandbox's own users."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.executor.agent.agent import Agent, Call
from services.executor.agent.frames import (
    Header,
    as_count,
    as_text,
    count_field,
    list_field,
    mapping_field,
    optional_text_field,
    text_field,
)
from services.executor.errors import FileCallError, InvalidFieldError, ProtocolError

MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 255
CHUNK_BYTES = 64 << 10
ENTRY_FIELDS = 5
MAX_DEPTH = 64
MAX_PATTERNS = 16
MAX_PATTERN_BYTES = 1024
# What a listing may be: a message of 4 MiB has room for it.
MAX_LIST_ROWS = 10_000
MAX_LIST_BYTES = 2 << 20
MAX_UNMANAGED = 64
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class SurveyEntry:
    """A regular file of the workspace: path relative to it, bytes, nanoseconds."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An installed environment whose marker is in place."""

    ecosystem: str
    fingerprint: str
    current: bool


@dataclass(frozen=True, kw_only=True)
class Unmanaged:
    """A directory (an absolute path) in which programs install packages by themselves."""

    path: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class SurveySummary:
    """What a survey says beside its entries. `unchanged`: they were not listed, the digest is the known one."""

    digest: str
    unchanged: bool
    file_count: int
    skipped_count: int
    environments: Sequence[Environment]
    own_directories: Sequence[str]
    unmanaged: Sequence[Unmanaged]


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """One row of a directory listing; the name is the path below the directory."""

    name: str
    kind: str
    size: int
    mtime_ns: int
    executable: bool
    link_target: str


@dataclass(frozen=True, kw_only=True)
class PartHeader:
    """The file that a part is read of, as it was when it was opened."""

    size: int
    mtime_ns: int
    executable: bool


@dataclass(frozen=True, kw_only=True)
class PartEnd:
    """How many bytes were sent, and their SHA-256."""

    size: int
    sha256: str


class Upload(Protocol):
    """A stream that comes in.

    Attributes:
        transfer: the id under which it is held if it breaks off; empty if it is not.
        offset: where its first byte lies.
        sha256: of the whole stream, known behind its last chunk; empty if its sender did not say.
    """

    transfer: str
    offset: int
    sha256: str

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes in order. InvalidFieldError, also for a stream that broke off."""


@dataclass(frozen=True, kw_only=True)
class FileChunk:
    """Bytes of the file at `index` of the request."""

    index: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class FileEnd:
    """The file at `index` is complete."""

    index: int
    size: int
    executable: bool


@dataclass(frozen=True, kw_only=True)
class FileFailure:
    """The file at `index` could not be read."""

    index: int
    kind: str
    message: str


def check_path(path: str, *, field: str = "path", empty_allowed: bool = False) -> str:
    """The path itself. InvalidFieldError, with the rule that it breaks."""
    if empty_allowed and not path:
        return path
    if not path:
        raise InvalidFieldError(field, "must not be empty; it is relative to the workspace, like 'src/main.py'")
    if "\0" in path:
        raise InvalidFieldError(field, "must not hold a NUL")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise InvalidFieldError(field, f"must be at most {MAX_PATH_BYTES} bytes")
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            raise InvalidFieldError(field, "must be relative to the workspace, without empty parts, '.' or '..'")
        if len(part.encode()) > MAX_NAME_BYTES:
            raise InvalidFieldError(field, f"must have names of at most {MAX_NAME_BYTES} bytes")
    return path


async def write(agent: Agent, *, path: str, executable: bool, user: str, upload: Upload) -> tuple[int, str]:
    """Writes a file atomically; returns its size in bytes and SHA-256. FileCallError."""
    place = {"path": path, "executable": executable, "transfer": upload.transfer, "offset": upload.offset}
    async with agent.call("write", user=user, **place) as call:
        result = await send(call, upload)
        return count_field(result, "size"), text_field(result, "sha256")


async def send(call: Call, upload: Upload) -> Header:
    """Sends an upload to its end; the call's result."""
    async for chunk in upload.chunks():
        for start in range(0, len(chunk), CHUNK_BYTES):
            await call.send_chunk(chunk[start : start + CHUNK_BYTES])
    await call.send_last_chunk(upload.sha256)
    return await call.result()


async def read(
    agent: Agent, *, paths: Sequence[str], max_file_bytes: int, max_total_bytes: int, user: str
) -> AsyncIterator[FileChunk | FileEnd | FileFailure]:
    """Reads files in order."""
    fields = {"paths": list(paths), "max_file_bytes": max_file_bytes, "max_total_bytes": max_total_bytes}
    async with agent.call("read", user=user, **fields) as call:
        while (item := await call.next()) is not None:
            header, data = item
            index = count_field(header, "index")
            if index >= len(paths):
                raise ProtocolError("a file that was not asked for")
            if "end" in header:
                end = mapping_field(header, "end")
                yield FileEnd(index=index, size=count_field(end, "size"), executable=end.get("executable") is True)
            elif "error" in header:
                error = mapping_field(header, "error")
                yield FileFailure(index=index, kind=text_field(error, "kind"), message=text_field(error, "message"))
            else:
                yield FileChunk(index=index, data=data)


async def read_part(
    agent: Agent, *, path: str, offset: int, length: int
) -> AsyncIterator[PartHeader | bytes | PartEnd]:
    """Reads one file from an offset, so many bytes or (0) to its end. FileCallError."""
    async with agent.call("read_part", path=path, offset=offset, length=length, user="program") as call:
        first = True
        while (item := await call.next()) is not None:
            header, data = item
            if first:
                first = False
                yield _part_header(header)
            else:
                yield data
        if first:
            raise ProtocolError("a part without its header")
        result = await call.result()
        yield PartEnd(size=count_field(result, "size"), sha256=text_field(result, "sha256"))


def check_depth(depth: int) -> int:
    """The depth to list; 0 stands for 1. InvalidFieldError."""
    if depth > MAX_DEPTH:
        raise InvalidFieldError("depth", f"must be at most {MAX_DEPTH}")
    return depth or 1


def check_patterns(patterns: Sequence[str]) -> Sequence[str]:
    """The patterns themselves; their grammar is the agent's. InvalidFieldError."""
    if len(patterns) > MAX_PATTERNS:
        raise InvalidFieldError("patterns", f"must be at most {MAX_PATTERNS}")
    if any(not 0 < len(pattern.encode()) <= MAX_PATTERN_BYTES for pattern in patterns):
        raise InvalidFieldError("patterns", f"must have 1 to {MAX_PATTERN_BYTES} bytes each")
    return patterns


async def list_directory(
    agent: Agent, *, path: str, depth: int = 1, patterns: Sequence[str] = ()
) -> Sequence[FileInfo]:
    """What is below a directory, sorted by path. FileCallError, also for one that is too large to be listed."""
    rows: list[FileInfo] = []
    size = 0
    async with agent.call("list", path=path, depth=depth, patterns=list(patterns), user="program") as call:
        while (item := await call.next()) is not None:
            new = [_file_info(row) for row in list_field(item[0], "files")]
            rows += new
            size += sum(len(row.name.encode()) + len(row.link_target.encode()) for row in new)
            if len(rows) > MAX_LIST_ROWS or size > MAX_LIST_BYTES:
                raise FileCallError("too_large", path, "too many names; list a part of it, or by patterns")
    return sorted(rows, key=lambda row: row.name)


async def stat(agent: Agent, *, path: str) -> FileInfo:
    """What a path is; a link is not followed. FileCallError."""
    async with agent.call("stat", path=path, user="program") as call:
        return _file_info((await call.result()).get("file"))


async def move(agent: Agent, *, source: str, target: str, replace: bool) -> None:
    """Renames atomically. FileCallError."""
    async with agent.call("move", path=source, target=target, replace=replace, user="program") as call:
        await call.result()


async def make_directory(agent: Agent, *, path: str) -> None:
    """Makes a directory and those above it; one that is there is fine. FileCallError."""
    async with agent.call("make_directory", path=path, user="program") as call:
        await call.result()


async def remove(agent: Agent, *, path: str, user: str) -> None:
    """Removes a file or a tree. FileCallError."""
    async with agent.call("remove", path=path, user=user) as call:
        await call.result()


async def link(agent: Agent, *, path: str, target: str, user: str) -> None:
    """Makes or replaces a symbolic link. FileCallError."""
    async with agent.call("link", path=path, target=target, user=user) as call:
        await call.result()


async def survey(agent: Agent, known_digest: str = "") -> AsyncIterator[Sequence[SurveyEntry] | SurveySummary]:
    """Batches of entries, the summary last; the summary alone if its digest is the known one. InvalidFieldError."""
    if known_digest and not _DIGEST.fullmatch(known_digest):
        raise InvalidFieldError("known_digest", "must be empty, or a survey's digest: 64 lower-case hexadecimal digits")
    listed = 0
    async with agent.call("survey", user="program", known=known_digest) as call:
        while (item := await call.next()) is not None:
            entries = [_survey_entry(row) for row in list_field(item[0], "entries")]
            listed += len(entries)
            yield entries
        result = await call.result()
        digest = text_field(result, "digest")
        # An older sandboxd lists them all the same.
        unchanged = not listed and bool(known_digest) and digest == known_digest
        if not unchanged and listed != count_field(result, "file_count"):
            raise ProtocolError("a survey that lists other files than it counts")
        yield SurveySummary(
            digest=digest,
            unchanged=unchanged,
            file_count=count_field(result, "file_count"),
            skipped_count=count_field(result, "skipped_count"),
            environments=[_environment(row) for row in list_field(result, "environments")],
            own_directories=[as_text(name, "own_directories") for name in list_field(result, "own_directories")],
            unmanaged=[_unmanaged(row) for row in list_field(result, "unmanaged")[:MAX_UNMANAGED]],
        )


def _object(row: object) -> Header:
    if not isinstance(row, dict):
        raise ProtocolError("a row that is not an object")
    return row


def _part_header(fields: Header) -> PartHeader:
    return PartHeader(
        size=count_field(fields, "size"),
        mtime_ns=count_field(fields, "mtime_ns"),
        executable=fields.get("executable") is True,
    )


def _file_info(row: object) -> FileInfo:
    fields = _object(row)
    return FileInfo(
        name=text_field(fields, "name"),
        kind=text_field(fields, "kind"),
        size=count_field(fields, "size"),
        mtime_ns=count_field(fields, "mtime_ns"),
        executable=fields.get("executable") is True,
        link_target=optional_text_field(fields, "link_target"),
    )


def _environment(row: object) -> Environment:
    fields = _object(row)
    return Environment(
        ecosystem=text_field(fields, "ecosystem"),
        fingerprint=text_field(fields, "fingerprint"),
        current=fields.get("current") is True,
    )


def _unmanaged(row: object) -> Unmanaged:
    fields = _object(row)
    return Unmanaged(path=text_field(fields, "path"), digest=text_field(fields, "digest"))


def _survey_entry(row: object) -> SurveyEntry:
    if not isinstance(row, list) or len(row) != ENTRY_FIELDS:
        raise ProtocolError("a survey entry of another shape")
    size, mtime_ns, ctime_ns, inode = (as_count(number, "entries") for number in row[1:])
    return SurveyEntry(path=as_text(row[0], "entries"), size=size, mtime_ns=mtime_ns, ctime_ns=ctime_ns, inode=inode)
