"""`python -m services.executor`: reads its configuration once, opens the doors, adopts what is there, serves."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from contextlib import AsyncExitStack, suppress
from typing import TextIO

from qila.executor.v1 import executor_pb2_grpc
from services.executor.audit import Audit
from services.executor.config import ExecutorConfig, instance_of, read_config
from services.executor.egress.door_process import Doors, DoorsUnavailable
from services.executor.profile import load_profile
from services.executor.runtime.docker import DockerRuntime
from services.executor.runtime.images import WorkspaceImages
from services.executor.sandboxes import Sandboxes
from services.executor.servicer import ExecutorServicer
from services.executor.startup import (
    assert_profile_holds,
    doors_config,
    granted,
    settings,
    take_package_policy,
    take_storage,
)
from services.executor.trust import TrustStore, host_bundle
from services.rpc import log
from services.rpc.config import StartError, run_service
from services.rpc.server import ServerConfig, build_server, serve

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
        profile = load_profile()
        images = WorkspaceImages(
            directory=config.state_directory / "workspaces",
            links=config.run_directory / "loop",
            max_inodes=config.workspace_inodes,
        )
        runtime = DockerRuntime(instance=instance_of(config), profile=profile, images=images, runtime=config.runtime)
        stack.push_async_callback(runtime.close)
        quota, space = await take_storage(config, runtime)
        limits = granted(config.default_limits, quota)
        allowed = await assert_profile_holds(config, profile, runtime, limits)
        package_policy = take_package_policy(config)
        audit = Audit()
        doors = Doors(doors_config(config), on_egress=audit.take)
        try:
            await doors.start()
        except DoorsUnavailable as error:
            raise StartError(str(error)) from error
        stack.push_async_callback(doors.stop)
        trust = TrustStore(host_bundle(os.environ), config.run_directory / "trust")
        await asyncio.to_thread(trust.refresh)
        sandboxes = Sandboxes(
            settings(config, allowed, package_policy), runtime, doors, audit=audit, trust=trust, space=space
        )
        stack.push_async_callback(sandboxes.close)
        await sandboxes.adopt()
        idle = asyncio.create_task(sandboxes.stop_idle_forever())
        stack.push_async_callback(_cancel, idle)
        servicer = ExecutorServicer(sandboxes, limits, quota)
        server = await build_server(
            ServerConfig(address=f"unix:{config.run_directory / 'executor.sock'}", service_names=(SERVICE_NAME,)),
            [lambda server: executor_pb2_grpc.add_ExecutorServiceServicer_to_server(servicer, server)],
        )
        await serve(server, companions=[servicer.run_streams])


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
