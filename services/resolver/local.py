"""Plans of a directory on this machine: the files are read here, by the same rules as in a sandbox."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.resolver.errors import TargetAmbiguousError, TargetNotFoundError
from services.resolver.model import Selection, Target, WorkspaceFile
from services.resolver.plan import plan
from services.resolver.projects import plan_all, plan_projects
from services.resolver.selection import EXCLUDED_ANYWHERE, MAX_FILE_BYTES, own_files, select_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    """Plan a file (its directory is the workspace) or a directory; a language, if given, is the one that runs it.

    Raises ResolverError for what is in the files and OSError for files that cannot be read.
    """
    found = _workspace(path, args, language)
    return plan(found.files, found.tree, found.target, context), found.selection


def plan_local_projects(
    path: Path, args: Sequence[str], context: Context, language: str = ""
) -> tuple[tuple[Plan, ...], Selection]:
    """Plan all projects of a directory, that of its program first if it has one.

    Raises as `plan_local`.
    """
    found = _workspace(path, args, language)
    try:
        plans = plan_all(found.files, found.tree, found.target, context)
    except (TargetNotFoundError, TargetAmbiguousError):
        projects, _ = plan_projects(found.files, own_files(found.tree), context)
        if not projects:
            raise
        return projects, found.selection
    return (plans.program, *plans.projects), found.selection


@dataclass(frozen=True, kw_only=True, slots=True)
class _Workspace:
    """The files that were read, the paths of all, and what is to be run."""

    files: Mapping[str, bytes]
    tree: tuple[str, ...]
    target: Target
    selection: Selection


def _workspace(path: Path, args: Sequence[str], language: str) -> _Workspace:
    if not path.exists():
        raise TargetNotFoundError(program=str(path))
    root, program = (path, "") if path.is_dir() else (path.parent, path.name)
    target = Target(program=program, args=tuple(args), required_language=language)
    # A file alone is uploaded alone: what lies beside it does not exist for its run.
    listed = survey(root) if not program else [WorkspaceFile(path=program, size=path.stat().st_size)]
    selection = select_files(listed, target)
    files = {name: read_bounded(root / name) for name in selection.paths}
    return _Workspace(files=files, tree=tuple(file.path for file in listed), target=target, selection=selection)


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
