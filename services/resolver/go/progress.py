"""What an install of Go modules prints while it works, line by line."""

from __future__ import annotations

import re

from services.resolver.model import InstallStage, PackageEvent, StageProgress, StepKind

MAX_LINE = 2_048
MODULE = r"(?P<name>[A-Za-z0-9._~/-]{1,400}) (?P<version>v[0-9A-Za-z.+-]{1,200})"
# The lines of the go command, and of the sandbox's install_modules.py.
PACKAGES = (
    ("downloading", re.compile(rf"go: downloading {MODULE}")),
    ("installed", re.compile(rf"\+ {MODULE}")),
)
LOOKING = re.compile(r"go: finding module for package \S{1,400}")
INSTALLING = re.compile(r"Installing (?P<total>\d{1,9}) modules")


def parse_installer_line(step: StepKind, line: bytes) -> PackageEvent | StageProgress | None:
    """What one line tells about a module or the stage, or None."""
    if len(line) > MAX_LINE:
        return None
    text = line.decode("utf-8", "replace").strip()
    for action, pattern in PACKAGES:
        if match := pattern.fullmatch(text):
            return PackageEvent(action=action, name=match["name"], version=match["version"])
    if LOOKING.fullmatch(text):
        return StageProgress(stage=InstallStage.RESOLVING)
    if step is StepKind.INSTALL and (match := INSTALLING.fullmatch(text)):
        return StageProgress(stage=InstallStage.INSTALLING, total=int(match["total"]))
    return None
