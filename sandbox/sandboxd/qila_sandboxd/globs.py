"""Patterns of paths, matched in linear time: `*`, `?` and `[...]` within a name, `**` any number of names."""

from __future__ import annotations

import fnmatch
import re

from .paths import CallError

MAXIMUM_PATTERNS = 16
MAXIMUM_PATTERN_BYTES = 1024

# None stands for "**".
_Parts = list["re.Pattern[str] | None"]


class Globs:
    """Several patterns; none at all matches everything.

    Raises:
        CallError: `invalid_path`, for a pattern that breaks a rule.
    """

    def __init__(self, patterns: list[str]) -> None:
        if len(patterns) > MAXIMUM_PATTERNS:
            raise CallError("invalid_path", f"at most {MAXIMUM_PATTERNS} patterns")
        self._patterns = [_parsed(pattern) for pattern in patterns]

    def match(self, path: str) -> bool:
        """Whether a relative path matches one of them as a whole."""
        if not self._patterns:
            return True
        names = path.split("/")
        return any(_matches(parts, names) for parts in self._patterns)


def _parsed(pattern: str) -> _Parts:
    if not pattern or len(pattern.encode(errors="replace")) > MAXIMUM_PATTERN_BYTES:
        raise CallError("invalid_path", f"a pattern has 1 to {MAXIMUM_PATTERN_BYTES} bytes")
    parts: _Parts = []
    for part in pattern.split("/"):
        if part in {"", ".", ".."}:
            raise CallError("invalid_path", f"{pattern}: a pattern is relative, without empty parts, `.` and `..`")
        if part == "**":
            # Two in a row say no more than one.
            if not parts or parts[-1] is not None:
                parts.append(None)
            continue
        try:
            # Python's translation finds each text between stars once, by atomic groups: no backtracking.
            parts.append(re.compile(fnmatch.translate(part)))
        except re.error as error:
            raise CallError("invalid_path", f"{pattern}: not a pattern: {error}") from error
    return parts


def _matches(parts: _Parts, names: list[str]) -> bool:
    """Goes back to the last `**` alone, as what an earlier one could take, the last one can take too."""
    part = name = 0
    back_part, back_name = -1, 0
    while name < len(names):
        wanted = parts[part] if part < len(parts) else _NOTHING
        if wanted is None:
            back_part, back_name = part, name
            part += 1
        elif wanted.match(names[name]):
            part += 1
            name += 1
        elif back_part >= 0:
            back_name += 1
            part, name = back_part + 1, back_name
        else:
            return False
    return all(rest is None for rest in parts[part:])


# No name is like this.
_NOTHING = re.compile(r"(?!)")
