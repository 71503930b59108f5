"""Whole trees as archives: made from local files, and unpacked with distrust."""

from __future__ import annotations

import asyncio
import io
import shutil
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import grpc

from qila.client.errors import QilaError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Iterator, Sequence

CHUNK_BYTES: Final = 64 << 10
# A sandbox sends no longer headers than this; whoever does wants to fill our memory.
_LONGEST_READ: Final = 1 << 20
_MOST_MEMBERS: Final = 20_000
_DEEPEST: Final = 64


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file to upload: `path` is its place in the workspace, or in a tree; size in bytes."""

    source: Path
    path: str
    size: int
    executable: bool


def archive(files: Sequence[LocalFile]) -> Iterator[bytes]:
    """The files as a tar archive, the same each time, in chunks of at most 64 KiB. QilaError if a file changes."""
    pending = bytearray()
    for part in _parts(files):
        pending += part
        while len(pending) >= CHUNK_BYTES:
            yield bytes(pending[:CHUNK_BYTES])
            del pending[:CHUNK_BYTES]
    yield bytes(pending)


def _parts(files: Sequence[LocalFile]) -> Iterator[bytes]:
    for file in files:
        info = tarfile.TarInfo(file.path)
        info.size = file.size
        info.mode = 0o755 if file.executable else 0o644
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
        with file.source.open("rb") as opened:
            yield from _content(opened, file)
        yield bytes(-file.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _content(opened: IO[bytes], file: LocalFile) -> Iterator[bytes]:
    remaining = file.size
    while remaining and (data := opened.read(min(CHUNK_BYTES, remaining))):
        remaining -= len(data)
        yield data
    if remaining or opened.read(1):
        raise QilaError(
            code=grpc.StatusCode.ABORTED,
            reason="FILE_CHANGED",
            message=f"{file.source}: changed while it was uploaded; repeat it",
        )


def unpack(chunks: Iterable[bytes], directory: Path) -> None:
    """Unpacks an archive into a new directory, which is there only if all of it is.

    Files, directories and links that stay in the tree are taken; anything else, and a path that leads out of it, is
    refused (tarfile.TarError).
    """
    with _scratch(directory) as scratch:
        with scratch.archive.open("wb") as file:
            file.writelines(chunks)
        scratch.finish(directory)


async def async_unpack(chunks: AsyncIterable[bytes], directory: Path) -> None:
    """The same, of what comes asynchronously."""
    with _scratch(directory) as scratch:
        with scratch.archive.open("wb") as file:
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
        await asyncio.to_thread(scratch.finish, directory)


@dataclass(frozen=True, kw_only=True)
class _Scratch:
    """A place beside a directory that is to be: where its archive is, and where its files go."""

    archive: Path
    tree: Path

    def finish(self, directory: Path) -> None:
        self.tree.mkdir()
        try:
            with _Bounded(io.FileIO(self.archive)) as bounded, tarfile.open(fileobj=bounded, mode="r:") as opened:
                _extract(opened, self.tree)
        except (ValueError, RecursionError, FileExistsError, NotADirectoryError) as error:
            # The library's own words for some headers that are none; and what is there twice, or below a file or link.
            raise tarfile.ExtractError(f"a member that cannot be made: {error}") from error
        self.tree.rename(directory)


@contextmanager
def _scratch(directory: Path) -> Iterator[_Scratch]:
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".qila-") as name:
        yield _Scratch(archive=Path(name) / "archive", tree=Path(name) / "tree")


def _extract(opened: tarfile.TarFile, directory: Path) -> None:
    links: list[tuple[Path, str]] = []
    for count, member in enumerate(opened):
        if count == _MOST_MEMBERS:
            raise tarfile.ExtractError(f"more than {_MOST_MEMBERS} members")
        path = directory.joinpath(*_parts_of(member.name))
        if member.issym():
            _check_link(member)
            links.append((path, member.linkname))
        elif member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif member.isreg() and not member.issparse() and (content := opened.extractfile(member)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                shutil.copyfileobj(content, file)
            path.chmod(0o755 if member.mode & 0o100 else 0o644)
        else:
            raise tarfile.ExtractError(f"{member.name[:200]!r}: neither a file nor a directory nor a link")
    # Last of all, and behind every directory, so that nothing can be made through one: not another link either.
    for path, _ in links:
        path.parent.mkdir(parents=True, exist_ok=True)
    for path, target in links:
        path.symlink_to(target)


def _parts_of(name: str) -> list[str]:
    parts = name.split("/")
    if "\0" in name or {"", ".", ".."} & set(parts):
        raise tarfile.ExtractError(f"{name[:200]!r}: a path that leads out of the tree")
    if len(parts) > _DEEPEST:
        raise tarfile.ExtractError(f"{name[:200]!r}…: deeper than {_DEEPEST} levels")
    return parts


def _check_link(member: tarfile.TarInfo) -> None:
    """Up may come first alone: behind a name it could go up from where another link leads."""
    target = member.linkname.split("/")
    ups = next((index for index, part in enumerate(target) if part != ".."), len(target))
    if target[0] == "" or ".." in target[ups:] or ups > member.name.count("/"):
        raise tarfile.ExtractError(f"{member.name[:200]!r}: a link that leads out of the tree")


class _Bounded(io.BufferedReader):
    """A file that is read in small pieces alone."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LONGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)
