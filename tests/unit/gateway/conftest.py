"""What the gateway's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from qila.executor.v1 import executor_pb2 as executor
from services.gateway.store.port import SandboxRecord

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
