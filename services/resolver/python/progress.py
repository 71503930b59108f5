"""What uv prints while it works, line by line."""

from __future__ import annotations

import re

from services.resolver.model import InstallStage, PackageEvent, StageProgress

MAX_LINE = 1024
NAME = r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,212}[A-Za-z0-9])?)"
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
TOTAL = re.compile(r"(?P<verb>Resolved|Prepared|Installed) (?P<count>\d{1,6}) packages? in .*")
STAGES = {
    "Resolved": InstallStage.RESOLVING,
    "Prepared": InstallStage.DOWNLOADING,
    "Installed": InstallStage.INSTALLING,
}


def parse_installer_line(line: bytes) -> PackageEvent | StageProgress | None:
    """What one line of uv's stderr tells: of a package, or that a stage is over; or None."""
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
    total = TOTAL.fullmatch(text)
    if total:
        count = int(total["count"])
        return StageProgress(stage=STAGES[total["verb"]], done=count, total=count)
    return None
