"""The sandbox profile: sandbox/profile.toml and the seccomp filter beside it, read once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
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
    """What every sandbox container is and has; see the file for the meaning of each row.

    `seccomp` is the filter itself, as JSON text; options of mounts are texts with commas.
    """

    network: str
    user: str
    hostname: str
    nameservers: tuple[str, ...]
    read_only_root: bool
    no_new_privileges: bool
    seccomp: str
    log_driver: str
    ipc: str
    cap_drop: tuple[str, ...]
    cap_add: tuple[str, ...]
    oom_score_adj: int
    limits: Limits
    nofile: int
    core: int
    sysctls: Mapping[str, str]
    workspace: str
    sockets: str
    tmpfs: Mapping[str, str]
    masked: tuple[str, ...]
    read_only: tuple[str, ...]
    engine_mounts: Mapping[str, str]

    def digest(self) -> str:
        """Containers of the same profile have the same digest: 16 hexadecimal digits."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_profile(path: Path = PROFILE_PATH) -> Profile:
    """Reads the profile. A missing or surplus row is a KeyError or TypeError: the file ships with the code."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    container, limits = dict(data["container"]), dict(data["limits"])
    filter_path = path.with_name(container.pop("seccomp"))
    return Profile(
        nofile=limits.pop("nofile"),
        core=limits.pop("core"),
        limits=Limits(**limits),
        # Without blanks it is a third of the size, and it goes to the engine with every container.
        seccomp=json.dumps(json.loads(filter_path.read_text(encoding="utf-8")), separators=(",", ":")),
        cap_drop=tuple(container.pop("cap_drop")),
        cap_add=tuple(container.pop("cap_add")),
        nameservers=tuple(container.pop("nameservers")),
        sysctls=data["sysctls"],
        tmpfs=data["tmpfs"],
        masked=tuple(data["paths"]["masked"]),
        read_only=tuple(data["paths"]["read_only"]),
        engine_mounts=data["engine_mounts"],
        **data["mounts"],
        **container,
    )
