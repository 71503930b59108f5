"""The file system's own tools, of e2fsprogs and util-linux, as commands."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

from services.executor.errors import WorkspaceError

# A service's own search path often lacks where the distributions put them.
_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_PACKAGE_OF: Final = {
    "losetup": "util-linux (Debian: mount)",
    "mkfs.ext4": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
}
_SECONDS: Final = 60


def run_tool(
    name: str, *arguments: str, stdin: str = "", check: bool = True, seconds: float = _SECONDS
) -> subprocess.CompletedProcess[str]:
    """Runs a tool to its end.

    Raises:
        WorkspaceError: the tool is not there, does not end in time, or, unless `check` is False, ended badly.
    """
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise WorkspaceError(f"run {name}", f"{name} is not on this machine; install {_PACKAGE_OF[name]}")
    command = [found, *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - a tool of the system, and arguments of our own
            command, input=stdin, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkspaceError(f"run {name}", str(error)) from error
    if done.returncode and check:
        raise WorkspaceError(f"run {name}", complaint_of(done))
    return done


def complaint_of(done: subprocess.CompletedProcess[str]) -> str:
    """What a tool that failed said of it."""
    return done.stderr.strip() or f"it ended with exit code {done.returncode}"
