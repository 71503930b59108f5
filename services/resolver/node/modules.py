"""Where Node and TypeScript would look for a file among the workspace's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.resolver.paths import WORKSPACE, join, normal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

EXTENSIONS = (".js", ".mjs", ".cjs", ".json", ".node", ".ts", ".tsx", ".mts", ".cts", ".jsx")
# TypeScript lets an import name the file that a compiler would write.
WRITTEN_FOR = {
    ".js": (".ts", ".tsx", ".jsx"),
    ".jsx": (".tsx",),
    ".mjs": (".mts",),
    ".cjs": (".cts",),
}
TYPESCRIPT = (".ts", ".tsx", ".mts", ".cts")


@dataclass(frozen=True, kw_only=True, slots=True)
class Local:
    """A file of the workspace that an import finds; `exact` unless an extension or an index had to be added."""

    path: str
    exact: bool


class LocalFiles:
    """The files of a workspace, found as Node and TypeScript find them."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Take the paths of all files, relative to the workspace."""
        self._paths = frozenset(paths)

    def has_file(self, path: str) -> bool:
        """Whether the workspace has this file."""
        return path in self._paths

    def relative(self, importer: str, name: str) -> str | None:
        """The path that a relative or absolute name means, without looking; None if it leaves the workspace."""
        if name.startswith("/"):
            inside = name == WORKSPACE or name.startswith(f"{WORKSPACE}/")
            return normal(name[len(WORKSPACE) + 1 :]) if inside else None
        return normal(join(importer.rpartition("/")[0], name))

    def find(self, base: str, main: str = "") -> Local | None:
        """The file that a path means: itself, with an extension, or the main file of a directory."""
        base = base.rstrip("/")
        if base in self._paths:
            return Local(path=base, exact=True)
        for candidate in _beside(base):
            if candidate in self._paths:
                return Local(path=candidate, exact=False)
        if main:
            found = self.find(normal(join(base, main)) or base)
            if found is not None:
                return Local(path=found.path, exact=False)
        indexes = (join(base, f"index{extension}") for extension in EXTENSIONS)
        return next((Local(path=index, exact=False) for index in indexes if index in self._paths), None)


def _beside(base: str) -> Iterator[str]:
    if not base:
        return
    for written, sources in WRITTEN_FOR.items():
        if base.endswith(written):
            for source in sources:
                yield base.removesuffix(written) + source
    for extension in EXTENSIONS:
        yield base + extension
