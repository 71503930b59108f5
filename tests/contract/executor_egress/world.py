"""The executor's own code over a fake engine and fake doors, spoken to as the gateway does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qila.executor.v1 import executor_pb2_grpc
from services.executor.agent.frames import encode_frame
from services.executor.audit import Audit
from services.executor.egress.fake_doors import FakeDoors
from services.executor.egress.policy import Ceiling
from services.executor.egress.records import EgressRecord
from services.executor.images import DEFAULT_NAME, Image, Images
from services.executor.process import ProcessSpec
from services.executor.profile import Limits
from services.executor.quota import QuotaChoice
from services.executor.runtime.fake import FakeRuntime
from services.executor.runtime.port import Quota, SandboxSpec
from services.executor.sandboxes import Sandboxes, Settings
from services.executor.servicer import ExecutorServicer
from services.executor.trust import TrustStore
from services.gateway.executor_client import ExecutorClient
from services.rpc.channel import build_channel
from services.rpc.server import ServerConfig, build_server

LIMITS = Limits(cpu_millis=1000, memory_bytes=1 << 30, pids=64)
WELCOME = {"type": "welcome", "protocol": 1, "toolchains": {"python": "3.13.5"}, "processes": []}


ONE_IMAGE = Images(Image(name=DEFAULT_NAME, reference="image"))
# What the engine has beside it.
IMAGES = ("older", "newer")


@dataclass(kw_only=True)
class ExecutorWorld:
    """One executor at a time in a directory; `restart` is a kill -9 and another one."""

    directory: Path
    ceiling: Ceiling
    runtime: FakeRuntime = field(init=False)
    doors: FakeDoors = field(init=False)
    sandboxes: Sandboxes = field(init=False)
    package_policy: str = ""
    images: Images = ONE_IMAGE
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    async def start(self) -> None:
        self.runtime = FakeRuntime(images=["image", *IMAGES], on_start=self._welcome)
        await self._begin()

    async def restart(self) -> None:
        await self.doors.stop()
        await self.sandboxes.close()
        await self._begin()

    async def _begin(self) -> None:
        settings = Settings(
            images=self.images,
            state_directory=self.directory / "state",
            run_directory=self.directory / "run",
            max_sandboxes=9,
            idle_stop_s=600,
            ceiling=self.ceiling,
            package_policy=self.package_policy,
        )
        audit = Audit()
        self.doors = FakeDoors(on_egress=audit.take)
        await self.doors.start()
        trust = TrustStore(None, self.directory / "trust")
        self.sandboxes = Sandboxes(settings, self.runtime, self.doors, audit=audit, trust=trust)
        await self.sandboxes.adopt()

    async def close(self) -> None:
        await self.sandboxes.close()
        await self.doors.stop()
        for writer in self.connections:
            writer.close()

    def run(self, sandbox_id: str, process_id: str, *, user: str = "program") -> None:
        """Something runs from now on."""
        spec = ProcessSpec(
            argv=("true",),
            env={},
            cwd="/sandbox",
            user=user,
            timeout_ms=0,
            output_limit_bytes=1,
            end_at_output_limit=False,
            background=False,
        )
        self.sandboxes.find(sandbox_id).processes.start(process_id, spec)

    def decide(self, sandbox_id: str, **fields: Any) -> None:
        """The doors decide something."""
        row: dict[str, Any] = {
            "phase": "RUN", "uid": 1000, "method": "GET", "host": "", "path": "/", "status": 403,
            "verdict": "refused", "rule": "method", "bytes": 0, "digest": "",
        }  # fmt: skip
        self.doors.report(EgressRecord(sandbox=sandbox_id, **{**row, **fields}))

    async def _welcome(self, spec: SandboxSpec) -> None:
        _, writer = await asyncio.open_unix_connection(str(spec.socket_directory / "control.sock"))
        writer.write(encode_frame(WELCOME))
        self.connections.append(writer)


@asynccontextmanager
async def served(world: ExecutorWorld) -> AsyncIterator[ExecutorClient]:
    """The gateway's client of the world's executor."""
    servicer = ExecutorServicer(world.sandboxes, LIMITS, QuotaChoice(quota=Quota.NONE, detail=""))
    server = await build_server(
        ServerConfig(address=f"unix:{world.directory}/x.sock", service_names=("qila.executor.v1.ExecutorService",)),
        [lambda server: executor_pb2_grpc.add_ExecutorServiceServicer_to_server(servicer, server)],
    )
    await server.start()
    try:
        async with build_channel(server.address) as channel:
            yield ExecutorClient(channel)
    finally:
        await server.stop(0)
