"""Paths of a workspace, without looking at any file system."""

from __future__ import annotations

from itertools import accumulate

WORKSPACE = "/sandbox"


def join(directory: str, name: str) -> str:
    """A path below a directory; the root is the empty string."""
    return f"{directory}/{name}" if directory and name else directory or name


def normal(path: str) -> str | None:
    """A path without `.` and `..`; None if it leads outside the workspace."""
    if path.startswith("/"):
        return None
    parts: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def directories_above(path: str) -> list[str]:
    """The directories above a file, nearest first; the root, which is the empty string, comes last."""
    parts = path.split("/")[:-1]
    return [*reversed(list(accumulate(parts, lambda above, part: f"{above}/{part}"))), ""]
