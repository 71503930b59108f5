"""The runtime port on a Docker Engine, API 1.41 or newer, cgroup v1 or v2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandbox.image.recipe import RECIPE_LABEL
from services.executor.errors import EngineError, ImageMissingError
from services.executor.profile import Profile
from services.executor.runtime.docker_container import container_settings
from services.executor.runtime.engine import ConflictError, Engine, MissingError
from services.executor.runtime.images import WorkspaceImages
from services.executor.runtime.port import Quota, SandboxSpec, SandboxStatus
from services.executor.runtime.volumes import LABEL_IMAGE, LABEL_INSTANCE, LABEL_SANDBOX, Volumes, Workspace

LABEL_LIMITS = "dev.qila.limits"
LABEL_PROFILE = "dev.qila.profile"


class DockerRuntime:
    """Sandboxes as containers and named volumes, both labelled with the installation's instance."""

    def __init__(self, *, instance: str, profile: Profile, images: WorkspaceImages, runtime: str | None = None) -> None:
        """`runtime` is the engine's name of an OCI runtime (runc, runsc, kata); None takes the engine's default."""
        self._instance = instance
        self._profile = profile
        self._runtime = runtime
        self._engine = Engine()
        self._volumes = Volumes(self._engine, images, instance=instance, name_of=self._name)

    async def check(self, image: str) -> None:
        """See the port."""
        await self._engine.call("answer", lambda api: api.ping())
        await self.recipe(image)

    async def recipe(self, image: str) -> str:
        """See the port."""
        try:
            found = await self._engine.call("inspect the sandbox image", lambda api: api.inspect_image(image))
        except MissingError:
            raise ImageMissingError(image) from None
        return str((found["Config"]["Labels"] or {}).get(RECIPE_LABEL, ""))

    async def create(self, spec: SandboxSpec) -> None:
        """See the port."""
        quota = await self._volumes.provide(spec, self._labels(spec))
        try:
            await self._make_container(spec, quota)
        except ConflictError:
            if await self._is_outdated(spec.sandbox_id):
                await self.remove_container(spec.sandbox_id)
                await self._make_container(spec, quota)

    async def start(self, sandbox_id: str) -> None:
        """See the port."""

        def start(api: Any) -> None:
            # A workspace that is mounted must not be attached a second time.
            if not api.inspect_container(self._name(sandbox_id))["State"]["Running"]:
                with self._volumes.mountable(sandbox_id):
                    api.start(self._name(sandbox_id))

        try:
            await self._engine.call("start a container", start)
        except MissingError as error:
            raise EngineError("start a container", str(error)) from None

    async def kill(self, sandbox_id: str) -> None:
        """See the port."""
        try:
            await self._engine.call("kill a container", lambda api: api.kill(self._name(sandbox_id)))
        except (MissingError, ConflictError):
            return

    async def remove(self, sandbox_id: str) -> None:
        """See the port."""
        await self.remove_container(sandbox_id)
        await self._volumes.remove(sandbox_id)

    async def remove_container(self, sandbox_id: str) -> None:
        """See the port."""
        try:
            await self._engine.call(
                "remove a container", lambda api: api.remove_container(self._name(sandbox_id), force=True, v=False)
            )
        except (MissingError, ConflictError):
            # A conflict here means that another removal of the same container is under way.
            return

    async def list(self) -> Sequence[SandboxStatus]:
        """See the port."""
        label = {"label": f"{LABEL_INSTANCE}={self._instance}"}
        containers = await self._engine.call("list containers", lambda api: api.containers(all=True, filters=label))
        container_of = {row["Labels"][LABEL_SANDBOX]: row for row in containers if LABEL_SANDBOX in row["Labels"]}
        workspaces = await self._volumes.workspaces()
        return [
            SandboxStatus(
                sandbox_id=sandbox_id,
                has_volume=sandbox_id in workspaces,
                has_container=sandbox_id in container_of,
                running=container_of.get(sandbox_id, {}).get("State") == "running",
                create_time=workspaces.get(sandbox_id, Workspace()).create_time,
                image_name=container_of.get(sandbox_id, {}).get("Labels", {}).get(LABEL_IMAGE)
                or workspaces.get(sandbox_id, Workspace()).image_name,
            )
            for sandbox_id in sorted(container_of.keys() | workspaces.keys())
        ]

    async def use_quota(self, quota: Quota, image: str) -> str:
        """See the port."""
        return await self._volumes.use_quota(quota, image)

    async def directories(self) -> Sequence[Path]:
        """See the port."""
        return await self._volumes.directories()

    async def tidy(self) -> None:
        """See the port."""
        await self._volumes.tidy()

    async def is_running(self, sandbox_id: str) -> bool:
        """See the port."""
        try:
            state = await self._engine.call(
                "inspect a container", lambda api: api.inspect_container(self._name(sandbox_id))
            )
        except MissingError:
            return False
        return bool(state["State"]["Running"])

    async def close(self) -> None:
        """See the port."""
        self._engine.close()

    def _name(self, sandbox_id: str) -> str:
        return f"qila-{self._instance}-{sandbox_id}"

    def _labels(self, spec: SandboxSpec) -> dict[str, str]:
        return {
            LABEL_INSTANCE: self._instance,
            LABEL_SANDBOX: spec.sandbox_id,
            LABEL_LIMITS: json.dumps(asdict(spec.limits), sort_keys=True),
            LABEL_IMAGE: spec.image_name,
        }

    async def _make_container(self, spec: SandboxSpec, quota: Quota) -> None:
        name, labels = self._name(spec.sandbox_id), self._labels(spec) | {LABEL_PROFILE: self._profile.digest()}

        def make(api: Any) -> None:
            settings = container_settings(
                api, self._profile, spec, name=name, labels=labels, runtime=self._runtime, quota=quota
            )
            api.create_container(**settings)

        try:
            await self._engine.call("make a container", make)
        except MissingError:
            raise ImageMissingError(spec.image) from None

    async def _is_outdated(self, sandbox_id: str) -> bool:
        """Whether the container was made by another profile, and nothing runs in it."""
        try:
            there = await self._engine.call(
                "inspect a container", lambda api: api.inspect_container(self._name(sandbox_id))
            )
        except MissingError:
            return True
        return not there["State"]["Running"] and there["Config"]["Labels"].get(LABEL_PROFILE) != self._profile.digest()
