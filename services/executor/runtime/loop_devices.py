"""Loop devices: a file as a block device, for as long as something is mounted from it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from services.executor.errors import WorkspaceError
from services.executor.runtime.tools import complaint_of, run_tool

_CONTROL: Final = Path("/dev/loop-control")
_CONTROL_NUMBERS: Final = (10, 237)
_BLOCK: Final = Path("/sys/block")
_GET_FREE: Final = 0x4C82
_CLEAR: Final = 0x4C01
# What is told of a device that was given back while we looked.
_GONE: Final = frozenset({errno.ENOENT, errno.ENXIO, errno.ENODEV})
_RELEASE_S: Final = 20
_LOOK_S: Final = 0.01
# Another program on the machine may take the free device first.
_ATTEMPTS: Final = 8
# Two threads would be told the same free device.
_choosing = threading.Lock()


def attached(below: Path) -> Mapping[str, Path]:
    """Devices whose file lies below a directory (removed ones too), and the file. WorkspaceError."""
    directory = below.resolve()
    found = {f"/dev/{entry.name}": _file_of(entry.name) for entry in _BLOCK.glob("loop*")}
    return {device: file for device, file in found.items() if file is not None and directory in file.parents}


def wait_until_free(image: Path) -> None:
    """Waits until no device stands for a file: through two of them the kernel would write it twice. WorkspaceError."""
    deadline = time.monotonic() + _RELEASE_S
    while image.resolve() in attached(image.parent).values():
        if time.monotonic() > deadline:
            raise WorkspaceError("attach a workspace", f"{image} is still mounted somewhere; unmount it, then repeat")
        time.sleep(_LOOK_S)


def attach(image: Path) -> str:
    """Makes a file a block device and answers its path. WorkspaceError."""
    failure = ""
    with _choosing:
        for _ in range(_ATTEMPTS):
            device = _free_device()
            # Direct: else every page of a workspace is cached twice.
            done = run_tool("losetup", "--direct-io=on", device, str(image), check=False)
            if not done.returncode:
                return device
            failure = complaint_of(done)
    raise WorkspaceError("attach a workspace", failure)


def detach(device: str, image: Path) -> None:
    """Gives a file's device back: at once, or, while something is mounted from it, as soon as nothing is. OK if the
    device stands for the file no more. WorkspaceError.
    """  # noqa: D205 - one sentence
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # While it is open it cannot become another file's: nobody else's device is ever taken away.
            if _file_of(Path(device).name) == image.resolve():
                fcntl.ioctl(descriptor, _CLEAR)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _GONE:
            raise WorkspaceError("detach a workspace", f"{device}: {error}") from error


def _file_of(name: str) -> Path | None:
    """The file that a device of that name stands for."""
    try:
        text = (_BLOCK / name / "loop" / "backing_file").read_text()
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise WorkspaceError("look at the loop devices", str(error)) from error
    return Path(text.rstrip("\n").removesuffix(" (deleted)"))


def _free_device() -> str:
    try:
        if not _CONTROL.exists():
            _make_node(_CONTROL, stat.S_IFCHR, os.makedev(*_CONTROL_NUMBERS))
        descriptor = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            number = fcntl.ioctl(descriptor, _GET_FREE)
        finally:
            os.close(descriptor)
        # In a container the nodes of devices that came later are missing.
        device = Path(f"/dev/loop{number}")
        if not device.exists():
            major, minor = (_BLOCK / device.name / "dev").read_text().split(":")
            _make_node(device, stat.S_IFBLK, os.makedev(int(major), int(minor)))
    except OSError as error:
        detail = f"no loop device can be had ({error}); it takes root with CAP_SYS_ADMIN and {_CONTROL}"
        raise WorkspaceError("attach a workspace", detail) from error
    return str(device)


def _make_node(path: Path, kind: int, number: int) -> None:
    try:
        os.mknod(path, kind | 0o600, number)
    except FileExistsError:
        return
