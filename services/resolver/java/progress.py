"""What an install of Java packages prints while it works, line by line."""

from __future__ import annotations

import re

from services.resolver.model import InstallStage, PackageEvent, StageProgress, StepKind

MAX_LINE = 1024
FILE = re.compile(
    r"Downloading (?P<group>[\w./-]{1,400})/(?P<artifact>[\w.-]{1,200})/(?P<version>[\w.+-]{1,200})/[\w.+-]{1,400}"
    r"\.(?P<extension>[a-z]{2,8})"
)
INSTALLED = re.compile(r"\+ (?P<name>[\w.-]{1,200}:[\w.-]{1,200}):(?P<version>[\w.+-]{1,200})")
STAGES = (
    (InstallStage.RESOLVING, re.compile(r"Resolved (?P<done>\d{1,9}) packages")),
    (InstallStage.INSTALLING, re.compile(r"Installed (?P<done>\d{1,9}) packages")),
)


def parse_installer_line(step: StepKind, line: bytes) -> PackageEvent | StageProgress | None:
    """What one line tells about a package or the stage, or None; POMs are not told of."""
    del step
    if len(line) > MAX_LINE:
        return None
    text = line.decode("utf-8", "replace").strip()
    if match := INSTALLED.fullmatch(text):
        return PackageEvent(action="installed", name=match["name"], version=match["version"])
    for stage, pattern in STAGES:
        if match := pattern.fullmatch(text):
            return StageProgress(stage=stage, done=int(match["done"]), total=int(match["done"]))
    match = FILE.fullmatch(text)
    if match is None or match["extension"] == "pom":
        return None
    return PackageEvent(
        action="downloading", name=f"{match['group'].replace('/', '.')}:{match['artifact']}", version=match["version"]
    )
