"""Workspaces in image files: an ext4 file system each, sparse, bounded in bytes and inodes.

The image file is the workspace. A loop device stands for it only while a container has it mounted: it is attached right
before the container starts, and told to go with the last mount. So an idle workspace holds nothing of the kernel's, and
neither a crash nor a reboot leaves a device that could stand for another workspace. The engine finds the device through
a link whose name never changes and which is there only during the start.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from services.executor.errors import WorkspaceError, WorkspaceMissingError
from services.executor.runtime import loop_devices
from services.executor.runtime.tools import complaint_of, run_tool

SKELETON_PATH: Final = Path(__file__).resolve().parents[3] / "sandbox" / "image" / "skeleton"
SUFFIX: Final = ".ext4"
# Discard gives the space of deleted files back to the host; the rest is for safety, and for fewer writes.
MOUNT_OPTIONS: Final = "nosuid,nodev,noatime,discard,noinit_itable,errors=remount-ro"

_UNFINISHED: Final = ".new"
_BLOCK_BYTES: Final = 4096
_BYTES_PER_INODE: Final = 16 << 10
_MEBIBYTE: Final = 1 << 20
_REPAIR_S: Final = 600
# e2fsck's exit code: bits 1 and 2 say that it mended what it found.
_NOT_MENDED: Final = 0xFC
# Magic and state of the superblock, which begins at byte 1024.
_STATE_OFFSET: Final = 1024 + 56
_STATE: Final = struct.Struct("<HH")
_MAGIC: Final = 0xEF53
_HAS_ERRORS: Final = 2

log = structlog.get_logger()


class WorkspaceImages:
    """The image files of one installation. Every method blocks; each raises WorkspaceError."""

    def __init__(self, *, directory: Path, links: Path, max_inodes: int) -> None:
        """`directory` keeps the files, on a disk; `links` holds links to devices, and may be empty after a reboot."""
        self.directory = directory
        self._links = links
        self._max_inodes = max_inodes

    def path_of(self, name: str) -> Path:
        """The image file of a workspace."""
        return self.directory / f"{name}{SUFFIX}"

    def link_of(self, name: str) -> Path:
        """What the engine mounts."""
        return self._links / name

    def exists(self, name: str) -> bool:
        """Whether the workspace is there."""
        return self.path_of(name).exists()

    def names(self) -> Sequence[str]:
        """Every workspace that is there."""
        return [path.name.removesuffix(SUFFIX) for path in sorted(self.directory.glob(f"*{SUFFIX}"))]

    def make(self, name: str, size: int) -> None:
        """Makes a workspace of so many bytes; one that is there is kept."""
        if self.exists(name):
            return
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self.path_of(name).with_suffix(_UNFINISHED)
        try:
            unfinished.unlink(missing_ok=True)
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, size)
            finally:
                os.close(descriptor)
            _make_file_system(unfinished, size, min(size // _BYTES_PER_INODE, self._max_inodes))
            _lay_out(unfinished)
            unfinished.rename(self.path_of(name))
        except OSError as error:
            raise WorkspaceError("make a workspace", str(error)) from error
        finally:
            unfinished.unlink(missing_ok=True)

    @contextmanager
    def attached(self, name: str) -> Iterator[None]:
        """The workspace can be mounted by its link inside the block, and stays mountable for whom has it mounted."""
        image = self.path_of(name)
        if not image.exists():
            raise WorkspaceMissingError(name, str(image))
        loop_devices.wait_until_free(image)
        _mend(image)
        device = loop_devices.attach(image)
        link = self.link_of(name)
        try:
            self._links.mkdir(mode=0o700, parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(device)
            yield
        finally:
            link.unlink(missing_ok=True)
            loop_devices.detach(device, image)

    def remove(self, name: str) -> None:
        """Removes a workspace and gives its space back; OK if there is none."""
        path = self.path_of(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise WorkspaceError("remove a workspace", str(error)) from error
        for device, file in loop_devices.attached(self.directory).items():
            if file == path.resolve():
                loop_devices.detach(device, file)
                log.warning(
                    "a removed workspace is still mounted: its space comes back when that ends",
                    workspace=name,
                    device=device,
                )

    def tidy(self) -> None:
        """Gives back what a crash left: unfinished files, links, and devices of ours that nothing is mounted from."""
        for path in [*self.directory.glob(f"*{_UNFINISHED}"), *self._links.glob("*")]:
            path.unlink(missing_ok=True)
            log.warning("what an interrupted start left was removed", path=str(path))
        for device, file in loop_devices.attached(self.directory).items():
            # One that is mounted stays until it is not: this is how its executor left it, too.
            loop_devices.detach(device, file)
            log.info("a loop device of a workspace was found", device=device, file=str(file))


def _make_file_system(image: Path, size: int, inodes: int) -> None:
    # The journal makes a workspace mountable after a power cut; a small one is enough, and fills the host's disk less.
    journal = max(4, min(16, size // _MEBIBYTE // 64))
    run_tool(
        "mkfs.ext4",
        *("-q", "-F", "-m", "0", "-b", str(_BLOCK_BYTES), "-N", str(inodes), "-J", f"size={journal}"),
        # A new file is all zeros: nothing has to be written over it, now or later.
        *("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
        str(image),
    )


def _lay_out(image: Path) -> None:
    """Fills in what the sandbox image has at its mount point, and nothing else."""
    commands = ["rmdir lost+found", *(command for row in read_skeleton() for command in _commands_of(*row))]
    done = run_tool("debugfs", "-w", "-f", "-", str(image), stdin="\n".join([*commands, ""]))
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


def read_skeleton(path: Path = SKELETON_PATH) -> Sequence[tuple[int, int, int, str]]:
    """Owner, group, mode and path of each directory of a new workspace; the first is the workspace itself, "."."""
    rows = [line.split("#")[0].split() for line in path.read_text(encoding="ascii").splitlines()]
    return [
        (int(owners.split(":")[0]), int(owners.split(":")[1]), int(mode, 8), directory)
        for owners, mode, directory in filter(None, rows)
    ]


def _mend(image: Path) -> None:
    """Checks a file system that met errors (the host's disk was full, say); others are mountable as they are."""
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
