"""The ext4 file systems of workspaces: made, laid out as the sandbox image's own `/sandbox` is, and mended."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from services.executor.errors import WorkspaceError
from services.executor.runtime.tools import complaint_of, run_tool

SKELETON_PATH: Final = Path(__file__).resolve().parents[3] / "sandbox" / "image" / "skeleton"

_BLOCK_BYTES: Final = 4096
_NOTHING: Final = bytes(_BLOCK_BYTES)
_MEBIBYTE: Final = 1 << 20
# What is kept in memory: so many sizes of file systems, each with at most so many bytes that are not zero.
_MAX_KEPT: Final = 8
_MAX_KEPT_BYTES: Final = 8 << 20
_REPAIR_S: Final = 600
# e2fsck's exit code: bits 1 and 2 say that it mended what it found.
_NOT_MENDED: Final = 0xFC
# Magic and state of the superblock, which begins at byte 1024.
_STATE_OFFSET: Final = 1024 + 56
_STATE: Final = struct.Struct("<HH")
_MAGIC: Final = 0xEF53
_HAS_ERRORS: Final = 2

log = structlog.get_logger()

_Blocks = Mapping[int, bytes]


class FileSystems:
    """Makes file systems; the second of a size is written from memory, which takes a tenth of the time."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], _Blocks] = {}

    def make(self, file: Path, size: int, inodes: int) -> None:
        """Makes a new, sparse file of so many bytes a file system. WorkspaceError, OSError."""
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            blocks = self._kept.get((size, inodes))
            if blocks is not None:
                for offset, data in blocks.items():
                    _write(descriptor, data, offset)
                return
            _make_file_system(file, size, inodes)
            _lay_out(file)
            self._keep((size, inodes), descriptor)
        finally:
            os.close(descriptor)

    def _keep(self, kind: tuple[int, int], descriptor: int) -> None:
        extents = list(_extents(descriptor))
        if sum(end - start for start, end in extents) > _MAX_KEPT_BYTES:
            return
        while len(self._kept) >= _MAX_KEPT:
            self._kept.pop(next(iter(self._kept)), None)
        self._kept[kind] = dict(_blocks_of(descriptor, extents))


def mend(image: Path) -> None:
    """Checks a file system that met errors (the host's disk was full, say); others can be mounted as they are."""
    try:
        with image.open("rb") as file:
            magic, state = _STATE.unpack(os.pread(file.fileno(), _STATE.size, _STATE_OFFSET))
    except (OSError, struct.error) as error:
        raise WorkspaceError("read a workspace", f"{image}: {error}") from error
    if magic != _MAGIC:
        raise WorkspaceError("read a workspace", f"{image} holds no file system; put back what was there")
    if state & _HAS_ERRORS:
        log.warning("a workspace that met errors is checked", image=str(image))
        done = run_tool("e2fsck", "-f", "-y", str(image), check=False, seconds=_REPAIR_S)
        if done.returncode & _NOT_MENDED:
            raise WorkspaceError("mend a workspace", f"{image}: {complaint_of(done)}")


def read_skeleton(path: Path = SKELETON_PATH) -> Sequence[tuple[int, int, int, str]]:
    """Owner, group, mode and path of each directory of a new workspace; the first is the workspace itself, "."."""
    rows = [line.split("#")[0].split() for line in path.read_text(encoding="ascii").splitlines()]
    return [
        (int(owners.split(":")[0]), int(owners.split(":")[1]), int(mode, 8), directory)
        for owners, mode, directory in filter(None, rows)
    ]


def _make_file_system(file: Path, size: int, inodes: int) -> None:
    # The journal makes a workspace mountable after a power cut; a small one is enough, and fills the host's disk less.
    journal = max(4, min(16, size // _MEBIBYTE // 64))
    run_tool(
        "mkfs.ext4",
        *("-q", "-F", "-m", "0", "-b", str(_BLOCK_BYTES), "-N", str(inodes), "-J", f"size={journal}"),
        # A new file is all zeros: nothing has to be written over it, now or later.
        *("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
        str(file),
    )


def _lay_out(file: Path) -> None:
    """Fills in what the sandbox image has at its mount point, and nothing else."""
    commands = ["rmdir lost+found", *(command for row in read_skeleton() for command in _commands_of(*row))]
    done = run_tool("debugfs", "-w", "-f", "-", str(file), stdin="\n".join([*commands, ""]))
    # It ends well whatever became of the commands, and begins with its own name.
    complaints = done.stderr.splitlines()[1:]
    if complaints:
        raise WorkspaceError("lay out a workspace", complaints[0])


def _commands_of(owner: int, group: int, mode: int, directory: str) -> Iterator[str]:
    if directory != ".":
        yield f"mkdir {directory}"
    target = "/" if directory == "." else directory
    for field, value in (("mode", f"0{mode | 0o040000:o}"), ("uid", str(owner)), ("gid", str(group))):
        yield f"set_inode_field {target} {field} {value}"


def _extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes: first byte, and first byte after."""
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def _blocks_of(descriptor: int, extents: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    for start, end in extents:
        for offset in range(start, end, _BLOCK_BYTES):
            data = os.pread(descriptor, _BLOCK_BYTES, offset)
            if data != _NOTHING:
                yield offset, data


def _write(descriptor: int, data: bytes, offset: int) -> None:
    if os.pwrite(descriptor, data, offset) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
