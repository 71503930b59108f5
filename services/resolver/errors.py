"""What can be wrong with the resolver's input. Each error carries its facts; `__str__` words them for a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_SHOWN = 20


class ResolverError(Exception):
    """Base of every error that the resolver's input can cause."""


@dataclass(kw_only=True, eq=False)
class ManifestError(ResolverError):
    """A manifest cannot be used. `line` and `column` count from 1 and are 0 where they are not known."""

    path: str
    reason: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Word it as compilers do: path, line, column, reason."""
        place = ":".join(str(part) for part in (self.path, self.line, self.column) if part)
        return f"{place}: {self.reason}"


@dataclass(kw_only=True, eq=False)
class ToolchainError(ManifestError):
    """A manifest asks for a version of a tool that the sandbox's image does not have.

    `tool` is the toolchain's name, `word` its name for a person; `fits` tells whether a full version would do.
    """

    tool: str
    word: str
    fits: Callable[[str], bool]


@dataclass(kw_only=True, eq=False)
class ManifestTooLargeError(ManifestError):
    """A manifest, or the program itself, is above the limit for one file."""


@dataclass(kw_only=True, eq=False)
class TargetNotFoundError(ResolverError):
    """The program to run is not in the workspace, or nothing in the workspace is a program.

    `what` is the word for what was looked for: a file, a module, a script.
    """

    program: str
    candidates: tuple[str, ...] = ()
    what: str = "file"

    def __str__(self) -> str:
        """Name what was looked for and what there is."""
        if not self.program:
            return "no program found: name the file to run, or add a main.py, index.js, main.go or Main.java"
        hint = f"; there is {', '.join(self.candidates)}" if self.candidates else ""
        return f"{self.program}: no such {self.what} in the workspace{hint}"


@dataclass(kw_only=True, eq=False)
class TargetAmbiguousError(ResolverError):
    """The workspace holds several programs and none has a usual name."""

    candidates: tuple[str, ...]

    def __str__(self) -> str:
        """List the candidates."""
        return f"which program? name one of: {', '.join(self.candidates)}"


@dataclass(kw_only=True, eq=False)
class TargetUnsupportedError(ResolverError):
    """No planner knows how to run this kind of file, or not the one of the language that was asked for."""

    program: str
    language: str = ""

    def __str__(self) -> str:
        """Say which file."""
        if self.language:
            return f"{self.program}: no program of {self.language}"
        return f"{self.program}: no planner for this kind of file"


@dataclass(kw_only=True, eq=False)
class UnknownLanguageError(ResolverError):
    """A program is asked to be run by a language that no planner serves."""

    language: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        """Name it, and those that there are."""
        return f"{self.language[:80]!r}: no such language; there are {', '.join(self.known)}"


@dataclass(kw_only=True, eq=False)
class UnknownEcosystemError(ResolverError):
    """A caller named an ecosystem that no planner serves."""

    ecosystem: str

    def __str__(self) -> str:
        """Name it."""
        return f"{self.ecosystem!r}: unknown ecosystem"


@dataclass(kw_only=True, eq=False)
class ToolchainMissingError(ResolverError):
    """The context does not name the version of a tool that the plan depends on."""

    tool: str

    def __str__(self) -> str:
        """Name the tool."""
        return f"toolchain version of {self.tool} not given"


@dataclass(kw_only=True, eq=False)
class InventoryError(ResolverError):
    """An inventory is not what it should be. `path` says where, as in `packages[3].name`."""

    path: str
    reason: str

    def __str__(self) -> str:
        """Say where and what."""
        return f"inventory: {self.path}: {self.reason}"


@dataclass(kw_only=True, eq=False)
class LockError(ResolverError):
    """A lock cannot be read. `line` counts from 1 and is 0 where it is not known; `name` is the lock's, if any."""

    line: int
    reason: str
    name: str = ""

    def __str__(self) -> str:
        """Say where and what."""
        place = f"line {self.line}: " if self.line else ""
        return f"{self.name or 'lock'}: {place}{self.reason}"


@dataclass(kw_only=True, eq=False)
class InstallMismatchError(ResolverError):
    """What is installed is not what was locked. Every list holds `name==version` or `name: file`."""

    absent: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    other_version: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    def __str__(self) -> str:
        """List what differs, kind by kind."""
        kinds = (
            ("not installed", self.absent),
            ("not in the lock", self.unexpected),
            ("another version", self.other_version),
            ("files missing or changed", self.damaged),
        )
        return "; ".join(f"{name}: {', '.join(_first(items))}" for name, items in kinds if items)


def _first(items: tuple[str, ...]) -> list[str]:
    """What a person reads of a long list."""
    rest = len(items) - MAX_SHOWN
    return [*sorted(items)[:MAX_SHOWN], *([f"and {rest} more"] if rest > 0 else [])]
