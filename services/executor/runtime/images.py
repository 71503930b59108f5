"""Workspaces in image files: an ext4 file system each, sparse, bounded in bytes and inodes.

The image file is the workspace. A loop device stands for it only while a container has it mounted: it is attached right
before the container starts, and told to go with the last mount. So an idle workspace holds nothing of the kernel's, and
neither a crash nor a reboot leaves a device that could stand for another workspace. The engine finds the device through
a link whose name never changes and which is there only during the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from services.executor.errors import WorkspaceError, WorkspaceMissingError
from services.executor.runtime import file_systems, loop_devices

SUFFIX: Final = ".ext4"
# Discard gives the space of deleted files back to the host; the rest is for safety, and for fewer writes.
MOUNT_OPTIONS: Final = "nosuid,nodev,noatime,discard,noinit_itable,errors=remount-ro"

_UNFINISHED: Final = ".new"
_BYTES_PER_INODE: Final = 16 << 10

log = structlog.get_logger()


class WorkspaceImages:
    """The image files of one installation. Every method blocks; each raises WorkspaceError."""

    def __init__(self, *, directory: Path, links: Path, max_inodes: int) -> None:
        """`directory` keeps the files, on a disk; `links` holds links to devices, and may be empty after a reboot."""
        self.directory = directory
        self._links = links
        self._max_inodes = max_inodes
        self._file_systems = file_systems.FileSystems()

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
            self._file_systems.make(unfinished, size, min(size // _BYTES_PER_INODE, self._max_inodes))
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
        file_systems.mend(image)
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
