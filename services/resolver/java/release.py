"""Which version of Java a manifest asks for, against the one that the sandbox has."""

from __future__ import annotations

import re

from services.resolver.errors import ToolchainError

RELEASE = re.compile(r"(?:1\.)?(\d{1,3})")


def release_of(java: str) -> int:
    """The release of a JDK's full version: 21 of `21.0.8`."""
    return int(java.partition(".")[0])


def check_release(path: str, line: int, text: str, release: int) -> None:
    """Raise ToolchainError if a release is asked for that the sandbox's JDK, of `release`, does not know."""
    match = RELEASE.match(text.strip())
    if match and int(match[1]) > release:
        reason = f"asks for Java {match[1]}, the sandbox has {release}: lower it, or use an image with a newer JDK"
        wanted = int(match[1])
        raise ToolchainError(
            path=path, reason=reason, line=line, tool="java", word="Java", fits=lambda java: release_of(java) >= wanted
        )
