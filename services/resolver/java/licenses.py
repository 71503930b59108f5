"""One SPDX expression for the licences that a POM, or one above it, names."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from services.resolver.java.table import DATA
from services.resolver.licenses import MAX_RAW_TEXT, NO_ASSERTION, spdx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.resolver.java.inventory import InstalledFile, License

MAX_DEPTH = 20
NOISE = re.compile(r"[^a-z0-9.+]+")
URL = re.compile(r"^(?:https?://)?(?:www\.)?")


def license_of(identity: str, poms: Mapping[str, InstalledFile]) -> tuple[str, str]:
    """The expression, and the raw text where only that is known; `poms` go by `group:artifact:version`.

    A POM without licences has those of the nearest one above it that names some. Of several, the user may choose.
    """
    for _ in range(MAX_DEPTH):
        pom = poms.get(identity)
        if pom is None:
            break
        if pom.licenses:
            return _expression(pom.licenses)
        identity = pom.parent
    return NO_ASSERTION, ""


def _expression(licenses: Sequence[License]) -> tuple[str, str]:
    found = [_one(item) for item in licenses]
    known = sorted({item for item in found if item})
    if known and all(found):
        return (
            known[0] if len(known) == 1 else " OR ".join(f"({item})" if " " in item else item for item in known)
        ), ""
    texts = [item.name or item.url for item in licenses]
    return NO_ASSERTION, "; ".join(text for text in texts if text)[:MAX_RAW_TEXT]


def _one(item: License) -> str | None:
    named = spdx(item.name.strip())
    if named:
        return named
    names = _names()
    return names.get(_plain(item.name)) or names.get(_plain_url(item.url))


def _plain(name: str) -> str:
    text = NOISE.sub(" ", name.lower().replace("version", "").replace("licence", "license"))
    return " ".join(word.removeprefix("v") if word[1:2].isdigit() else word for word in text.split() if word != "the")


def _plain_url(url: str) -> str:
    return URL.sub("", url.strip().lower()).rstrip("/").removesuffix(".txt").removesuffix(".html")


@cache
def _names() -> dict[str, str]:
    rows: dict[str, str] = {}
    for line in DATA.joinpath("licenses.tsv").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            expression, *names = line.split("\t")
            rows |= {(_plain_url(name) if "/" in name else _plain(name)): expression for name in names}
    return rows
