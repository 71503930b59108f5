"""The order of versions in each ecosystem, as far as package rules need it."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from packaging.version import InvalidVersion, Version

_SEMVER = re.compile(
    r"v?(?P<numbers>[0-9]+(?:\.[0-9]+){0,2})(?:-(?P<before>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?"
)
_MAVEN = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]*")
_MAVEN_TOKEN = re.compile(r"(?P<separator>[._-]?)(?P<token>[0-9]+|[a-z+]+|(?=[._-]|\Z))")
_MAVEN_QUALIFIERS = ("alpha", "beta", "milestone", "rc", "snapshot", "", "sp")
_MAVEN_SPELLINGS = {"cr": "rc", "ga": "", "final": "", "release": ""}
_MAVEN_SHORT = {"a": "alpha", "b": "beta", "m": "milestone"}
_MAX_VERSION = 256

# One prefixed token of a Maven version: what stands before it, and a number or a lower-case word.
Token = tuple[str, int | str]


def order_of(ecosystem: str, version: str) -> Any | None:
    """Something that compares as the versions of an ecosystem do; None for what is no version there."""
    if len(version) > _MAX_VERSION or not version.isascii():
        return None
    return _ORDERS[ecosystem](version)


def _pep440(version: str) -> Version | None:
    try:
        return Version(version)
    except InvalidVersion:
        return None


def _semver(version: str) -> tuple[object, ...] | None:
    match = _SEMVER.fullmatch(version)
    if match is None:
        return None
    numbers = [int(number) for number in match["numbers"].split(".")]
    numbers += [0] * (3 - len(numbers))
    before = [
        # Numbers come before words.
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in (match["before"] or "").split(".")
        if part
    ]
    # A release comes after all that leads to it.
    return (*numbers, not before, tuple(before))


def _maven(version: str) -> object | None:
    return functools.cmp_to_key(_maven_compare)(_maven_tokens(version.lower())) if _MAVEN.fullmatch(version) else None


def _maven_compare(one: list[Token], other: list[Token]) -> int:
    """Negative, 0 or positive, by Maven's own order, as its POM reference specifies it."""
    for index in range(max(len(one), len(other))):
        ranks = _maven_rank(_maven_token(one, index, other)), _maven_rank(_maven_token(other, index, one))
        if ranks[0] != ranks[1]:
            return -1 if ranks[0] < ranks[1] else 1
    return 0


def _maven_token(tokens: list[Token], index: int, other: list[Token]) -> Token:
    if index < len(tokens):
        return tokens[index]
    # The shorter version is padded with what means nothing behind the other's separator.
    prefix, token = other[index]
    return (prefix, 0) if isinstance(token, int) else (prefix, "")


def _maven_tokens(version: str) -> list[Token]:
    found: list[Token] = []
    matches = [match for match in _MAVEN_TOKEN.finditer(version) if match["separator"] or match["token"]]
    for index, match in enumerate(matches):
        # Between digits and letters there is a hyphen that is not written.
        prefix = match["separator"].replace("_", "-") or ("-" if index else ".")
        word = match["token"] or "0"
        follows_number = index + 1 < len(matches) and not matches[index + 1]["separator"]
        if follows_number and word in _MAVEN_SHORT:
            word = _MAVEN_SHORT[word]
        found.append((prefix, int(word) if word.isdigit() else _MAVEN_SPELLINGS.get(word, word)))
    return _maven_trimmed(found)


def _maven_trimmed(tokens: list[Token]) -> list[Token]:
    """Without what means nothing at the end of the version and before each hyphen."""
    kept: list[Token] = []
    for token in reversed(tokens):
        at_end = not kept or kept[-1][0] == "-"
        if not (at_end and token[1] in {0, ""}):
            kept.append(token)
    return kept[::-1]


def _maven_rank(token: Token) -> tuple[int, int, int, str]:
    prefix, value = token
    if isinstance(value, int):
        return (3 if prefix == "." else 2, value, 0, "")
    if value in _MAVEN_QUALIFIERS:
        return (1, 0, _MAVEN_QUALIFIERS.index(value), "")
    return (1, 1, 0, value)


_ORDERS: Mapping[str, Callable[[str], Any | None]] = {"pypi": _pep440, "npm": _semver, "go": _semver, "maven": _maven}
