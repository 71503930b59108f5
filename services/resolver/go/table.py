"""Which import paths are known: the standard library's, popular modules, and what is often taken for them."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from services.resolver.go.names import MAJOR, covers, is_path, is_remote, module_guess

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA = files("services.resolver.go").joinpath("data")
STANDARD = "stdlib_1.27.txt"
# Of the toolchain, and no packages of anybody's.
PSEUDO = frozenset({"C", "unsafe", "builtin"})
LIKENESS = 0.88


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageTable:
    """The tables of the data directory."""

    standard: frozenset[str]
    popular: tuple[str, ...]
    meant: Mapping[str, str]
    placeholder_hosts: frozenset[str]
    placeholder_owners: frozenset[str]

    def is_standard(self, path: str) -> bool:
        """Whether the toolchain itself provides a package."""
        return path in self.standard or path in PSEUDO

    def module_of(self, path: str) -> str:
        """The module that provides a package: a popular one, else by the habits of its host."""
        known = [module for module in self.popular if covers(module, path)]
        return max(known, key=len, default="") or module_guess(path)

    def is_placeholder(self, path: str) -> bool:
        """Whether a path stands for the author's own module, as in examples."""
        host, _, rest = path.partition("/")
        return host in self.placeholder_hosts or rest.partition("/")[0].lower() in self.placeholder_owners

    def is_wrong(self, path: str) -> bool:
        """Whether a path is known to be none of a published module."""
        return self.is_placeholder(path) or path in self.meant or module_guess(path) in self.meant

    def note(self, path: str) -> str:
        """Why nothing can be installed for a path, or what was meant; empty if there is nothing to say."""
        if path.startswith((".", "/")):
            return "a module's packages are imported by their full path, module and directory, not by ./ or /"
        meant = self.meant.get(path) or self.meant.get(module_guess(path), "")
        if meant:
            return f"probably {meant} is meant"
        if not is_path(path):
            return "this is no import path"
        if not is_remote(path):
            return "it is not in Go's standard library, and no directory of the program has this path"
        if self.is_placeholder(path):
            return "this is a path of the program's own, and its directory is missing"
        return self._alike(path)

    def _alike(self, path: str) -> str:
        """A popular module with nearly the same path."""
        module = _without_major(self.module_of(path))
        known = {_without_major(item): item for item in self.popular}
        if module in known:
            return ""
        close = get_close_matches(module, known, n=1, cutoff=LIKENESS)
        return f"probably {known[close[0]]} is meant" if close else ""


def _without_major(module: str) -> str:
    head, _, last = module.rpartition("/")
    return head if head and MAJOR.fullmatch(last) else module


@cache
def package_table() -> PackageTable:
    """The table, read once."""
    confusions = tomllib.loads(DATA.joinpath("confusions.toml").read_text(encoding="utf-8"))
    return PackageTable(
        standard=frozenset(_rows(STANDARD)),
        popular=tuple(_rows("modules.txt")),
        meant=confusions["meant"],
        placeholder_hosts=frozenset(confusions["placeholders"]["hosts"]),
        placeholder_owners=frozenset(confusions["placeholders"]["owners"]),
    )


def _rows(name: str) -> list[str]:
    text = DATA.joinpath(name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if re.match(r"[^#\s]", line)]
