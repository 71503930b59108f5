"""go.sum: the hash of each module's archive, and of its go.mod."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from services.resolver.errors import LockError
from services.resolver.go.names import HASH, VERSION, is_path

MAX_LINES = 200_000
MOD_SUFFIX = "/go.mod"
# A line has a module, a version and a hash.
WORDS = 3


@dataclass(kw_only=True, slots=True)
class SumFile:
    """Hashes by module path and version."""

    archives: dict[tuple[str, str], str] = field(default_factory=dict)
    mod_files: dict[tuple[str, str], str] = field(default_factory=dict)


def read_go_sum(content: bytes, name: str) -> SumFile:
    """Read a go.sum. Raises LockError with the line, also where one thing has two hashes."""
    found = SumFile()
    rows = content.decode("utf-8", "replace").split("\n")
    if len(rows) > MAX_LINES:
        raise LockError(name=name, line=0, reason=f"has more than {MAX_LINES} lines")
    for number, row in enumerate(rows, start=1):
        words = row.split()
        if not words:
            continue
        _take(found, words, name, number)
    return found


def _take(found: SumFile, words: list[str], name: str, number: int) -> None:
    if len(words) != WORDS:
        raise LockError(name=name, line=number, reason="is not written MODULE VERSION HASH")
    path, version, value = words
    is_mod = version.endswith(MOD_SUFFIX)
    version = version.removesuffix(MOD_SUFFIX)
    if not is_path(path) or not VERSION.fullmatch(version):
        raise LockError(name=name, line=number, reason=f"{path[:80]} {version[:80]} is no version of a module")
    if not HASH.fullmatch(value):
        # Kinds of hashes that a later Go may add are none of ours, as Go itself reads them.
        if re.fullmatch(r"h[2-9]:\S{1,200}", value):
            return
        raise LockError(name=name, line=number, reason=f"{value[:80]!r} is no hash")
    target = found.mod_files if is_mod else found.archives
    if target.setdefault((path, version), value) != value:
        raise LockError(name=name, line=number, reason=f"{path} {version} has two hashes")
