"""Which version of Java a manifest asks for, against the one that the sandbox has."""

from __future__ import annotations

import re

from services.resolver.errors import ManifestError

SANDBOX_RELEASE = 21
RELEASE = re.compile(r"(?:1\.)?(\d{1,3})")


def check_release(path: str, line: int, text: str) -> None:
    """Raise ManifestError if a release is asked for that the sandbox's JDK does not know."""
    match = RELEASE.match(text.strip())
    if match and int(match[1]) > SANDBOX_RELEASE:
        reason = (
            f"asks for Java {match[1]}, the sandbox has {SANDBOX_RELEASE}: lower it, or use an image with a newer JDK"
        )
        raise ManifestError(path=path, reason=reason, line=line)
