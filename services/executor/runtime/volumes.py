"""The volumes of workspaces, and what bounds them: an image file, the engine's own quota, or nothing."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker.errors

from services.executor.errors import EngineError, WorkspaceError, WorkspaceMissingError
from services.executor.ids import is_sandbox_id
from services.executor.runtime.engine import ConflictError, Engine, MissingError
from services.executor.runtime.images import MOUNT_OPTIONS, WorkspaceImages
from services.executor.runtime.port import Quota, SandboxSpec

LABEL_INSTANCE: Final = "dev.qila.instance"
LABEL_SANDBOX: Final = "dev.qila.sandbox"
LABEL_CREATED: Final = "dev.qila.created"
LABEL_IMAGE: Final = "dev.qila.image"

_PROBE: Final = "probe"
_PROBE_BYTES: Final = 16 << 20
_PROBE_S: Final = 60
_UNBOUNDED: Final = 3
# As a program: fills the workspace, and tells a bound that held from none, and from a workspace that is not its own.
_PROBE_SCRIPT: Final = f"""
head -c {2 * _PROBE_BYTES} /dev/zero >/sandbox/probe 2>/dev/null
size=$(stat -c %s /sandbox/probe) && [ "$size" -gt 0 ] || exit 4
[ "$size" -lt {2 * _PROBE_BYTES} ] || exit {_UNBOUNDED}
"""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What a volume's labels tell of a workspace; None where they do not."""

    create_time: datetime.datetime | None = None
    image_name: str | None = None


