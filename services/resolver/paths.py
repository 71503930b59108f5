"""Paths of a workspace, relative to it, without looking at any file system. The root is the empty string."""

from __future__ import annotations

# Where a workspace lies in its sandbox.
WORKSPACE = "/sandbox"


def join(directory: str, name: str) -> str:
    """A path below a directory; either may be empty."""
    return f"{directory}/{name}" if directory and name else directory or name


def normal(path: str) -> str | None:
    """A path without `.` and `..`; None if it is absolute, or leads out of the workspace."""
    if path.startswith("/"):
        return None
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def with_parents(directory: str) -> tuple[str, ...]:
    """A directory and all above it, the nearest first."""
    found = [directory]
    while found[-1]:
        found.append(found[-1].rpartition("/")[0])
    return tuple(found)


def directories_above(path: str) -> tuple[str, ...]:
    """The directories that hold a file, the nearest first."""
    return with_parents(path.rpartition("/")[0])
