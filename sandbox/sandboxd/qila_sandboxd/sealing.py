"""Closing what the installer owns when an install is over: a build script may have opened it to the programs.

Whatever happened before, programs can change nothing of it afterwards: not by its modes, not because something of
theirs stands in it, and not through a descriptor that they hold open or were handed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat

from .paths import CallError

HOME = ".qila"
# The installer's own home, closed as a whole.
_PRIVATE = f"{HOME}/home"
_PRIVATE_MODE = 0o700
_DIRECTORY_MODE = 0o755
_OWNER_MAY = 0o700


def seal(root: str) -> None:
    """Close everything below `root`/.qila that this process's user owns, and remove what others put there.

    Raises:
        CallError: `permission_denied` if something of others cannot be removed.
        OSError: the file system failed.
    """
    private = f"{root}/{_PRIVATE}"
    remaining = [f"{root}/{HOME}"]
    while remaining:
        directory = remaining.pop()
        # First closed, then read: from here on nobody else can change what is in it.
        _set_mode(directory, os.stat(directory).st_mode & _DIRECTORY_MODE | _OWNER_MAY)  # noqa: PTH116 - a text
        with os.scandir(directory) as found:
            entries = list(found)
        for entry in entries:
            if entry.path == private:
                _set_mode(private, _PRIVATE_MODE)
            elif _seal_entry(entry):
                remaining.append(entry.path)


def _seal_entry(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory that is to be sealed as well."""
    status = entry.stat(follow_symlinks=False)
    if status.st_uid != os.getuid():
        _remove(entry)
    elif stat.S_ISDIR(status.st_mode):
        return True
    elif stat.S_ISREG(status.st_mode):
        _set_mode(entry.path, status.st_mode & _DIRECTORY_MODE)
        if _is_held(entry.path):
            _renew(entry.path)
    return False


def _set_mode(path: str, mode: int) -> None:
    if stat.S_IMODE(os.stat(path).st_mode) != stat.S_IMODE(mode):  # noqa: PTH116 - a text
        os.chmod(path, stat.S_IMODE(mode))  # noqa: PTH101 - as above


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        os.unlink(entry.path)  # noqa: PTH108 - a text
    if os.path.lexists(entry.path):
        advice = "an install opened the installer's directory, and a program put this there; have the program empty it"
        raise CallError("permission_denied", f"{entry.path}: {advice}")


def _is_held(path: str) -> bool:
    """Whether anybody has the file open for writing. A lease on reading is given only where nobody has."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        # The installer may not read it either: a copy cannot be made, and nobody else could have opened it.
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        # Also where the file system knows no leases: then it cannot be told.
        return True
    else:
        return False
    finally:
        # The lease goes with the descriptor.
        os.close(descriptor)


def _renew(path: str) -> None:
    """Put a copy in the file's place: who holds the old one open holds something that is not there any more."""
    temporary = f"{path}.{secrets.token_hex(8)}.tmp"
    shutil.copy2(path, temporary)
    os.replace(temporary, path)  # noqa: PTH105 - a text