class Volumes:
    """The volumes of one installation, named by `name_of`."""

    def __init__(
        self, engine: Engine, images: WorkspaceImages, *, instance: str, name_of: Callable[[str], str]
    ) -> None:
        self._engine = engine
        self._images = images
        self._instance = instance
        self._name_of = name_of
        self._quota = Quota.NONE

    async def provide(self, spec: SandboxSpec, labels: Mapping[str, str]) -> Quota:
        """Makes a workspace and its volume; what is there is kept. Answers what bounds it.

        Raises:
            WorkspaceMissingError: the volume is there, and the image file that it stands for is not.
        """
        sandbox_id, size = spec.sandbox_id, spec.limits.disk_bytes
        volume = await self._find(sandbox_id)
        there = self._images.exists(sandbox_id)
        if volume is None:
            quota = Quota.LOOP if there else self._quota if size else Quota.NONE
            if quota is Quota.LOOP and not there:
                await self._engine.in_thread(lambda: self._images.make(sandbox_id, size))
            await self._make(sandbox_id, quota, size, labels)
            return quota
        quota = _quota_of(volume)
        if quota is Quota.LOOP and not there:
            raise WorkspaceMissingError(sandbox_id, str(self._images.path_of(sandbox_id)))
        if quota is Quota.LOOP and volume["Options"]["device"] != str(self._images.link_of(sandbox_id)):
            await self._move(sandbox_id, size, volume)
        return quota

    async def remove(self, sandbox_id: str) -> None:
        """Removes a volume with its workspace; OK if they are not there."""
        with suppress(MissingError):
            await self._remove_volume(sandbox_id)
        await self._engine.in_thread(lambda: self._images.remove(sandbox_id))

    async def workspaces(self) -> Mapping[str, Workspace]:
        """Every workspace of this installation, and what its volume's labels tell."""
        found = {name: Workspace() for name in await self._engine.in_thread(self._images.names) if is_sandbox_id(name)}
        for sandbox_id, volume in (await self._all()).items():
            if _quota_of(volume) is not Quota.LOOP or sandbox_id in found:
                labels = volume["Labels"]
                text = labels.get(LABEL_CREATED)
                found[sandbox_id] = Workspace(
                    create_time=datetime.datetime.fromisoformat(text) if text else None,
                    image_name=labels.get(LABEL_IMAGE),
                )
        return found

    async def tidy(self) -> None:
        """Removes volumes whose image file is gone, unless a container uses them, and what else a crash left."""
        await self._engine.in_thread(self._images.tidy)
        await self._engine.call("remove what was tried", self._remove_probe)
        for sandbox_id, volume in (await self._all()).items():
            if _quota_of(volume) is Quota.LOOP and not self._images.exists(sandbox_id):
                with suppress(MissingError, ConflictError):
                    await self._remove_volume(sandbox_id)

    async def directories(self) -> Sequence[Path]:
        """Where the workspaces lie on this host, as far as it can be seen from here."""
        facts = await self._engine.call("tell where it keeps volumes", lambda api: api.info())
        found = (self._images.directory, Path(facts["DockerRootDir"]) / "volumes")
        return [path for path in found if path.is_dir()]

    @contextmanager
    def mountable(self, sandbox_id: str) -> Iterator[None]:
        """A container with this workspace can be started inside the block. Blocks."""
        if not self._images.exists(sandbox_id):
            yield
            return
        with self._images.attached(sandbox_id):
            yield

    async def use_quota(self, quota: Quota, image: str) -> str:
        """See the port: makes a small workspace of that kind, fills it from a container, and removes it."""
        if quota is not Quota.NONE and (refusal := await self._try(quota, image)):
            return refusal
        self._quota = quota
        return ""

    async def _try(self, quota: Quota, image: str) -> str:
        try:
            code = await self._engine.call("try a workspace", lambda api: self._fill(api, quota, image))
        except (MissingError, ConflictError) as error:
            return str(error)
        except (EngineError, WorkspaceError) as error:
            return error.detail
        finally:
            await self._engine.call("remove what was tried", self._remove_probe)
        if not code:
            return ""
        return "a program wrote beyond the limit" if code == _UNBOUNDED else "a program could not write to it"

    async def _remove_volume(self, sandbox_id: str) -> None:
        await self._engine.call("remove a volume", lambda api: api.remove_volume(self._name_of(sandbox_id)))

    async def _find(self, sandbox_id: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = await self._engine.call(
                "inspect a volume", lambda api: api.inspect_volume(self._name_of(sandbox_id))
            )
        except MissingError:
            return None
        return found

    async def _all(self) -> Mapping[str, Mapping[str, Any]]:
        label = {"label": f"{LABEL_INSTANCE}={self._instance}"}
        answer = await self._engine.call("list volumes", lambda api: api.volumes(filters=label))
        rows = answer["Volumes"] or []
        return {row["Labels"][LABEL_SANDBOX]: row for row in rows if LABEL_SANDBOX in row["Labels"]}

    async def _make(self, sandbox_id: str, quota: Quota, size: int, labels: Mapping[str, str]) -> None:
        created = {LABEL_CREATED: datetime.datetime.now(datetime.UTC).isoformat()}
        options = self._options(sandbox_id, quota, size)
        name = self._name_of(sandbox_id)
        await self._engine.call(
            "make a volume", lambda api: api.create_volume(name, driver_opts=options, labels={**created, **labels})
        )

    async def _move(self, sandbox_id: str, size: int, volume: Mapping[str, Any]) -> None:
        """The directory of the links is another now: the same workspace gets a new volume, and then a new container."""
        name = self._name_of(sandbox_id)

        def drop(api: Any) -> None:
            with suppress(docker.errors.NotFound):
                api.remove_container(name, force=True, v=False)
            api.remove_volume(name)

        await self._engine.call("replace a volume", drop)
        await self._make(sandbox_id, Quota.LOOP, size, volume["Labels"])

    def _options(self, name: str, quota: Quota, size: int) -> Mapping[str, str]:
        match quota:
            case Quota.LOOP:
                return {"type": "ext4", "device": str(self._images.link_of(name)), "o": MOUNT_OPTIONS}
            case Quota.ENGINE:
                return {"size": str(size)}
            case Quota.NONE:
                return {}

    def _fill(self, api: Any, quota: Quota, image: str) -> int:
        """The exit code of a container that fills a small workspace of that kind."""
        self._remove_probe(api)
        name = self._name_of(_PROBE)
        labels = {LABEL_INSTANCE: self._instance}
        if quota is Quota.LOOP:
            self._images.make(_PROBE, _PROBE_BYTES)
        api.create_volume(name, driver_opts=self._options(_PROBE, quota, _PROBE_BYTES), labels=labels)
        mount = docker.types.Mount(target="/sandbox", source=name, type="volume", no_copy=quota is Quota.LOOP)
        host_config = api.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            log_config=docker.types.LogConfig(type="none"),
            mounts=[mount],
        )
        api.create_container(
            image=image,
            name=name,
            labels=labels,
            user="1000:1000",
            entrypoint=["/bin/sh", "-c", _PROBE_SCRIPT],
            host_config=host_config,
        )
        with self.mountable(_PROBE):
            api.start(name)
        return int(api.wait(name, timeout=_PROBE_S)["StatusCode"])

    def _remove_probe(self, api: Any) -> None:
        name = self._name_of(_PROBE)
        with suppress(docker.errors.NotFound):
            api.remove_container(name, force=True, v=False)
        with suppress(docker.errors.NotFound):
            api.remove_volume(name)
        self._images.remove(_PROBE)


def _quota_of(volume: Mapping[str, Any]) -> Quota:
    options = volume["Options"] or {}
    if options.get("type") == "ext4":
        return Quota.LOOP
    return Quota.ENGINE if "size" in options else Quota.NONE
