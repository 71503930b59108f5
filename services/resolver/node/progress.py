"""What an install of Node packages prints while it works, line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.resolver.model import PackageEvent, StageProgress, StepKind


def parse_installer_line(step: StepKind, line: bytes) -> PackageEvent | StageProgress | None:
    """What one line tells about a package or the stage, or None."""
    raise NotImplementedError
