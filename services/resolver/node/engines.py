"""Whether a package asks for a newer Node than the sandbox has."""

from __future__ import annotations

import re

MAX_LENGTH = 200
# One comparator; what sets only an upper bound asks for nothing newer.
COMPARATOR = re.compile(r"(?P<operator><=|<|>=|>|=|\^|~)?\s*v?(?P<version>\d+(?:\.\d+){0,2})")


def needs_newer(wanted: str, version: str) -> bool:
    """Whether every alternative of an `engines` range begins above the version; unreadable ranges ask for nothing."""
    if len(wanted) > MAX_LENGTH:
        return False
    alternatives = [_lowest(part) for part in wanted.split("||")]
    return all(lowest > _numbers(version) for lowest in alternatives)


def _lowest(alternative: str) -> tuple[int, ...]:
    bounds = [
        _numbers(match["version"]) for match in COMPARATOR.finditer(alternative) if match["operator"] not in {"<", "<="}
    ]
    return min(bounds, default=())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part[:9]) for part in re.findall(r"\d+", version)[:3])
