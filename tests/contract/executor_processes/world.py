"""The executor's own code, over a runtime that is fake or real, spoken to over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from qila.executor.v1 import executor_pb2_grpc
from services.executor.audit import Audit
from services.executor.egress.fake_doors import FakeDoors
from services.executor.egress.policy import Ceiling
from services.executor.images import DEFAULT_NAME, Image, Images
from services.executor.profile import Limits
from services.executor.quota import QuotaChoice
from services.executor.runtime.port import Quota, Runtime
from services.executor.sandboxes import Sandboxes, Settings
from services.executor.servicer import ExecutorServicer
from services.executor.trust import TrustStore
from services.rpc.channel import build_channel
from services.rpc.server import ServerConfig, build_server

LIMITS = Limits(cpu_millis=2000, memory_bytes=512 << 20, pids=128)


@asynccontextmanager
async def executor(
    directory: Path, runtime: Runtime, image: str, *, idle_stop_s: float = 600
) -> AsyncIterator[executor_pb2_grpc.ExecutorServiceAsyncStub]:
    """One executor's life over a state directory; what runs in the sandboxes outlives it."""
    settings = Settings(
        images=Images(Image(name=DEFAULT_NAME, reference=image)),
        state_directory=directory / "state",
        run_directory=directory / "run",
        max_sandboxes=9,
        idle_stop_s=idle_stop_s,
        ceiling=Ceiling(),
        package_policy="",
    )
    audit = Audit()
    doors = FakeDoors(on_egress=audit.take)
    await doors.start()
    sandboxes = Sandboxes(settings, runtime, doors, audit=audit, trust=TrustStore(None, directory / "trust"))
    await sandboxes.adopt()
    servicer = ExecutorServicer(sandboxes, LIMITS, QuotaChoice(quota=Quota.NONE, detail=""))
    server = await build_server(
        ServerConfig(address=f"unix:{directory}/x.sock", service_names=("qila.executor.v1.ExecutorService",)),
        [lambda server: executor_pb2_grpc.add_ExecutorServiceServicer_to_server(servicer, server)],
    )
    await server.start()
    idle = asyncio.create_task(sandboxes.stop_idle_forever())
    try:
        async with build_channel(server.address) as channel:
            yield executor_pb2_grpc.ExecutorServiceStub(channel)
    finally:
        idle.cancel()
        await server.stop(0)
        await sandboxes.close()
        await doors.stop()
