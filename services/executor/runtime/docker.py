"""The runtime port on a Docker Engine, API 1.41 or newer, cgroup v1 or v2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from docker.types import LogConfig, Mount, Ulimit

from services.executor.errors import EngineError, ImageMissingError
from services.executor.profile import Profile
from services.executor.runtime.engine import ConflictError, Engine, MissingError
from services.executor.runtime.images import WorkspaceImages
from services.executor.runtime.port import Quota, SandboxSpec, SandboxStatus
from services.executor.runtime.volumes import LABEL_INSTANCE, LABEL_SANDBOX, Volumes

LABEL_LIMITS = "dev.qila.limits"

CPU_PERIOD_US = 100_000


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
        try:
            await self._engine.call("inspect the sandbox image", lambda api: api.inspect_image(image))
        except MissingError:
            raise ImageMissingError(image) from None

    async def create(self, spec: SandboxSpec) -> None:
        """See the port."""
        labels = {
            LABEL_INSTANCE: self._instance,
            LABEL_SANDBOX: spec.sandbox_id,
            LABEL_LIMITS: json.dumps(asdict(spec.limits), sort_keys=True),
        }
        quota = await self._volumes.provide(spec, labels)
        try:
            await self._engine.call("make a container", lambda api: self._create_container(api, spec, labels, quota))
        except ConflictError:
            return
        except MissingError:
            raise ImageMissingError(spec.image) from None

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
                create_time=workspaces.get(sandbox_id),
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

    def _create_container(self, api: Any, spec: SandboxSpec, labels: dict[str, str], quota: Quota) -> None:
        profile = self._profile
        name = self._name(spec.sandbox_id)
        host_config = api.create_host_config(
            network_mode=profile.network,
            read_only=profile.read_only_root,
            cap_drop=list(profile.cap_drop),
            cap_add=list(profile.cap_add),
            security_opt=["no-new-privileges"] if profile.no_new_privileges else [],
            log_config=LogConfig(type=profile.log_driver),
            ipc_mode=profile.ipc,
            oom_score_adj=profile.oom_score_adj,
            mem_limit=spec.limits.memory_bytes,
            memswap_limit=spec.limits.memory_bytes,
            cpu_period=CPU_PERIOD_US,
            cpu_quota=spec.limits.cpu_millis * CPU_PERIOD_US // 1000,
            pids_limit=spec.limits.pids,
            ulimits=[
                Ulimit(name="nofile", soft=profile.nofile, hard=profile.nofile),
                Ulimit(name="core", soft=profile.core, hard=profile.core),
            ],
            tmpfs=dict(profile.tmpfs),
            mounts=[
                # An image file is laid out already; the engine would mount it just to see that.
                Mount(target=profile.workspace, source=name, type="volume", no_copy=quota is Quota.LOOP),
                Mount(target=profile.sockets, source=str(spec.socket_directory), type="bind", read_only=True),
            ],
            runtime=self._runtime,
            restart_policy={"Name": "no"},
        )
        api.create_container(
            image=spec.image,
            name=name,
            user=profile.user,
            hostname=profile.hostname,
            labels=labels,
            host_config=host_config,
        )
