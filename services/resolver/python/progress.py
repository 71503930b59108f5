"""What uv prints while it works, line by line."""

from __future__ import annotations

import re

from services.resolver.model import PackageEvent

MAX_LINE = 1024
NAME = r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
VERSION = r"={2,3}(?P<version>[0-9A-Za-z.!+_-]+)"
INSTALLED = re.compile(rf"[+~] {NAME}{VERSION}(?: .*)?")
REMOVED = re.compile(rf"- {NAME}{VERSION}(?: .*)?")
DOWNLOADING = re.compile(rf"Downloading {NAME} \((?P<size>[0-9.]+ ?[KMGT]?i?B)\)")
BUILDING = re.compile(rf"Building {NAME}{VERSION}")
BUILT = re.compile(rf"Built {NAME}{VERSION}")
LINES = (
    ("installed", INSTALLED),
    ("removed", REMOVED),
    ("downloading", DOWNLOADING),
    ("building", BUILDING),
    ("built", BUILT),
)


def parse_installer_line(line: bytes) -> PackageEvent | None:
    """What one line of uv's stderr tells about a package, or None."""
    if len(line) > MAX_LINE:
        return None
    text = line.decode("utf-8", "replace").strip()
    for action, pattern in LINES:
        match = pattern.fullmatch(text)
        if match:
            found = match.groupdict()
            return PackageEvent(
                action=action, name=found["name"], version=found.get("version", ""), size=found.get("size", "")
            )
    return None
