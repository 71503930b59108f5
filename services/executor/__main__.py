"""`python -m services.executor`: reads its configuration once, opens the doors, adopts what is there, serves."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import TextIO

import structlog

from qila.executor.v1 import executor_pb2_grpc
from services.executor.config import ExecutorConfig, instance_of, read_config
from services.executor.egress.config import DoorsConfig
from services.executor.egress.door_process import Doors, DoorsUnavailable
from services.executor.egress.records import EgressRecord
from services.executor.errors import EngineError, ImageMissingError, WorkspaceError
from services.executor.profile import Limits, load_profile
from services.executor.quota import QuotaChoice, QuotaRefusedError, choose_quota
from services.executor.runtime.docker import DockerRuntime
from services.executor.runtime.images import WorkspaceImages
from services.executor.runtime.port import Quota
from services.executor.sandboxes import Sandboxes, Settings
from services.executor.servicer import ExecutorServicer
from services.executor.space import HostSpace
from services.rpc import log
from services.rpc.config import StartError, run_service
from services.rpc.server import ServerConfig, build_server, serve

_LOG = structlog.get_logger()
SERVICE_NAME = "qila.executor.v1.ExecutorService"


async def main(config: ExecutorConfig) -> None:
    """Runs the executor until it is told to stop; containers outlive it. StartError if it cannot start."""
    log.configure("executor", level=config.log_level)
    if os.geteuid() != 0:
        raise StartError("must run as root: it binds the sandboxes' sockets as the user that a container's root is")
    config.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.run_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stack.enter_context(_lock(config))
        images = WorkspaceImages(
            directory=config.state_directory / "workspaces",
            links=config.run_directory / "loop",
            max_inodes=config.workspace_inodes,
        )
        runtime = DockerRuntime(
            instance=instance_of(config), profile=load_profile(), images=images, runtime=config.runtime
        )
        stack.push_async_callback(runtime.close)
        try:
            await runtime.check(config.image)
            quota = await choose_quota(config.workspace_quota, runtime, config.image)
            space = HostSpace([config.state_directory, *await runtime.directories()], config.low_water)
        except (EngineError, ImageMissingError, WorkspaceError, QuotaRefusedError) as error:
            raise StartError(str(error)) from error
        # The doors log each decision themselves; here it is news only to who looks for it.
        doors = Doors(DoorsConfig(uid=config.doors_uid, gid=config.doors_uid), on_egress=_note_egress)
        try:
            await doors.start()
        except DoorsUnavailable as error:
            raise StartError(str(error)) from error
        stack.push_async_callback(doors.stop)
        sandboxes = Sandboxes(_settings(config), runtime, doors, space)
        stack.push_async_callback(sandboxes.close)
        await sandboxes.adopt()
        idle = asyncio.create_task(sandboxes.stop_idle_forever())
        stack.push_async_callback(_cancel, idle)
        servicer = ExecutorServicer(sandboxes, _granted(config.default_limits, quota), quota)
        server = await build_server(
            ServerConfig(address=f"unix:{config.run_directory / 'executor.sock'}", service_names=(SERVICE_NAME,)),
            [lambda server: executor_pb2_grpc.add_ExecutorServiceServicer_to_server(servicer, server)],
        )
        await serve(server)


def _settings(config: ExecutorConfig) -> Settings:
    return Settings(
        image=config.image,
        state_directory=config.state_directory,
        run_directory=config.run_directory,
        max_sandboxes=config.max_sandboxes,
        idle_stop_s=config.idle_stop_s,
    )


def _granted(limits: Limits, quota: QuotaChoice) -> Limits:
    """A limit that nothing enforces is not granted."""
    return replace(limits, disk_bytes=0) if quota.quota is Quota.NONE else limits


def _note_egress(record: EgressRecord) -> None:
    _LOG.debug("egress", **record.to_message())


def _lock(config: ExecutorConfig) -> TextIO:
    """Two executors over one state directory would remove each other's sandboxes."""
    file = (config.state_directory / "executor.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartError(f"another executor uses {config.state_directory}; stop it, or set QILA_STATE_DIR") from None
    return file


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    sys.exit(run_service("executor", read_config, main))
