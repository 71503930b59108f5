"""What an install of Node packages prints while it works, line by line."""

from __future__ import annotations

import re

from services.resolver.model import InstallStage, PackageEvent, StageProgress, StepKind

MAX_LINE = 1024
PACKAGE = r"(?P<name>(?:@[A-Za-z0-9._~-]+/)?[A-Za-z0-9._~-]+)@(?P<version>[0-9A-Za-z.+-]+)"
# The lines of the sandbox's run_npm.py and complete_lock.py, and of npm itself.
PACKAGES = (
    ("downloading", re.compile(rf"Downloading {PACKAGE}")),
    ("building", re.compile(rf"Building {PACKAGE}")),
    ("built", re.compile(rf"Built {PACKAGE}")),
    ("installed", re.compile(rf"\+ {PACKAGE}")),
)
LOOKED_UP = re.compile(r"Looked up (?P<done>\d{1,9}) packages")
INSTALLED = re.compile(r"added (?P<done>\d{1,9}) packages?\b.*")


def parse_installer_line(step: StepKind, line: bytes) -> PackageEvent | StageProgress | None:
    """What one line tells about a package or the stage, or None."""
    if len(line) > MAX_LINE:
        return None
    text = line.decode("utf-8", "replace").strip()
    for action, pattern in PACKAGES:
        if match := pattern.fullmatch(text):
            return PackageEvent(action=action, name=match["name"], version=match["version"])
    if match := LOOKED_UP.fullmatch(text):
        return StageProgress(stage=InstallStage.RESOLVING, done=int(match["done"]))
    if step is StepKind.INSTALL and (match := INSTALLED.fullmatch(text)):
        return StageProgress(stage=InstallStage.INSTALLING, done=int(match["done"]), total=int(match["done"]))
    return None
