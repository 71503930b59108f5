"""The files of Go in a workspace, by directory: each directory is a package."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from services.resolver.go.scan import GoFile, is_source, is_test, scan_file
from services.resolver.paths import join, normal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

MOD, WORK, SUM = "go.mod", "go.work", "go.sum"
# Directories that no pattern of the go command enters.
SKIPPED = frozenset({"testdata", "vendor"})
# File names that are built for one system or processor only.
SYSTEMS = re.compile(
    r".*_(?:aix|android|darwin|dragonfly|freebsd|illumos|ios|js|linux|netbsd|openbsd|plan9|solaris|wasip1|windows"
    r"|386|amd64|arm|arm64|loong64|mips|mipsle|mips64|mips64le|ppc64|ppc64le|riscv64|s390x|wasm)(?:_test)?\.go"
)
OTHER_SYSTEM = re.compile(r".*_(?:aix|android|darwin|dragonfly|freebsd|illumos|ios|js|netbsd|openbsd|plan9|solaris"
                          r"|wasip1|windows)(?:_(?:amd64|arm64|386|arm|wasm))?(?:_test)?\.go")  # fmt: skip


def directory_of(path: str) -> str:
    """The directory of a file; empty for the workspace's root."""
    return path.rpartition("/")[0]


def resolved(directory: str, relative: str) -> str | None:
    """The directory that a relative path leads to from another; None if that is outside, or is absolute."""
    return None if relative.startswith("/") else normal(join(directory, relative))


class Sources:
    """The packages of a workspace; each file is scanned once."""

    def __init__(self, files: Mapping[str, bytes], tree: Collection[str]) -> None:
        self.files = files
        self.tree = frozenset(tree)
        self._scanned: dict[str, GoFile] = {}
        self._packages: dict[str, list[str]] = {}
        for path in sorted(self.tree):
            if is_source(path):
                self._packages.setdefault(directory_of(path), []).append(path)

    def scan(self, path: str) -> GoFile:
        """What a file says; of a file that was not read, nothing."""
        if path not in self._scanned:
            self._scanned[path] = scan_file(self.files.get(path, b""))
        return self._scanned[path]

    def has_package(self, directory: str) -> bool:
        """Whether a directory holds files of Go."""
        return directory in self._packages

    def packages(self, below: str = "") -> list[str]:
        """The directories of the module in a directory: what lies in a module of its own is left out."""
        prefix = f"{below}/" if below else ""
        return [
            directory
            for directory in self._packages
            if (directory == below or directory.startswith(prefix)) and self.is_entered(directory, below)
        ]

    def packages_anywhere(self) -> list[str]:
        """The directories of all modules."""
        return [directory for directory in self._packages if _is_visible(directory)]

    def is_entered(self, directory: str, module: str) -> bool:
        """Whether a directory belongs to the module in another."""
        inside = directory[len(module) :].strip("/")
        parts = inside.split("/") if inside else []
        if not _is_visible(inside):
            return False
        above = [join(module, "/".join(parts[: count + 1])) for count in range(len(parts))]
        return not any(join(place, MOD) in self.tree for place in above)

    def built(self, directory: str, *, tests: bool = False) -> Sequence[str]:
        """The files that are built with their directory."""
        found = [path for path in self._packages.get(directory, ()) if tests or not is_test(path)]
        return [path for path in found if not self.scan(path).ignored and not is_hidden(path)]

    def tests(self, directory: str) -> Sequence[str]:
        """The files of a package's tests."""
        return [path for path in self._packages.get(directory, ()) if is_test(path) and not is_hidden(path)]

    def mains(self, directory: str) -> list[str]:
        """The files of a directory that start a program here."""
        return [path for path in self.built(directory) if self.scan(path).has_main and not OTHER_SYSTEM.fullmatch(path)]

    def is_constrained(self, path: str) -> bool:
        """Whether a file is built in some cases only."""
        return self.scan(path).constrained or SYSTEMS.fullmatch(path) is not None


def _is_visible(directory: str) -> bool:
    parts = directory.split("/") if directory else []
    return not any(part in SKIPPED or part.startswith((".", "_")) for part in parts)


def is_hidden(path: str) -> bool:
    """Whether the go command passes over a file because of its name."""
    return path.rpartition("/")[2].startswith((".", "_"))
