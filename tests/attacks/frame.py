"""What an attack is here: run twice, once against what is shipped, once against a set-up that was weakened on purpose.

An attack is a function that carries it out and returns what its oracle saw, which is nothing if the wall held. Against
the shipped set-up the oracle must see nothing; against the weakened one it must see something, or it proves nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from .boxes import Clone


class Setting(Enum):
    """Against what an attack runs, where no container is weakened but something else is."""

    SHIPPED = "shipped"
    WEAKENED = "weakened"


@dataclass(frozen=True, kw_only=True)
class Weakness:
    """How a container differs from the one that the executor made.

    `rows` replace rows of the engine's HostConfig; everything else is copied from a sandbox of the running executor.
    `as_root` runs programs as the container's root, `prepare` does more to the container once it runs, `naive_files`
    makes file calls as the host's root on the volume, and `naive_kill` kills the leader alone, or whoever waits for it.
    """

    name: str
    rows: Mapping[str, Any] = field(default_factory=dict)
    as_root: bool = False
    naive_files: bool = False
    naive_kill: bool = False
    prepare: Callable[[Clone], None] | None = None


def row(name: str, value: object) -> Weakness:
    """One row of the HostConfig changed."""
    return Weakness(name=f"{name}={value}", rows={name: value})


def _capabilities() -> list[str]:
    """Those that this machine can give away, by the names that every engine knows."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    held = int(status.partition("CapBnd:")[2].split()[0], 16)
    return [name for number, name in enumerate(CAPABILITIES) if held >> number & 1]


# fmt: off
CAPABILITIES: Final = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
)
# fmt: on
# Short of the engine's own `privileged`, which fails where the engine itself lacks a capability.
ROOT: Final = Weakness(
    name="root with every capability",
    rows={"CapAdd": _capabilities(), "SecurityOpt": ["seccomp=unconfined"], "MaskedPaths": [], "ReadonlyPaths": []},
    as_root=True,
)
BRIDGE: Final = row("NetworkMode", "bridge")
# Settings of a network namespace of its own: engines refuse them where it is the host's.
HOST_NETWORK: Final = Weakness(name="NetworkMode=host", rows={"NetworkMode": "host", "Sysctls": {}})
NO_SECCOMP: Final = Weakness(name="no seccomp", rows={"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]})


def attack(
    *, weakened: Weakness | str, fresh: bool | Setting = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes an attack of a function that returns what its oracle saw.

    One with an argument `box` gets a sandbox of the running executor, and a container with the weakness; one with an
    argument `setting` weakens what it attacks by itself, and says how in `weakened`. `fresh` boxes are for this attack
    alone; with a setting, only the box of that one is.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        name = "box" if "box" in inspect.signature(function).parameters else "setting"
        label = weakened if isinstance(weakened, str) else weakened.name
        alone = [fresh in (True, setting) for setting in Setting]
        values = tuple(zip((None, weakened), alone, strict=True)) if name == "box" else tuple(Setting)
        parameters = [
            pytest.param(values[0], id="shipped"),
            pytest.param(values[1], id=f"weakened: {label}"),
        ]
        judged = _judged(function, name)
        marked: Callable[..., Any] = pytest.mark.attack(
            pytest.mark.parametrize(name, parameters, indirect=name == "box")(judged)
        )
        return marked

    return decorate


def _judged(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def judge(evidence: object, subject: object) -> None:
        assert isinstance(evidence, bool | Sized), "an attack returns what its oracle saw"
        if subject is Setting.SHIPPED or getattr(subject, "is_shipped", False):
            assert not evidence, f"the attack came through: {_short(evidence)}"
        else:
            assert evidence, "the oracle saw nothing where the attack must come through: it proves nothing"

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(**arguments: Any) -> None:
            judge(await function(**arguments), arguments[name])

        return run_async

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        judge(function(**arguments), arguments[name])

    return run


def _short(evidence: object) -> str:
    text = repr(evidence)
    return text if len(text) < 2000 else f"{text[:2000]}…"
