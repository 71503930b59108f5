"""Whole trees that come in: an archive is unpacked beside the workspace and moved into place, each file atomically."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from .paths import CallError, checked
from .tar_members import Member, read_members
from .transfers import received, staging

if TYPE_CHECKING:
    from .answers import Answers
    from .frames import Header

_COPY_BYTES = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_tree(answers: Answers, root: str, call: Header) -> Header:
    """Take an archive and put what it holds below a directory."""
    top = f"{root}/{checked(call['path'])}" if call["path"] else root
    with received(answers, root, call) as stream:
        members = read_members(stream.descriptor, stream.size)
        with staging(root) as stage:
            for index, member in enumerate(members):
                _unpack(stream.descriptor, stage, str(index), member)
            os.makedirs(top, 0o755, exist_ok=True)  # noqa: PTH103 - a text
            directories = _Directories(top)
            try:
                _check(directories, members)
                for index, member in enumerate(members):
                    _place(directories, stage, str(index), member)
            finally:
                directories.close()
    count = sum(member.kind != "directory" for member in members)
    return {"size": stream.size, "sha256": stream.sha256, "file_count": count}


class _Directories:
    """Directories of a tree, opened one below the other: what became a link meanwhile is not followed."""

    def __init__(self, top: str) -> None:
        self._names: list[str] = []
        self._descriptors = [os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]

    def open(self, names: list[str], *, make: bool) -> int | None:
        """A descriptor, good until the next call; None if it is not there and not to be made."""
        common = 0
        while common < min(len(names), len(self._names)) and names[common] == self._names[common]:
            common += 1
        while len(self._names) > common:
            self._names.pop()
            os.close(self._descriptors.pop())
        for name in names[common:]:
            if not self._enter(name, make=make):
                return None
        return self._descriptors[-1]

    def _enter(self, name: str, *, make: bool) -> bool:
        parent = self._descriptors[-1]
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
        try:
            self._descriptors.append(os.open(name, _DIRECTORY, dir_fd=parent))
        except FileNotFoundError:
            return False
        except OSError as error:
            path = "/".join([*self._names, name])
            raise CallError(
                "not_a_directory", f"{path}: is in the workspace, and no directory ({error.strerror})"
            ) from error
        self._names.append(name)
        return True

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def _unpack(archive: int, stage: int, name: str, member: Member) -> None:
    if member.kind == "link":
        os.symlink(member.target, name, dir_fd=stage)
    if member.kind != "file":
        return
    mode = 0o755 if member.executable else 0o644
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=stage)
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor
        position, end = member.offset, member.offset + member.size
        while position < end:
            data = os.pread(archive, min(_COPY_BYTES, end - position), position)
            if not data:
                raise CallError("io", "a program cut the archive while it was unpacked")
            position += file.write(data)


def _check(directories: _Directories, members: list[Member]) -> None:
    """Find what is in the way before the first file is moved."""
    for member in members:
        *parents, name = member.path.split("/")
        directory = directories.open(parents, make=False)
        if directory is None:
            continue
        try:
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            continue
        if is_directory and member.kind != "directory":
            raise CallError("is_a_directory", f"{member.path}: is a directory in the workspace")
        if member.kind == "directory" and not is_directory:
            raise CallError("not_a_directory", f"{member.path}: is in the workspace, and no directory")


def _place(directories: _Directories, stage: int, name: str, member: Member) -> None:
    parts = member.path.split("/")
    if member.kind == "directory":
        directories.open(parts, make=True)
        return
    directory = directories.open(parts[:-1], make=True)
    if directory is None:
        raise CallError("io", f"{member.path}: a program removed the directory that it was to lie in")
    os.rename(name, parts[-1], src_dir_fd=stage, dst_dir_fd=directory)
