"""The runtime port in memory: the same states and errors as an engine, and no containers."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from services.executor.errors import EngineError, ImageMissingError
from services.executor.runtime.port import Quota, SandboxSpec, SandboxStatus

Hook = Callable[[SandboxSpec], Awaitable[None]]


class FakeRuntime:
    """Keeps what an engine would. `on_start` and `on_kill` let a test play sandboxd."""

    def __init__(
        self,
        *,
        images: Sequence[str],
        on_start: Hook | None = None,
        on_kill: Hook | None = None,
        quotas: Sequence[Quota] = (Quota.NONE,),
    ) -> None:
        """`quotas` are those that hold."""
        self._images = set(images)
        self._quotas = quotas
        self._on_start = on_start
        self._on_kill = on_kill
        self._volumes: dict[str, datetime.datetime] = {}
        self._containers: dict[str, SandboxSpec] = {}
        self._running: set[str] = set()

    async def check(self, image: str) -> None:
        """See the port."""
        if image not in self._images:
            raise ImageMissingError(image)

    async def use_quota(self, quota: Quota, image: str) -> str:
        """See the port."""
        await self.check(image)
        return "" if quota in self._quotas else f"no {quota.value} here"

    async def create(self, spec: SandboxSpec) -> None:
        """See the port."""
        self._volumes.setdefault(spec.sandbox_id, datetime.datetime.now(datetime.UTC))
        await self.check(spec.image)
        self._containers.setdefault(spec.sandbox_id, spec)

    async def start(self, sandbox_id: str) -> None:
        """See the port."""
        if sandbox_id not in self._containers:
            raise EngineError("start a container", f"no container {sandbox_id}")
        if sandbox_id not in self._running:
            self._running.add(sandbox_id)
            if self._on_start:
                await self._on_start(self._containers[sandbox_id])

    async def kill(self, sandbox_id: str) -> None:
        """See the port."""
        if sandbox_id in self._running:
            self._running.remove(sandbox_id)
            if self._on_kill:
                await self._on_kill(self._containers[sandbox_id])

    async def remove(self, sandbox_id: str) -> None:
        """See the port."""
        await self.remove_container(sandbox_id)
        self._volumes.pop(sandbox_id, None)

    async def remove_container(self, sandbox_id: str) -> None:
        """See the port."""
        await self.kill(sandbox_id)
        self._containers.pop(sandbox_id, None)

    async def list(self) -> Sequence[SandboxStatus]:
        """See the port."""
        return [
            SandboxStatus(
                sandbox_id=sandbox_id,
                has_volume=sandbox_id in self._volumes,
                has_container=sandbox_id in self._containers,
                running=sandbox_id in self._running,
                create_time=self._volumes.get(sandbox_id),
            )
            for sandbox_id in sorted(self._volumes.keys() | self._containers.keys())
        ]

    async def directories(self) -> Sequence[Path]:
        """See the port."""
        return []

    async def tidy(self) -> None:
        """See the port."""

    async def is_running(self, sandbox_id: str) -> bool:
        """See the port."""
        return sandbox_id in self._running

    async def close(self) -> None:
        """See the port."""
