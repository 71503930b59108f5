"""Whole trees as tar archives, made and unpacked inside the sandbox, and transfers that broke off."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from services.executor.agent.agent import Agent
from services.executor.agent.frames import Header, as_text, count_field, text_field
from services.executor.errors import InvalidFieldError, ProtocolError
from services.executor.files import CHUNK_BYTES, MAX_NAME_BYTES, PartEnd, Upload, check_path, send

MAX_FILES = 20_000
MAX_IGNORED_NAMES = 64
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_TRANSFER = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(frozen=True, kw_only=True)
class TreeWritten:
    """An archive that was unpacked: bytes, lower-case hex, and how many files and links it held."""

    size: int
    sha256: str
    file_count: int


@dataclass(frozen=True, kw_only=True)
class TreeHeader:
    """What an archive will be."""

    etag: str
    size: int
    entry_count: int
    skipped_count: int


@dataclass(frozen=True, kw_only=True)
class TreeFile:
    """A file that somebody else has: its path below the tree, bytes, lower-case hex."""

    path: str
    size: int
    sha256: str
    executable: bool


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Some of what differs: files that are missing or something else, and files that are there beyond."""

    different: Sequence[str]
    beyond: Sequence[str]


def check_ignored_names(names: Sequence[str]) -> Sequence[str]:
    """Names of directories. InvalidFieldError."""
    if len(names) > MAX_IGNORED_NAMES or any(not 0 < len(name.encode()) <= MAX_NAME_BYTES for name in names):
        raise InvalidFieldError(
            "ignored_names", f"must be at most {MAX_IGNORED_NAMES}, each of 1 to {MAX_NAME_BYTES} bytes"
        )
    return names


def check_file(file: TreeFile) -> TreeFile:
    """A file that is to be compared. InvalidFieldError."""
    check_path(file.path, field="files.path")
    if not _SHA256.match(file.sha256):
        raise InvalidFieldError("files.sha256", "must be 64 of [0-9a-f]")
    return file


def check_transfer(transfer: str, *, empty_allowed: bool = False) -> str:
    """The id of a transfer. InvalidFieldError."""
    if not (empty_allowed and not transfer) and not _TRANSFER.match(transfer):
        raise InvalidFieldError("transfer_id", "must be 1 to 64 of [A-Za-z0-9_-]")
    return transfer


async def write_tree(agent: Agent, *, path: str, upload: Upload) -> TreeWritten:
    """Unpacks an archive below a directory. FileCallError."""
    fields = {"path": path, "transfer": upload.transfer, "offset": upload.offset}
    async with agent.call("write_tree", user="program", **fields) as call:
        result = await send(call, upload)
        return TreeWritten(
            size=count_field(result, "size"),
            sha256=text_field(result, "sha256"),
            file_count=count_field(result, "file_count"),
        )


async def read_tree(agent: Agent, *, path: str, etag: str, offset: int) -> AsyncIterator[TreeHeader | bytes | PartEnd]:
    """The archive of what lies below a directory, from an offset. FileCallError."""
    async with agent.call("read_tree", path=path, etag=etag, offset=offset, user="program") as call:
        first = True
        while (item := await call.next()) is not None:
            header, data = item
            if first:
                first = False
                yield _tree_header(header)
            else:
                yield data
        if first:
            raise ProtocolError("a tree without its header")
        result = await call.result()
        yield PartEnd(size=count_field(result, "size"), sha256=text_field(result, "sha256"))


async def compare_tree(
    agent: Agent, *, path: str, ignored_names: Sequence[str], files: AsyncIterator[TreeFile]
) -> AsyncIterator[Difference]:
    """What differs from the files of somebody else. FileCallError; InvalidFieldError, of what `files` raises too."""
    async with agent.call("compare", path=path, ignored_names=list(ignored_names), user="program") as call:
        pending = bytearray()
        async for file in files:
            row = [file.path, file.size, file.sha256, file.executable]
            pending += json.dumps(row, separators=(",", ":")).encode() + b"\n"
            while len(pending) >= CHUNK_BYTES:
                await call.send_chunk(bytes(pending[:CHUNK_BYTES]))
                del pending[:CHUNK_BYTES]
        await call.send_chunk(bytes(pending))
        await call.send_last_chunk("")
        count = 0
        while (item := await call.next()) is not None:
            found = _difference(*item)
            count += len(found.different) + len(found.beyond)
            if count > 2 * MAX_FILES:
                raise ProtocolError("more differences than there may be files")
            yield found


async def transfer_size(agent: Agent, *, transfer: str) -> int:
    """How many bytes of a transfer are held. FileCallError."""
    async with agent.call("transfer", transfer=transfer, user="program") as call:
        return count_field(await call.result(), "size")


def _difference(header: Header, data: bytes) -> Difference:
    kind = text_field(header, "kind")
    try:
        paths = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("paths that are not JSON") from error
    if kind not in {"different", "beyond"} or not isinstance(paths, list):
        raise ProtocolError("a difference of another shape")
    found = [as_text(path, kind) for path in paths]
    return Difference(different=found if kind == "different" else [], beyond=found if kind == "beyond" else [])


def _tree_header(fields: Header) -> TreeHeader:
    return TreeHeader(
        etag=text_field(fields, "etag"),
        size=count_field(fields, "size"),
        entry_count=count_field(fields, "entry_count"),
        skipped_count=count_field(fields, "skipped_count"),
    )
