"""The runtime port on a Docker Engine, API 1.41 or newer, cgroup v1 or v2."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, TypeVar, cast

import docker
import docker.errors
import docker.utils
import requests.exceptions

from services.executor.errors import EngineError, ImageMissingError
from services.executor.profile import Profile
from services.executor.runtime.docker_container import container_settings
from services.executor.runtime.port import SandboxSpec, SandboxStatus

Result = TypeVar("Result")

LABEL_INSTANCE = "dev.qila.instance"
LABEL_SANDBOX = "dev.qila.sandbox"
LABEL_LIMITS = "dev.qila.limits"
LABEL_PROFILE = "dev.qila.profile"
LABEL_CREATED = "dev.qila.created"

# The package blocks, so calls run in threads: few, because the engine serialises most of the work anyway.
THREADS = 8
CALL_TIMEOUT_S = 60


class DockerRuntime:
    """Sandboxes as containers and named volumes, both labelled with the installation's instance."""

    def __init__(self, *, instance: str, profile: Profile, runtime: str | None = None) -> None:
        """`runtime` is the engine's name of an OCI runtime (runc, runsc, kata); None takes the engine's default."""
        self._instance = instance
        self._profile = profile
        self._runtime = runtime
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
        self._api: Any = None

    async def check(self, image: str) -> None:
        """See the port."""
        await self._call("answer", lambda api: api.ping())
        try:
            await self._call("inspect the sandbox image", lambda api: api.inspect_image(image))
        except _MissingError:
            raise ImageMissingError(image) from None

    async def create(self, spec: SandboxSpec) -> None:
        """See the port."""
        name = self._name(spec.sandbox_id)
        labels = self._labels(spec)
        created = {LABEL_CREATED: datetime.datetime.now(datetime.UTC).isoformat()}
        try:
            await self._call("inspect a volume", lambda api: api.inspect_volume(name))
        except _MissingError:
            await self._call("make a volume", lambda api: api.create_volume(name, labels=labels | created))
        try:
            await self._make_container(spec)
        except _ConflictError:
            if await self._is_outdated(spec.sandbox_id):
                await self.remove_container(spec.sandbox_id)
                await self._make_container(spec)

    async def start(self, sandbox_id: str) -> None:
        """See the port."""
        try:
            await self._call("start a container", lambda api: api.start(self._name(sandbox_id)))
        except _MissingError as error:
            raise EngineError("start a container", str(error)) from None

    async def kill(self, sandbox_id: str) -> None:
        """See the port."""
        try:
            await self._call("kill a container", lambda api: api.kill(self._name(sandbox_id)))
        except (_MissingError, _ConflictError):
            return

    async def remove(self, sandbox_id: str) -> None:
        """See the port."""
        await self.remove_container(sandbox_id)
        try:
            await self._call("remove a volume", lambda api: api.remove_volume(self._name(sandbox_id)))
        except _MissingError:
            return

    async def remove_container(self, sandbox_id: str) -> None:
        """See the port."""
        try:
            await self._call(
                "remove a container", lambda api: api.remove_container(self._name(sandbox_id), force=True, v=False)
            )
        except (_MissingError, _ConflictError):
            # A conflict here means that another removal of the same container is under way.
            return

    async def list(self) -> Sequence[SandboxStatus]:
        """See the port."""
        label = {"label": f"{LABEL_INSTANCE}={self._instance}"}
        containers = await self._call("list containers", lambda api: api.containers(all=True, filters=label))
        volumes = await self._call("list volumes", lambda api: api.volumes(filters=label))
        container_of = {row["Labels"][LABEL_SANDBOX]: row for row in containers if LABEL_SANDBOX in row["Labels"]}
        volume_of = {
            row["Labels"][LABEL_SANDBOX]: row for row in volumes["Volumes"] or [] if LABEL_SANDBOX in row["Labels"]
        }
        return [
            SandboxStatus(
                sandbox_id=sandbox_id,
                has_volume=sandbox_id in volume_of,
                has_container=sandbox_id in container_of,
                running=container_of.get(sandbox_id, {}).get("State") == "running",
                create_time=_created(volume_of.get(sandbox_id)),
            )
            for sandbox_id in sorted(container_of.keys() | volume_of.keys())
        ]

    async def is_running(self, sandbox_id: str) -> bool:
        """See the port."""
        try:
            state = await self._call("inspect a container", lambda api: api.inspect_container(self._name(sandbox_id)))
        except _MissingError:
            return False
        return bool(state["State"]["Running"])

    async def close(self) -> None:
        """See the port."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._api is not None:
            self._api.close()

    def _name(self, sandbox_id: str) -> str:
        return f"qila-{self._instance}-{sandbox_id}"

    def _labels(self, spec: SandboxSpec) -> dict[str, str]:
        return {
            LABEL_INSTANCE: self._instance,
            LABEL_SANDBOX: spec.sandbox_id,
            LABEL_LIMITS: json.dumps(asdict(spec.limits), sort_keys=True),
        }

    async def _make_container(self, spec: SandboxSpec) -> None:
        name, labels = self._name(spec.sandbox_id), self._labels(spec) | {LABEL_PROFILE: self._profile.digest()}

        def make(api: Any) -> None:
            settings = container_settings(api, self._profile, spec, name=name, labels=labels, runtime=self._runtime)
            api.create_container(**settings)

        try:
            await self._call("make a container", make)
        except _MissingError:
            raise ImageMissingError(spec.image) from None

    async def _is_outdated(self, sandbox_id: str) -> bool:
        """Whether the container was made by another profile, and nothing runs in it."""
        try:
            there = await self._call("inspect a container", lambda api: api.inspect_container(self._name(sandbox_id)))
        except _MissingError:
            return True
        return not there["State"]["Running"] and there["Config"]["Labels"].get(LABEL_PROFILE) != self._profile.digest()

    async def _call(self, operation: str, work: Callable[[Any], Result]) -> Result:
        """Runs `work` in a thread; third-party errors stop here."""

        def run() -> Result:
            if self._api is None:
                self._api = cast("Any", docker).APIClient(version="auto", timeout=CALL_TIMEOUT_S, **_from_environment())
            return work(self._api)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except docker.errors.NotFound as error:
            raise _MissingError(str(error.explanation)) from error
        except docker.errors.APIError as error:
            if error.response is not None and error.response.status_code == requests.codes.conflict:
                raise _ConflictError(str(error.explanation)) from error
            raise EngineError(operation, str(error.explanation or error)) from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            raise EngineError(operation, _advice(error)) from error


class _MissingError(Exception):
    """The engine knows no such object."""


class _ConflictError(Exception):
    """The object is there already, or in the wrong state."""


def _from_environment() -> dict[str, Any]:
    return cast("dict[str, Any]", docker.utils.kwargs_from_env())


def _advice(error: Exception) -> str:
    text = str(error)
    if "Permission denied" in text or "PermissionError" in text:
        return "not permitted to use the engine's socket; run as a user that may (root, say)"
    if "No such file" in text or "Connection refused" in text or "ConnectionRefused" in text:
        return "no Docker Engine answers; start it, or run 'make engine'"
    return text


def _created(volume: dict[str, Any] | None) -> datetime.datetime | None:
    text = (volume or {}).get("Labels", {}).get(LABEL_CREATED)
    return datetime.datetime.fromisoformat(text) if text else None
