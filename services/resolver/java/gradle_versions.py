"""Gradle's ways to write a version, as Maven has them."""

from __future__ import annotations

import re

from services.resolver.java.coordinates import NEWEST

PREFIX = re.compile(r"(?P<lead>\d{1,9}(?:\.\d{1,9}){0,5})\.\+")


def plain_version(text: str) -> str:
    """A version or a range; what asks for the newest is `RELEASE`, and `1.2.+` the range of all that begin so."""
    version = text.strip().partition("!!")[0].strip()
    if version == "+" or version.startswith("latest."):
        return NEWEST
    match = PREFIX.fullmatch(version)
    if match:
        parts = match["lead"].split(".")
        above = ".".join([*parts[:-1], str(int(parts[-1]) + 1)])
        return f"[{match['lead']},{above})"
    return version
