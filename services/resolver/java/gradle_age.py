"""What a build asks of Gradle that an older one does not have, as far as its scripts show."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.java.catalog import NAME as CATALOG
from services.resolver.java.gradle_lexer import parse_script
from services.resolver.java.table import DATA
from services.resolver.paths import join

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from services.resolver.java.gradle_lexer import Statement

WRAPPER = "gradle/wrapper/gradle-wrapper.properties"
DISTRIBUTION = re.compile(
    rb"^[ \t]*distributionUrl[ \t]*[=:][^\r\n]{0,500}?gradle-(\d{1,3}(?:\.\d{1,3}){1,3})-", re.MULTILINE
)
KOTLIN_SINCE, CATALOGS_SINCE = "5.0", "7.0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """A place that needs a version of Gradle, and what stands there."""

    path: str
    line: int
    what: str
    version: str


def order_of(version: str) -> tuple[int, ...]:
    """By which versions are compared; what follows the numbers does not count."""
    match = re.match(r"\d{1,6}(?:\.\d{1,6}){0,3}", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def demands_of(files: Mapping[str, bytes], root: str, scripts: Sequence[str]) -> Iterator[Demand]:
    """What the build at a root asks for that Gradle did not always have."""
    wrapper = join(root, WRAPPER)
    match = DISTRIBUTION.search(files.get(wrapper, b""))
    if match is not None:
        line = files[wrapper].count(b"\n", 0, match.start()) + 1
        version = match[1].decode()
        yield Demand(path=wrapper, line=line, what="the wrapper", version=version)
    for path in scripts:
        if path.endswith(".kts"):
            yield Demand(path=path, line=1, what="a script in Kotlin", version=KOTLIN_SINCE)
            continue
        # What is no script that can be read, Gradle has its own words for.
        with suppress(ManifestError):
            for statement in parse_script(path, files[path]):
                yield from _demands(path, statement)
    if join(root, CATALOG) in files:
        yield Demand(path=join(root, CATALOG), line=1, what="a version catalog", version=CATALOGS_SINCE)


def _demands(path: str, first: Statement) -> Iterator[Demand]:
    pending = [first]
    since = _since()
    while pending:
        statement = pending.pop()
        tokens = statement.tokens
        for index, token in enumerate(tokens):
            if token.kind != "word":
                continue
            last = token.text.rpartition(".")[2]
            keys = (token.text, last, last + _follows(statement, index))
            version = next((since[key] for key in keys if key in since), "")
            if version:
                yield Demand(path=path, line=token.line, what=repr(token.text[:80]), version=version)
        pending += reversed(statement.block or [])


def _follows(statement: Statement, index: int) -> str:
    """What stands behind a word: `{` for its block, `(` for its arguments."""
    if index == len(statement.tokens) - 1:
        return "" if statement.block is None else "{"
    after = statement.tokens[index + 1]
    return "" if after.kind == "mark" and after.text != "(" else "("


@cache
def _since() -> Mapping[str, str]:
    rows = DATA.joinpath("gradle_newer.tsv").read_text(encoding="utf-8").splitlines()
    return dict(row.split("\t") for row in rows if row and not row.startswith("#"))
