"""The commands that solve and install with npm, and the files they start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.resolver.model import StagedFile, Step

if TYPE_CHECKING:
    from services.resolver.model import Lockfile

ENVIRONMENTS = "/sandbox/.qila/env/node"
MANIFEST = "package.json"
LOCK = "package-lock.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallCommands:
    """All commands around one environment, and the files that they start from; empty where nothing is installed."""

    staged: tuple[StagedFile, ...] = ()
    steps: tuple[Step, ...] = ()
    inventory_argv: tuple[str, ...] = ()
    native_lock: str = ""


def environment_path(fingerprint: str) -> str:
    """Where the environment of a fingerprint lies in the sandbox."""
    return f"{ENVIRONMENTS}/{fingerprint}"


def install_commands(
    environment: str,
    *,
    package_json: bytes,
    lock: Lockfile | None,
    previous_lock: bytes | None,
    scripts: bool,
    frozen: bool,
) -> InstallCommands:
    """Solve and install a manifest, or install exactly what a lock that agrees with it holds (`frozen`).

    The lock may be npm's, yarn's, pnpm's or a qila.lock.json: npm installs them all, and the native lock of the
    environment is npm's. Without `frozen`, a lock's versions are only preferred. Raises LockError if the lock cannot
    be read, or names what npm's registry does not have (links, git, local files).
    """
    raise NotImplementedError


def given_lock_files(lockfile: Lockfile) -> tuple[bytes, bytes]:
    """The package.json and package-lock.json of a lock from outside; to be installed with `frozen`.

    Raises LockError.
    """
    raise NotImplementedError
