"""What the installs of all ecosystems have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.resolver.model import StagedFile, Step

ENVIRONMENTS = "/sandbox/.qila/env"


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallCommands:
    """All commands around one environment, and the files that they start from; empty where nothing is installed.

    The fields are those of a plan.
    """

    staged: tuple[StagedFile, ...] = ()
    steps: tuple[Step, ...] = ()
    native_lock: str = ""
    native_lock_staged: bool = False
    inventory_argv: tuple[str, ...] = ()
    compile_argv: tuple[str, ...] = ()


def environment_path(ecosystem: str, fingerprint: str) -> str:
    """Where the environment of a fingerprint lies in the sandbox; empty where nothing is installed."""
    return f"{ENVIRONMENTS}/{ecosystem}/{fingerprint}" if fingerprint else ""
