"""Just enough of semantic versions to say which release is the newest."""

import re
from collections.abc import Collection

# Releases of npm's first years lack the hyphen before a pre-release: `1.0.0beta`.
_VERSION = re.compile(
    r"(?P<major>[0-9]{1,16})\.(?P<minor>[0-9]{1,16})\.(?P<patch>[0-9]{1,16})(?P<pre>[A-Za-z-][0-9A-Za-z.-]{0,127})?(?:\+[0-9A-Za-z.-]{1,127})?"
)
Rank = tuple[int, int, int, bool]


def is_version(text: str) -> bool:
    """Whether the text is a version as npm's registry has them."""
    return _VERSION.fullmatch(text) is not None


def newest(versions: Collection[str], *, before: str | None) -> str | None:
    """The newest that is no pre-release, if possible an older one than `before`; None if there is none.

    An older one is preferred because `latest` often lags behind on purpose: the next major version waits under
    another tag, and who asks for `latest` must not get it early.
    """
    ranks = {version: rank for version in versions if (rank := _rank(version)) is not None and rank[3]}
    limit = None if before is None else _rank(before)
    older = {version: rank for version, rank in ranks.items() if limit is not None and rank < limit}
    candidates = older or ranks
    return max(candidates, key=lambda version: candidates[version], default=None)


def _rank(version: str) -> Rank | None:
    """Order among releases; pre-releases of the same release are not told apart. None for what is no version."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return None
    return int(match["major"]), int(match["minor"]), int(match["patch"]), match["pre"] is None
