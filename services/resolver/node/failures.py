"""Why npm failed, from its own words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.resolver.model import InstallFailure, StepKind


def explain_failure(step: StepKind, exit_code: int, output: bytes) -> InstallFailure:
    """Name the reason, keep the installer's words, list the packages that it names."""
    raise NotImplementedError
