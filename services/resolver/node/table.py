"""Which names are known: Node's own modules, popular packages of npm, and names that are often confused."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from services.resolver.model import NoticeKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DATA = files("services.resolver.node").joinpath("data")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-."
# Shorter names are one edit away from too many others.
MIN_SUGGESTED_LENGTH = 4
MAX_SUGGESTED_LENGTH = 40
ORNAMENT = re.compile(r"[-._]|(?:js|node)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageTable:
    """The known packages, by rank; names that mislead, with what was meant; names for files of one's own.

    `placeholders` are packages named like a module of Node that hold nothing, or an old copy.
    """

    ranks: Mapping[str, int]
    confusions: Mapping[str, str]
    generic: frozenset[str]
    placeholders: frozenset[str]
    loaded_by_others: frozenset[str]
    by_letters: Mapping[str, str]

    def knows(self, name: str) -> bool:
        """Whether the name alone is enough to install the package."""
        return name in self.ranks and name not in self.confusions

    def note(self, name: str) -> str:
        """What was probably meant by a name that is not known; empty if nothing is near."""
        if name in self.confusions:
            return self.confusions[name]
        if name in self.generic:
            return "a name for one's own module; if it is yours, import it as './…'"
        meant = self.suggest(name)
        return f"{meant} may be meant" if meant else ""

    def verdict(self, name: str) -> NoticeKind:
        """What is the matter with a name that is not known."""
        if name in self.confusions:
            return NoticeKind.NAME_CONFUSED
        return NoticeKind.NAME_GENERIC if name in self.generic else NoticeKind.NAME_UNKNOWN

    def suggest(self, name: str) -> str:
        """The most popular package whose name is one slip away, or the same letters; empty if there is none."""
        lower = name.lower()
        same = self.by_letters.get(ORNAMENT.sub("", lower), "")
        if same and same != name:
            return same
        if not MIN_SUGGESTED_LENGTH <= len(name) <= MAX_SUGGESTED_LENGTH:
            return ""
        near = [edit for edit in _edits(lower) if edit in self.ranks and edit != name and self.knows(edit)]
        return min(near, key=self.ranks.__getitem__, default="")


@cache
def package_table() -> PackageTable:
    """The table, read once in a process."""
    curated = tomllib.loads(_text("confusions.toml"))
    ranks = {name: rank for rank, name in enumerate(_lines("packages.txt"))}
    by_letters: dict[str, str] = {}
    for name in ranks:
        by_letters.setdefault(ORNAMENT.sub("", name.lower()), name)
    return PackageTable(
        ranks=ranks,
        confusions=curated["confusions"],
        generic=frozenset(" ".join(_lines("struck.txt")).split()),
        placeholders=frozenset(curated["placeholders"]["names"]),
        loaded_by_others=frozenset(curated["loaded_by_others"]["names"]),
        by_letters=by_letters,
    )


@cache
def builtin_modules() -> frozenset[str]:
    """The modules of the sandbox's Node, as they may be named without `node:`; those that need it have it here."""
    return frozenset(_lines("builtins_24.txt"))


def _edits(name: str) -> Iterator[str]:
    """Every name that one letter more, less, other or swapped makes."""
    for index in range(len(name) + 1):
        before, after = name[:index], name[index:]
        for letter in LETTERS:
            yield before + letter + after
        if after:
            yield before + after[1:]
            for letter in LETTERS:
                yield before + letter + after[1:]
        if len(after) > 1:
            yield before + after[1] + after[0] + after[2:]


def _text(name: str) -> str:
    return DATA.joinpath(name).read_text(encoding="utf-8")


def _lines(name: str) -> list[str]:
    return [line for line in _text(name).splitlines() if line and not line.startswith("#")]
