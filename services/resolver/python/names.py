"""Names of packages and modules that were invented, misspelt or taken for others, and what was probably meant."""

from __future__ import annotations

import re
import string
import tomllib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from services.resolver.python.table import data_text, import_table, standard_library

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Shorter names are one letter from everything.
MIN_COMPARED = 4
MAX_COMPARED = 60
LETTERS = f"{string.ascii_lowercase}{string.digits}-"
# What is put before or behind a name that is right by itself.
PREFIXES = ("python-", "py-", "lib", "py")
SUFFIXES = ("-python", "-python3", "-py", "-lib", "-library", "-sdk", "-client", "-api", "-package", "-module")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Confusions:
    distributions: Mapping[str, str]
    notes: Mapping[str, str]


def confusion(name: str) -> str:
    """Why a requirement of this canonical name is probably not what is meant, or the empty string."""
    known = _confusions()
    if name in known.notes:
        return known.notes[name]
    if name in known.distributions:
        return f"did you mean {known.distributions[name]}?"
    if _is_standard(name):
        return "it is a part of Python, and needs no package"
    return ""


def is_popular(name: str) -> bool:
    """Whether a canonical name is among the most downloaded of PyPI."""
    return name in popular_ranks()


def nearest(name: str) -> str:
    """The popular name that a canonical name, which is none, was probably meant to be; empty if there is no such."""
    ranks = popular_ranks()
    if name in ranks or not MIN_COMPARED <= len(name) <= MAX_COMPARED:
        return ""
    found = {edited for edited in _edits(name) if edited in ranks}
    if not found:
        found = {bare for bare in _without_affixes(name) if bare in ranks and len(bare) >= MIN_COMPARED}
    return min(found, key=lambda item: ranks[item], default="")


def meant(name: str) -> str:
    """What a name that PyPI does not have was probably meant to be, as a requirement; empty if nobody knows."""
    provider = import_table().aliases.get(name) or import_table().aliases.get(name.replace("-", "_"))
    known = _confusions().distributions.get(name)
    return known or provider or nearest(name)


def missing_package(name: str) -> str:
    """What to do about a requirement that PyPI does not have, in a sentence."""
    name = name[:MAX_COMPARED]
    canonical = str(canonicalize_name(name))
    if _is_standard(canonical):
        return f"{name} is a part of Python; remove it from the requirements"
    if is_generic(name):
        return f"There is no package {name!r} on PyPI; a module of this name is usually a file of one's own"
    found = meant(canonical)
    question = f"did you mean {found!r}?" if found else "check how it is spelt, or whether it exists at all"
    return f"There is no package {name!r} on PyPI; {question}"


def is_generic(module: str) -> bool:
    """Whether a module's name is one that people give to files of their own."""
    return module.partition(".")[0] in generic_names()


def unknown_module(module: str) -> str:
    """What an import that nothing is known to provide was probably meant to be; empty if nobody knows."""
    top = module.partition(".")[0]
    if is_generic(top):
        return f"{top} is a usual name for a file of one's own, which is not there"
    near = _nearest_module(top)
    return f"did you mean {near}?" if near else ""


@cache
def popular_ranks() -> Mapping[str, int]:
    """The most downloaded distributions, read once in a process."""
    names = (line for line in data_text("popular.txt").splitlines() if not line.startswith("#"))
    return {name: rank for rank, name in enumerate(names)}


@cache
def generic_names() -> frozenset[str]:
    """The struck names of the table, read once in a process."""
    return frozenset(data_text("struck.txt").split())


@cache
def _confusions() -> _Confusions:
    document = tomllib.loads(data_text("confusions.toml"))
    return _Confusions(distributions=document["distributions"], notes=document["notes"])


def _is_standard(name: str) -> bool:
    """Whether a name is a module of Python's own; what PyPI has by such a name is for Pythons of long ago."""
    return name.replace("-", "_") in standard_library().modules


def _nearest_module(top: str) -> str:
    if not MIN_COMPARED <= len(top) <= MAX_COMPARED:
        return ""
    table, standard = import_table(), standard_library().modules
    ranks = popular_ranks()
    edits = {edited.replace("-", "_") for edited in _edits(top.lower())}
    if edits & standard:
        return min(edits & standard)
    known = [item for item in edits if item in table.modules and canonicalize_name(item) in ranks]
    return min(known, key=lambda item: ranks[str(canonicalize_name(item))], default="")


def _edits(name: str) -> Iterator[str]:
    """All names one letter left out, added, changed or swapped away."""
    for index in range(len(name) + 1):
        head, tail = name[:index], name[index:]
        if tail:
            yield head + tail[1:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        for letter in LETTERS:
            yield head + letter + tail
            if tail:
                yield head + letter + tail[1:]


def _without_affixes(name: str) -> Iterator[str]:
    yield from (name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix))
    yield from (name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix))
    yield re.sub(r"-?\d+$", "", name)
