"""The sandbox profile: sandbox/profile.toml, read once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROFILE_PATH = Path(__file__).resolve().parents[2] / "sandbox" / "profile.toml"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one sandbox: CPUs in thousandths, bytes of memory, processes and threads, bytes of the workspace
    (0 where nothing bounds it).
    """  # noqa: D205 - one sentence

    cpu_millis: int
    memory_bytes: int
    pids: int
    disk_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What every sandbox container is and has; see the file for the meaning of each row."""

    network: str
    user: str
    hostname: str
    read_only_root: bool
    no_new_privileges: bool
    log_driver: str
    ipc: str
    cap_drop: tuple[str, ...]
    cap_add: tuple[str, ...]
    oom_score_adj: int
    limits: Limits
    nofile: int
    core: int
    workspace: str
    sockets: str
    tmpfs: Mapping[str, str]


def load_profile(path: Path = PROFILE_PATH) -> Profile:
    """Reads the profile. A missing or surplus row is a KeyError or TypeError: the file ships with the code."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    limits = dict(data["limits"])
    nofile, core = limits.pop("nofile"), limits.pop("core")
    container = dict(data["container"])
    container["cap_drop"] = tuple(container["cap_drop"])
    container["cap_add"] = tuple(container["cap_add"])
    return Profile(
        limits=Limits(**limits), nofile=nofile, core=core, tmpfs=data["tmpfs"], **data["mounts"], **container
    )
