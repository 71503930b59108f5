"""Which local files an upload takes, and where they go."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qila.cli.render import one_line
from qila.client.trees import LocalFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SKIPPED_DIRECTORIES: Final = frozenset({".git", ".venv", "node_modules", "__pycache__"})
MAX_FILE_BYTES: Final = 2 << 30
MAX_FILES: Final = 20_000


def find_files(source: Path, prefix: str, refuse: Callable[[str], None]) -> list[LocalFile]:
    """All files of a tree, under `prefix` in the workspace, or the one file, at `prefix` itself.

    What is neither file nor directory is passed to `refuse` in words. Raises click.ClickException beyond the limits.
    """
    if not source.exists():
        raise click.ClickException(f"{source}: no such file or directory")
    candidates = _walk(source, prefix, refuse) if source.is_dir() else iter([(source, prefix)])
    files: list[LocalFile] = []
    for path, target in candidates:
        found = _inspect(path, target, refuse, follow=path == source)
        if found is not None:
            files.append(found)
        if len(files) > MAX_FILES:
            raise click.ClickException(f"{source}: more than {MAX_FILES} files; upload a smaller tree")
    return files


def _walk(directory: Path, prefix: str, refuse: Callable[[str], None]) -> Iterator[tuple[Path, str]]:
    with os.scandir(directory) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name)
    for entry in entries:
        target = f"{prefix}/{entry.name}" if prefix else entry.name
        if not entry.is_dir(follow_symlinks=False):
            yield Path(entry.path), target
        elif entry.name not in SKIPPED_DIRECTORIES:
            yield from _walk(Path(entry.path), target, refuse)


def _inspect(path: Path, target: str, refuse: Callable[[str], None], *, follow: bool) -> LocalFile | None:
    status = path.stat(follow_symlinks=follow)
    if stat.S_ISLNK(status.st_mode):
        refuse(one_line(f"{path}: symbolic link, not uploaded"))
        return None
    if not stat.S_ISREG(status.st_mode):
        refuse(one_line(f"{path}: not a regular file, not uploaded"))
        return None
    if not target.isprintable() or any("\ud800" <= character <= "\udfff" for character in target):
        raise click.ClickException(f"{target!r}: the name is not printable UTF-8; rename the file")
    if status.st_size > MAX_FILE_BYTES:
        raise click.ClickException(f"{path}: {status.st_size} bytes; a file may have {MAX_FILE_BYTES} (2 GiB)")
    return LocalFile(source=path, path=target, size=status.st_size, executable=bool(status.st_mode & stat.S_IXUSR))
