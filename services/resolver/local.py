"""Plans of a directory on this machine: the files are read here, by the same rules as in a sandbox."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from services.resolver.errors import TargetNotFoundError
from services.resolver.model import Selection, Target, WorkspaceFile
from services.resolver.plan import plan
from services.resolver.selection import EXCLUDED_ANYWHERE, MAX_FILE_BYTES, select_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.resolver.model import Context, Plan

# The toolchain of the sandbox image, for plans made without one.
IMAGE_TOOLCHAIN = {
    "python": "3.13.5",
    "node": "24.19.0",
    "npm": "11.17.0",
    "go": "1.27.3",
    "java": "21.0.13.1",
    "maven": "3.9.9",
}


def plan_local(path: Path, args: Sequence[str], context: Context, language: str = "") -> tuple[Plan, Selection]:
    """Plan a file (its directory is the workspace) or a directory.

    Raises ResolverError for what is in the files and OSError for files that cannot be read.
    """
    if not path.exists():
        raise TargetNotFoundError(program=str(path))
    root, program = (path, "") if path.is_dir() else (path.parent, path.name)
    target = Target(program=program, args=tuple(args), language=language)
    # A file alone is uploaded alone: what lies beside it does not exist for its run.
    listed = survey(root) if not program else [WorkspaceFile(path=program, size=path.stat().st_size)]
    selection = select_files(listed, target)
    files = {name: read_bounded(root / name) for name in selection.paths}
    return plan(files, [file.path for file in listed], target, context), selection


def survey(root: Path) -> list[WorkspaceFile]:
    """The regular files below a directory, links not followed; what is never scanned is not entered."""
    found = []
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in EXCLUDED_ANYWHERE)
        for name in sorted(files):
            path = Path(directory, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found.append(WorkspaceFile(path=path.relative_to(root).as_posix(), size=status.st_size))
    return found


def read_bounded(path: Path) -> bytes:
    """The bytes of a file that may have grown since it was listed: never more than the limit."""
    with path.open("rb") as stream:
        return stream.read(MAX_FILE_BYTES)
