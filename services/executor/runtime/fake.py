"""The runtime port in memory: the same states and errors as an engine, and no containers."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from services.executor.errors import EngineError, ImageMissingError
from services.executor.runtime.port import Quota, SandboxSpec, SandboxStatus

NO_RECIPES: Mapping[str, str] = {}
Hook = Callable[[SandboxSpec], Awaitable[None]]


class FakeRuntime:
    """Keeps what an engine would. `on_start` and `on_kill` let a test play sandboxd.

    Attributes:
        images: what the engine has.
        containers: what each was made from, by sandbox.
    """

    def __init__(
        self,
        *,
        images: Sequence[str],
        on_start: Hook | None = None,
        on_kill: Hook | None = None,
        quotas: Sequence[Quota] = (Quota.NONE,),
        recipes: Mapping[str, str] = NO_RECIPES,
    ) -> None:
        """`quotas` are those that hold; `recipes` are the images' labels."""
        self.images = set(images)
        self._recipes = recipes
        self._quotas = quotas
        self._on_start = on_start
        self._on_kill = on_kill
        self._volumes: dict[str, datetime.datetime] = {}
        self._image_names: dict[str, str] = {}
        self.containers: dict[str, SandboxSpec] = {}
        self._running: set[str] = set()

    async def check(self, image: str) -> None:
        """See the port."""
        if image not in self.images:
            raise ImageMissingError(image)

    async def recipe(self, image: str) -> str:
        """See the port."""
        await self.check(image)
        return self._recipes.get(image, "")

    async def use_quota(self, quota: Quota, image: str) -> str:
        """See the port."""
        await self.check(image)
        return "" if quota in self._quotas else f"no {quota.value} here"

    async def create(self, spec: SandboxSpec) -> None:
        """See the port."""
        self._volumes.setdefault(spec.sandbox_id, datetime.datetime.now(datetime.UTC))
        self._image_names.setdefault(spec.sandbox_id, spec.image_name)
        await self.check(spec.image)
        self.containers.setdefault(spec.sandbox_id, spec)

    async def start(self, sandbox_id: str) -> None:
        """See the port."""
        if sandbox_id not in self.containers:
            raise EngineError("start a container", f"no container {sandbox_id}")
        if sandbox_id not in self._running:
            self._running.add(sandbox_id)
            if self._on_start:
                await self._on_start(self.containers[sandbox_id])

    async def kill(self, sandbox_id: str) -> None:
        """See the port."""
        if sandbox_id in self._running:
            self._running.remove(sandbox_id)
            if self._on_kill:
                await self._on_kill(self.containers[sandbox_id])

    async def remove(self, sandbox_id: str) -> None:
        """See the port."""
        await self.remove_container(sandbox_id)
        self._volumes.pop(sandbox_id, None)
        self._image_names.pop(sandbox_id, None)

    async def remove_container(self, sandbox_id: str) -> None:
        """See the port."""
        await self.kill(sandbox_id)
        self.containers.pop(sandbox_id, None)

    async def list(self) -> Sequence[SandboxStatus]:
        """See the port."""
        return [
            SandboxStatus(
                sandbox_id=sandbox_id,
                has_volume=sandbox_id in self._volumes,
                has_container=sandbox_id in self.containers,
                running=sandbox_id in self._running,
                create_time=self._volumes.get(sandbox_id),
                image_name=self._image_names.get(sandbox_id),
            )
            for sandbox_id in sorted(self._volumes.keys() | self.containers.keys())
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
