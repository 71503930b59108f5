"""What the gateway's tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1 import gateway_pb2_grpc
from services.gateway.__main__ import MAX_MESSAGE_BYTES, SERVICE_NAME
from services.gateway.conductor import Conductor
from services.gateway.config import ConductorConfig
from services.gateway.executor_fake import FakeExecutor
from services.gateway.resolver_fake import FakeResolver
from services.gateway.servicer import GatewayServicer
from services.gateway.store.port import SandboxRecord
from services.gateway.store.sql import open_store, upgrade
from services.rpc.channel import build_channel
from services.rpc.server import ServerConfig, build_server

from .gateway_world import World


@pytest.fixture(name="world")
async def make_world() -> AsyncIterator[World]:
    """A world with one sandbox, which needs one package."""
    made = World()
    box = await made.executor.create_sandbox(executor.CreateSandboxRequest())
    made.sandbox_id = box.id
    await made.store.add_sandbox(
        SandboxRecord(sandbox_id=box.id, language="", create_time_ns=1, cpu_millis=0, memory_bytes=0, pids=0)
    )
    made.sandbox.files.update({"main.py": b"import yaml", "requirements.txt": b"pyyaml"})
    yield made
    await made.conductor.close()


@pytest.fixture
async def executor_fake() -> FakeExecutor:
    return FakeExecutor()


@pytest.fixture
async def resolver_fake() -> FakeResolver:
    return FakeResolver()


@pytest.fixture
async def stub(tmp_path: Path, executor_fake: FakeExecutor, resolver_fake: FakeResolver) -> AsyncIterator[Any]:
    await asyncio.to_thread(upgrade, tmp_path / "gateway.db")
    store = open_store(tmp_path / "gateway.db")
    conductor = Conductor(
        executor_port=executor_fake, resolver_port=resolver_fake, store=store, config=ConductorConfig()
    )
    servicer = GatewayServicer(
        conductor=conductor, executor_port=executor_fake, resolver_port=resolver_fake, store=store, patience=1
    )
    server = await build_server(
        ServerConfig(address="127.0.0.1:0", service_names=(SERVICE_NAME,), max_message_bytes=MAX_MESSAGE_BYTES),
        [lambda server: gateway_pb2_grpc.add_GatewayServiceServicer_to_server(servicer, server)],
    )
    await server.start()
    async with build_channel(server.address, max_message_bytes=MAX_MESSAGE_BYTES) as channel:
        yield gateway_pb2_grpc.GatewayServiceStub(channel)
    await server.stop(0)
    await conductor.close()
    await store.close()


@pytest.fixture
async def sandbox_id(stub: Any) -> str:
    made = await stub.CreateSandbox(pb.CreateSandboxRequest(language="python"))
    return str(made.sandbox.id)
