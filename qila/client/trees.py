"""Whole trees as archives: made from local files, and unpacked with distrust."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import grpc

from qila.client.errors import QilaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CHUNK_BYTES: Final = 64 << 10
# A sandbox sends no longer headers than this; whoever does wants to fill our memory.
_LONGEST_READ: Final = 1 << 20


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
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".qila-") as scratch:
        packed, made = Path(scratch) / "archive", Path(scratch) / "tree"
        with packed.open("wb") as file:
            file.writelines(chunks)
        made.mkdir()
        with _Bounded(io.FileIO(packed)) as bounded, tarfile.open(fileobj=bounded, mode="r:") as opened:
            _extract(opened, made)
        made.rename(directory)


def _extract(opened: tarfile.TarFile, directory: Path) -> None:
    links: list[tuple[Path, str]] = []
    for member in opened:
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
    # Last of all, so that nothing can be written through one.
    for path, target in links:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def _parts_of(name: str) -> list[str]:
    parts = name.split("/")
    if "\0" in name or {"", ".", ".."} & set(parts):
        raise tarfile.ExtractError(f"{name[:200]!r}: a path that leads out of the tree")
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
