"""Which distribution provides a module: the curated rows, then the table, the longest dotted prefix first."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA = files("services.resolver.python").joinpath("data")
PREFIX_MARK = "*"


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """A row: the module that matched, its requirement, whether it is curated, the only platform it installs on."""

    module: str
    requirement: str
    curated: bool
    platform: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportTable:
    """All rows; modules map to requirements, distributions to the platform that they are limited to."""

    aliases: Mapping[str, str]
    modules: Mapping[str, str]
    platform_of_module: Mapping[str, tuple[str, str]]
    platform_of_prefix: Mapping[str, str]

    def find(self, module: str) -> Provider | None:
        """The provider of a dotted module, by its longest known prefix."""
        parts = module.split(".")
        for length in range(len(parts), 0, -1):
            found = self._row(".".join(parts[:length]))
            if found is not None:
                return found
        return None

    def alternatives(self, module: str) -> frozenset[str]:
        """Other distributions that provide a module as well, by canonical name."""
        main, _, others = self.modules.get(module.partition(".")[0], "").partition("\t")
        return frozenset((main, *others.split()))

    def _row(self, module: str) -> Provider | None:
        if module in self.platform_of_module:
            requirement, platform = self.platform_of_module[module]
            return Provider(module=module, requirement=requirement, curated=True, platform=platform)
        if module in self.aliases:
            return Provider(module=module, requirement=self.aliases[module], curated=True)
        if module not in self.modules:
            return None
        requirement = self.modules[module].partition("\t")[0] or str(canonicalize_name(module))
        platform = next(
            (name for prefix, name in self.platform_of_prefix.items() if requirement.startswith(prefix)), ""
        )
        return Provider(module=module, requirement=requirement, curated=False, platform=platform)


@dataclass(frozen=True, kw_only=True, slots=True)
class StandardLibrary:
    """The standard library's names: those of the sandbox's Python, those that it lost, those of Python 2."""

    modules: frozenset[str]
    removed: Mapping[str, str]
    python2: Mapping[str, str]


@cache
def import_table() -> ImportTable:
    """The table, read once in a process."""
    curated = tomllib.loads(data_text("aliases.toml"))
    by_module = {}
    by_prefix = {}
    for platform, distributions in curated["platform_only"].items():
        for distribution, modules in distributions.items():
            if distribution.endswith(PREFIX_MARK):
                by_prefix[distribution.removesuffix(PREFIX_MARK)] = platform
            for module in modules:
                by_module[module] = (distribution.removesuffix(PREFIX_MARK), platform)
    return ImportTable(
        aliases=curated["modules"],
        modules=_pairs("modules.tsv"),
        platform_of_module=by_module,
        platform_of_prefix=by_prefix,
    )


@cache
def standard_library() -> StandardLibrary:
    """The names of the standard library, read once in a process."""
    return StandardLibrary(
        modules=frozenset(_pairs("stdlib_3.13.txt")), removed=_pairs("removed.txt"), python2=_pairs("python2.txt")
    )


def data_text(name: str) -> str:
    """A data file beside this module."""
    return DATA.joinpath(name).read_text(encoding="utf-8")


def _pairs(name: str) -> dict[str, str]:
    lines = (line.partition("\t") for line in data_text(name).splitlines() if not line.startswith("#"))
    return {first: second for first, _, second in lines}
