"""One digest over everything that decides an install."""

from __future__ import annotations

import hashlib
import json
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT = 2


def fingerprint(
    *,
    ecosystem: str,
    manifests: Mapping[str, bytes],
    requirements: Sequence[str],
    toolchain: Mapping[str, str],
    platform: str,
    package_policy: str,
    added: Sequence[str] = (),
    settings: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> str:
    """SHA-256 as lower-case hex.

    A manifest counts with its exact bytes, and the requirements that were chosen from it as a sorted list. `added` is
    what is installed beyond a manifest, `settings` what else decides how. The encoding is JSON with sorted keys, so no
    two inputs share one.
    """
    document = {
        "format": FORMAT,
        "ecosystem": ecosystem,
        "manifests": {path: hashlib.sha256(content).hexdigest() for path, content in manifests.items()},
        "requirements": sorted(requirements),
        "toolchain": dict(toolchain),
        "added": sorted(added),
        "settings": {name: list(values) for name, values in settings.items()},
        "platform": platform,
        "package_policy": package_policy,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
