"""What both clients send about files: the messages of each stream, and which files go together."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Final

from qila.client.trees import CHUNK_BYTES
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from qila.client.trees import LocalFile
    from qila.client.uploads import Stream

MAX_DEPTH: Final = 64
# Below this an upload is repeated as quickly as it is taken up again.
LARGE_BYTES: Final = 8 << 20
_COMPARED_AT_ONCE: Final = 500
# From this on a file goes by itself.
_ALONE_BYTES: Final = 64 << 20
# A tree may have 2 GiB with its headers.
_TREE_BYTES: Final = 1 << 30


@dataclass(kw_only=True)
class TreeDifference:
    """Paths below a directory: of files that are missing or something else there, and that are there beyond."""

    different: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)

    def beyond_to_go(self, delete: bool | Callable[[str], bool]) -> list[str]:  # noqa: FBT001 - as the calls take it
        """Those of the files beyond that a synchronisation removes."""
        return [path for path in self.beyond if (delete(path) if callable(delete) else delete)]

    def add(self, response: pb.CompareTreeResponse) -> None:
        """Adds what one answer says."""
        self.different += response.different
        self.beyond += response.beyond


@dataclass(frozen=True, kw_only=True)
class TreeSync:
    """What a synchronisation did: paths below the directory, and how many files were left as they are."""

    uploaded: Sequence[str]
    removed: Sequence[str]
    unchanged: int


class Digests:
    """SHA-256 of local files; what has the same size, time and inode as before is not read again."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def of(self, path: Path) -> str:
        """In lower-case hex. OSError if it cannot be read."""
        status = path.stat()
        state = (status.st_size, status.st_mtime_ns, status.st_ino)
        known = self._known.get(path)
        if known is None or known[0] != state:
            with path.open("rb") as file:
                known = (state, hashlib.file_digest(file, "sha256").hexdigest())
            self._known[path] = known
        return known[1]

    def named(self, files: Sequence[LocalFile]) -> list[pb.TreeFile]:
        """The files as a comparison takes them."""
        return [
            pb.TreeFile(path=file.path, size=file.size, sha256=self.of(file.source), executable=file.executable)
            for file in files
        ]


def file_messages(header: pb.WriteFileHeader, stream: Stream) -> Generator[pb.WriteFileRequest, None, None]:
    """The messages of one attempt to write a file."""
    yield pb.WriteFileRequest(header=header)
    for chunk in stream:
        yield pb.WriteFileRequest(chunk=chunk)
    yield pb.WriteFileRequest(end=pb.WriteFileEnd(sha256=stream.sha256))


def tree_messages(header: pb.WriteTreeHeader, stream: Stream) -> Generator[pb.WriteTreeRequest, None, None]:
    """The messages of one attempt to write a tree."""
    yield pb.WriteTreeRequest(header=header)
    for chunk in stream:
        yield pb.WriteTreeRequest(chunk=chunk)
    yield pb.WriteTreeRequest(end=pb.WriteTreeEnd(sha256=stream.sha256))


def compare_messages(
    header: pb.CompareTreeHeader, files: Sequence[pb.TreeFile]
) -> Generator[pb.CompareTreeRequest, None, None]:
    """The messages of a comparison."""
    yield pb.CompareTreeRequest(header=header)
    for start in range(0, len(files), _COMPARED_AT_ONCE):
        yield pb.CompareTreeRequest(files=pb.CompareTreeFiles(files=files[start : start + _COMPARED_AT_ONCE]))
    yield pb.CompareTreeRequest(end=pb.CompareTreeEnd())


def rereadable(source: IO[bytes]) -> Callable[[], Iterator[bytes]] | None:
    """Reads a file from where it stands, as often as it is called; None if that is not worth it, or impossible."""
    if not source.seekable():
        return None
    start = source.tell()
    size = source.seek(0, os.SEEK_END) - start
    source.seek(start)
    if size < LARGE_BYTES:
        return None

    def chunks() -> Iterator[bytes]:
        source.seek(start)
        yield from chunks_of(source)

    return chunks


def chunks_of(source: IO[bytes]) -> Iterator[bytes]:
    """The rest of a file."""
    return iter(lambda: source.read(CHUNK_BYTES), b"")


def in_shares(files: Sequence[LocalFile]) -> Iterator[LocalFile | list[LocalFile]]:
    """How files are sent: a large one, or a single one, by itself, the rest as trees within the bounds of one."""
    if len(files) == 1:
        yield files[0]
        return
    yield from (file for file in files if file.size >= _ALONE_BYTES)
    tree: list[LocalFile] = []
    size = 0
    for file in files:
        if file.size >= _ALONE_BYTES:
            continue
        if size + file.size > _TREE_BYTES:
            yield tree
            tree, size = [], 0
        tree.append(file)
        size += file.size
    if tree:
        yield tree


def below(directory: str, path: str) -> str:
    """The path in the workspace of a file below one of its directories."""
    return f"{directory}/{path}" if directory else path


def differing(files: Sequence[LocalFile], found: TreeDifference, directory: str) -> list[LocalFile]:
    """Those of a tree's files that a comparison found to differ, at their places in the workspace."""
    different = set(found.different)
    return [replace(file, path=below(directory, file.path)) for file in files if file.path in different]
