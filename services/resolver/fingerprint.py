"""One digest over everything that decides an install."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT = 1


def fingerprint(
    *,
    ecosystem: str,
    manifests: Mapping[str, bytes],
    requirements: Sequence[str],
    toolchain: Mapping[str, str],
    platform: str,
    package_policy: str,
) -> str:
    """SHA-256 as lower-case hex.

    A manifest counts with its exact bytes, and the requirements that were chosen from it as a sorted list. The
    encoding is JSON with sorted keys, so no two inputs share one.
    """
    document = {
        "format": FORMAT,
        "ecosystem": ecosystem,
        "manifests": {path: hashlib.sha256(content).hexdigest() for path, content in manifests.items()},
        "requirements": sorted(requirements),
        "toolchain": dict(toolchain),
        "platform": platform,
        "package_policy": package_policy,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
