"""Which files of a workspace the planners want to read, within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.errors import ManifestTooLargeError
from services.resolver.model import ProblemKind, Selection, SelectionProblem
from services.resolver.planner import PLANNERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.resolver.model import Target, WorkspaceFile

MAX_FILE_BYTES = 2 * 1024 * 1024
MAX_FILES = 20_000
MAX_TOTAL_BYTES = 64 * 1024 * 1024

# Qila's own, and what people and tools keep at the root of a workspace.
EXCLUDED_AT_ROOT = frozenset({".qila", ".home", ".local", ".cache", "deps"})
EXCLUDED_ANYWHERE = frozenset(
    {
        ".eggs", ".git", ".hg", ".mypy_cache", ".nox", ".pytest_cache", ".ruff_cache", ".svn", ".tox", ".venv",
        "__pycache__", "__pypackages__", "dist-packages", "node_modules", "site-packages", "venv",
    }
)  # fmt: skip
VIRTUAL_ENVIRONMENT_MARK = "pyvenv.cfg"


def is_excluded(path: str, virtual_environments: Iterable[str]) -> bool:
    """Whether a path lies where nothing of the program's own can be."""
    parts = path.split("/")
    directories = parts[:-1]
    if not directories:
        return False
    return (
        directories[0] in EXCLUDED_AT_ROOT
        or not EXCLUDED_ANYWHERE.isdisjoint(directories)
        or directories[:2] == ["build", "lib"]
        or any("/".join(directories[:depth]) in virtual_environments for depth in range(1, len(parts)))
    )


def own_files(paths: Iterable[str]) -> list[str]:
    """The paths that may be the program's own: no caches, no virtual environments, nothing of Qila's."""
    listed = list(paths)
    environments = {path.rpartition("/")[0] for path in listed if path.endswith(f"/{VIRTUAL_ENVIRONMENT_MARK}")}
    return [path for path in listed if not is_excluded(path, environments)]


def select_files(files: Sequence[WorkspaceFile], target: Target) -> Selection:
    """The manifests and sources to read, nearest to the root first, manifests and the target before the rest.

    Raises ManifestTooLargeError if a manifest that counts for the target is above 2 MiB, or the target itself is.
    """
    sizes = {file.path: file.size for file in files}
    wanted = [(rank, path) for path in own_files(sizes) if (rank := _rank(path, target))]
    wanted.sort(key=lambda entry: (entry[0], entry[1].count("/"), entry[1]))
    taken: list[str] = []
    total = 0
    left_out: dict[ProblemKind, list[str]] = {}
    for rank, path in wanted:
        size = sizes[path]
        if size > MAX_FILE_BYTES:
            _refuse_if_decisive(rank, path, size)
            left_out.setdefault(ProblemKind.FILE_TOO_LARGE, []).append(path)
        elif len(taken) == MAX_FILES:
            left_out.setdefault(ProblemKind.TOO_MANY_FILES, []).append(path)
        elif total + size > MAX_TOTAL_BYTES:
            left_out.setdefault(ProblemKind.TOO_MANY_BYTES, []).append(path)
        else:
            taken.append(path)
            total += size
    return Selection(paths=tuple(taken), problems=tuple(_problem(kind, paths) for kind, paths in left_out.items()))


DECISIVE = 1
HELPFUL = 2
SOURCE = 3


def _rank(path: str, target: Target) -> int:
    """The order of reading; 0 for a file that nobody wants."""
    if path == target.program.removeprefix("./"):
        return DECISIVE
    for planner in PLANNERS:
        if planner.manifests(path):
            return DECISIVE if path.rpartition("/")[0] in planner.searched(target) else HELPFUL
        if planner.sources(path):
            return SOURCE
    return 0


def _refuse_if_decisive(rank: int, path: str, size: int) -> None:
    if rank == DECISIVE:
        reason = f"{size} bytes is above the limit of {MAX_FILE_BYTES}; make the file smaller"
        raise ManifestTooLargeError(path=path, reason=reason)


def _problem(kind: ProblemKind, paths: list[str]) -> SelectionProblem:
    limits = {
        ProblemKind.FILE_TOO_LARGE: MAX_FILE_BYTES,
        ProblemKind.TOO_MANY_FILES: MAX_FILES,
        ProblemKind.TOO_MANY_BYTES: MAX_TOTAL_BYTES,
    }
    return SelectionProblem(kind=kind, path=paths[0], count=len(paths), limit=limits[kind])
