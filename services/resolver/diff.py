"""What differs between two sets of locks.

Packages are told apart by their purl without its version. Several versions of one package, as npm installs them, are
paired: equal versions first, then the newest with the newest; the rest was added or removed. Whether a package is a
direct requirement is no difference: the same is installed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import zip_longest
from typing import TYPE_CHECKING

from services.resolver.hashes import parse_hash
from services.resolver.model import LockDiff, PackageChange
from services.resolver.packages import license_told, merged_packages, split_purl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from services.resolver.model import LockedPackage
    from services.resolver.packages import Told

NUMBERS = re.compile(r"(\d{1,18})")


def diff_locks(before: Iterable[LockedPackage], after: Iterable[LockedPackage]) -> LockDiff:
    """The differences, in order of purl; the same for the same packages in any order."""
    earlier, later = _by_name(before), _by_name(after)
    changes: list[PackageChange] = []
    unchanged = 0
    for name in sorted(earlier.keys() | later.keys()):
        for one, other in _paired(earlier.get(name, []), later.get(name, [])):
            if one and other and not changed_parts(one, other):
                unchanged += 1
            else:
                changes.append(PackageChange(before=one, after=other))
    return LockDiff(changes=tuple(changes), unchanged_count=unchanged)


def changed_parts(before: Told, after: Told) -> tuple[str, ...]:
    """Which of `version`, `hashes` and `license` differ; what one side does not tell is not said to differ."""
    parts = []
    if before.version != after.version:
        parts.append("version")
    if _hashes_differ(before.hashes, after.hashes):
        parts.append("hashes")
    told = (license_told(before), license_told(after))
    if all(told) and told[0] != told[1]:
        parts.append("license")
    return tuple(parts)


def _hashes_differ(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether the hashes of one algorithm, that both sides use, are not the same.

    A side with one hash tells what was installed, a side with several what might have been: they agree if it is among
    them.
    """
    earlier, later = _by_algorithm(before), _by_algorithm(after)
    pairs = [sorted((earlier[algorithm], later[algorithm]), key=len) for algorithm in earlier.keys() & later.keys()]
    return any(few != many and not (len(few) == 1 and few < many) for few, many in pairs)


def _by_algorithm(hashes: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for text in hashes:
        parsed = parse_hash(text)
        algorithm, digits = (parsed.algorithm, parsed.digits) if parsed else (text.partition(":")[0], text)
        found[algorithm].add(digits)
    return found


def _by_name(packages: Iterable[LockedPackage]) -> dict[str, list[LockedPackage]]:
    """By purl without version, the oldest version first."""
    found: dict[str, list[LockedPackage]] = defaultdict(list)
    for package in merged_packages(packages):
        found[split_purl(package.purl)[0]].append(package)
    for several in found.values():
        several.sort(key=lambda item: _version_key(item.version))
    return found


def _paired(
    before: Sequence[LockedPackage], after: Sequence[LockedPackage]
) -> Iterator[tuple[LockedPackage | None, LockedPackage | None]]:
    earlier = {package.version: package for package in before}
    later = {package.version: package for package in after}
    for version, package in earlier.items():
        if version in later:
            yield package, later[version]
    gone = [package for version, package in earlier.items() if version not in later]
    new = [package for version, package in later.items() if version not in earlier]
    yield from zip_longest(reversed(gone), reversed(new))


def _version_key(version: str) -> list[tuple[int, int, str]]:
    """Orders versions as people count, "1.9" before "1.10"; which of two spellings is newer is not its concern."""
    parts = NUMBERS.split(version)
    return [(1, int(part), "") if index % 2 else (0, 0, part) for index, part in enumerate(parts)] + [(0, 0, version)]
