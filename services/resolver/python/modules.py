"""Where Python would look for a module among the workspace's own files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.resolver.paths import join

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SOURCE_SUFFIXES = (".py", ".pyw")
EXTENSION_SUFFIXES = (".so", ".pyd")
PACKAGE_FILE = "__init__.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class Local:
    """A module of the workspace: the files that importing it runs, and whether it is a bare directory."""

    files: tuple[str, ...]
    is_namespace: bool


class LocalModules:
    """The importable files of a workspace."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._files: set[str] = set()
        self._extensions: set[str] = set()
        self._directories: set[str] = set()
        for path in paths:
            directory, _, name = path.rpartition("/")
            if name.endswith(EXTENSION_SUFFIXES):
                self._extensions.add(join(directory, name.partition(".")[0]))
            elif not name.endswith(SOURCE_SUFFIXES):
                continue
            self._files.add(path)
            while directory and directory not in self._directories:
                self._directories.add(directory)
                directory = directory.rpartition("/")[0]

    def has_file(self, path: str) -> bool:
        """Whether the workspace has this Python file."""
        return path in self._files

    def has_directory(self, path: str) -> bool:
        """Whether a directory holds Python files at any depth."""
        return path in self._directories

    def find(self, module: str, names: Iterable[str], roots: Sequence[str]) -> Local | None:
        """The local module that an absolute import finds, with the submodules that `names` may be; None if none.

        As in Python, the first root with a module or a package wins, and a bare directory counts only after those.
        """
        top, *rest = module.split(".")
        for root in roots:
            if self._is_module(join(root, top)):
                return Local(files=self._run(join(root, top), rest, names), is_namespace=False)
        for root in roots:
            base = join(root, top)
            if base in self._directories:
                files = self._run(base, rest, names)
                return Local(files=files, is_namespace=True)
        return None

    def relative(self, importer: str, level: int, module: str, names: Iterable[str]) -> Local:
        """What a relative import in the file `importer` runs."""
        parts = importer.split("/")[:-level] if level <= importer.count("/") + 1 else []
        rest = module.split(".") if module else []
        return Local(files=self._run("/".join(parts), rest, names), is_namespace=False)

    def _is_module(self, base: str) -> bool:
        return f"{base}/{PACKAGE_FILE}" in self._files or bool(self._file(base)) or base in self._extensions

    def _file(self, base: str) -> str:
        return next((base + suffix for suffix in SOURCE_SUFFIXES if base + suffix in self._files), "")

    def _run(self, base: str, rest: list[str], names: Iterable[str]) -> tuple[str, ...]:
        """The files along `base.rest`, and those of its submodules `names`."""
        places = [base]
        for part in rest:
            places.append(join(places[-1], part))
        places.extend(join(places[-1], name) for name in names)
        candidates = (
            f"{place}/{PACKAGE_FILE}" if join(place, PACKAGE_FILE) in self._files else self._file(place)
            for place in places
            if place
        )
        return tuple(dict.fromkeys(path for path in candidates if path))
