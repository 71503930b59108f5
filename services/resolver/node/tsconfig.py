"""`tsconfig.json`: which names are aliases of local files, and who makes JSX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.resolver.node.json_text import read_relaxed
from services.resolver.paths import directories_above, join, normal

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "tsconfig.json"
MAX_EXTENDS = 10
MAX_ALIASES = 200
MAX_TARGETS = 20
MAX_TARGET_LENGTH = 4_096
# The paths that are looked for by one specifier.
MAX_PATHS = 100
AUTOMATIC_JSX = frozenset({"react-jsx", "react-jsxdev"})
DEFAULT_JSX_SOURCE = "react"


@dataclass(frozen=True, kw_only=True, slots=True)
class Alias:
    """One row of `paths`: what stands before and after the star, if there is one, and the targets."""

    before: str
    after: str
    star: bool
    targets: tuple[str, ...]

    def apply(self, specifier: str) -> tuple[str, ...]:
        """The paths that the specifier means by this row; empty if the row is about others."""
        if not self.star:
            return self.targets if specifier == self.before else ()
        long_enough = len(specifier) >= len(self.before) + len(self.after)
        if not (long_enough and specifier.startswith(self.before) and specifier.endswith(self.after)):
            return ()
        middle = specifier[len(self.before) : len(specifier) - len(self.after)]
        return tuple(target.replace("*", middle, 1) for target in self.targets)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiler:
    """What counts of a tsconfig.

    `base` is the directory of bare names, None if there is none; `jsx_source` is the package that JSX needs although no
    import names it, or empty. `problem` is the file that could not be read.
    """

    aliases: tuple[Alias, ...] = ()
    base: str | None = None
    jsx_source: str = ""
    problem: str = ""

    def paths_of(self, specifier: str) -> tuple[str, ...]:
        """The local paths that a bare name may mean, the likeliest first; aliases that name it exactly come first."""
        by_alias = [target for alias in self.aliases for target in alias.apply(specifier)]
        return (*by_alias[:MAX_PATHS], *([join(self.base, specifier)] if self.base is not None else []))


class Compilers:
    """The tsconfig that counts for each directory."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Take the bytes of the workspace's files."""
        self._files = files
        self._read: dict[str, Compiler] = {}
        self._for_directory: dict[str, Compiler] = {}

    def of(self, path: str) -> Compiler:
        """The settings for a file: those of the nearest tsconfig.json above it."""
        directory = path.rpartition("/")[0]
        if directory not in self._for_directory:
            places = (join(above, NAME) for above in directories_above(path))
            nearest = next((place for place in places if place in self._files), "")
            self._for_directory[directory] = self._at(nearest) if nearest else Compiler()
        return self._for_directory[directory]

    def _at(self, path: str) -> Compiler:
        if path not in self._read:
            self._read[path] = self._settings(path)
        return self._read[path]

    def _settings(self, path: str) -> Compiler:
        """The options of a tsconfig, with those that it extends behind its own."""
        found: dict[str, tuple[str, Any]] = {}
        place = path
        for _ in range(MAX_EXTENDS):
            document = read_relaxed(self._files[place])
            if document is None:
                return Compiler(problem=place)
            options = document.get("compilerOptions")
            directory = place.rpartition("/")[0]
            for name, value in options.items() if isinstance(options, dict) else ():
                found.setdefault(name, (directory, value))
            place = self._extended(place, document.get("extends"))
            if not place:
                break
        return _compiler(found)

    def _extended(self, place: str, extends: object) -> str:
        """The file of the workspace that a tsconfig extends, or the empty string."""
        if not isinstance(extends, str) or not extends.startswith("."):
            return ""
        base = normal(join(place.rpartition("/")[0], extends)) or ""
        return next((path for path in (base, f"{base}.json") if path in self._files), "")


def _compiler(options: Mapping[str, tuple[str, Any]]) -> Compiler:
    base = None
    directory, value = options.get("baseUrl", ("", None))
    if isinstance(value, str):
        base = normal(join(directory, value))
    paths_directory, paths = options.get("paths", ("", None))
    root = base if base is not None else paths_directory
    rows = list(paths.items())[:MAX_ALIASES] if isinstance(paths, dict) else []
    aliases = [_alias(root, name, targets) for name, targets in rows if isinstance(targets, list)]
    jsx, source = options.get("jsx", ("", ""))[1], options.get("jsxImportSource", ("", ""))[1]
    automatic = source if isinstance(source, str) and source else DEFAULT_JSX_SOURCE
    return Compiler(
        aliases=tuple(sorted(aliases, key=lambda alias: (alias.star, -len(alias.before)))),
        base=base,
        jsx_source=automatic if isinstance(jsx, str) and jsx in AUTOMATIC_JSX else "",
    )


def _alias(root: str, name: str, targets: list[object]) -> Alias:
    before, star, after = name.partition("*")
    texts = (target for target in targets[:MAX_TARGETS] if isinstance(target, str))
    places = (normal(join(root, target)) for target in texts if len(target) <= MAX_TARGET_LENGTH)
    return Alias(before=before, after=after, star=bool(star), targets=tuple(place for place in places if place))
