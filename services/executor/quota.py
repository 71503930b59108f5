"""Which quota bounds workspaces here: what the operator says, or what the host turns out to offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from services.executor.runtime.port import Quota, Runtime

AUTO: Final = "auto"
CHOICES: Final = (AUTO, *(quota.value for quota in Quota))
# A file system of its own comes first: the engine's quota leaves inodes unbounded.
_PREFERENCE: Final = (Quota.LOOP, Quota.ENGINE)

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class QuotaChoice:
    """The quota of new workspaces, and what it does not do and why: empty if every bound holds."""

    quota: Quota
    detail: str


@dataclass
class QuotaRefusedError(Exception):
    """The operator wants a quota that does not hold here."""

    wanted: str
    detail: str

    def __str__(self) -> str:
        return f"QILA_WORKSPACE_QUOTA={self.wanted}: it does not hold here: {self.detail}; mend that, or set 'auto'"


async def choose_quota(wanted: str, runtime: Runtime, image: str) -> QuotaChoice:
    """Tries what is wanted, one of `CHOICES`, from inside a real container. QuotaRefusedError, EngineError."""
    if wanted != AUTO:
        quota = Quota(wanted)
        if refusal := await runtime.use_quota(quota, image):
            raise QuotaRefusedError(wanted, refusal)
        return _chosen(quota, "as the operator wants it")
    refusals: list[str] = []
    for quota in _PREFERENCE:
        refusal = await runtime.use_quota(quota, image)
        if not refusal:
            return _chosen(quota, "; ".join(refusals))
        refusals.append(f"{quota.value}: {refusal}")
    await runtime.use_quota(Quota.NONE, image)
    return _chosen(Quota.NONE, "; ".join(refusals))


def _chosen(quota: Quota, why: str) -> QuotaChoice:
    unbounded = {
        Quota.LOOP: "",
        Quota.ENGINE: "inodes are not bounded",
        Quota.NONE: "workspaces are not bounded: one program can fill the host's disk",
    }[quota]
    if not unbounded:
        log.info("workspaces are bounded in bytes and inodes", quota=quota.value)
        return QuotaChoice(quota=quota, detail="")
    log.warning(unbounded, quota=quota.value, why=why)
    return QuotaChoice(quota=quota, detail=f"{unbounded} ({why})")
