"""Which licence a module has: by the files in its directory, as a module says it nowhere else."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from services.resolver.licenses import NO_ASSERTION

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA = files("services.resolver.go").joinpath("data")
MAX_FIRST_LINE = 200
NO_WORD = re.compile(r"[\W_]+")
# `LICENSE-MIT` beside `LICENSE-APACHE`: one of them may be chosen.
OF_A_CHOICE = re.compile(r"(?i)licen[cs]e[-.](?!md\Z|txt\Z|rst\Z).*")


@dataclass(frozen=True, kw_only=True, slots=True)
class LicenseFile:
    """A file of a module's directory that tells its licence, cut."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """What a licence's text holds, and what it does not."""

    id: str
    all: tuple[str, ...]
    none: tuple[str, ...]


def license_of(found: Sequence[LicenseFile]) -> tuple[str, str]:
    """The SPDX expression, and the first line of the file where no licence is recognised."""
    named = [(file, _names(file.text)) for file in found]
    known = [(file, names) for file, names in named if names]
    if not known:
        lines = [line.strip() for file in found for line in file.text.splitlines() if line.strip()]
        return NO_ASSERTION, lines[0][:MAX_FIRST_LINE] if lines else ""
    if len(known) > 1 and all(OF_A_CHOICE.fullmatch(file.name) for file, _ in known):
        choices = sorted({" AND ".join(names) for _, names in known})
        return " OR ".join(f"({choice})" if " " in choice else choice for choice in choices), ""
    return " AND ".join(sorted({name for _, names in known for name in names})), ""


def _names(text: str) -> list[str]:
    """The licences whose words a text holds, sorted."""
    words = f" {NO_WORD.sub(' ', text.lower()).strip()} "
    return sorted({row.id for row in _rows() if _holds(row, words)})


def _holds(row: _Row, words: str) -> bool:
    return all(phrase in words for phrase in row.all) and not any(phrase in words for phrase in row.none)


@cache
def _rows() -> tuple[_Row, ...]:
    document = tomllib.loads(DATA.joinpath("licenses.toml").read_text(encoding="utf-8"))
    return tuple(
        _Row(id=row["id"], all=tuple(row["all"]), none=tuple(row.get("none", ()))) for row in document["license"]
    )
