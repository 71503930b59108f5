"""The OpenAPI document against the door that it describes, by a tool that knows neither."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.http.app import operations_of_door

from .gateway_world import World, program
from .http_world import open_door

# Deterministic: the same cases each time.
SETTINGS = """
seed = 1
workers = 1
request-timeout = 15.0
color = false
generation.max-examples = 4
generation.deterministic = true
generation.database = "none"
phases.stateful.max-steps = 4

# What a schema cannot say: that a lockfile can be read, that a form's path comes before its file, that an offset needs
# a transfer, that a body is an archive with this digest.
[[operations]]
include-operation-id = ["createSandbox", "diffLocks", "uploadFiles", "writeFile", "writeTree"]
checks.positive_data_acceptance.enabled = false

# Its answer goes on until the client leaves, which the tool never does.
[[operations]]
include-operation-id = ["watchFiles"]
enabled = false
"""
UNTESTED = {"watchFiles"}


async def sbom(
    header: resolver.RenderSbomHeader, parts: AsyncIterator[tuple[resolver.SbomPart, bytes]]
) -> AsyncGenerator[bytes, None]:
    async for _ in parts:
        pass
    yield b'{"bomFormat": "CycloneDX"}'


@pytest.mark.timeout(600)
async def test_schemathesis_finds_nothing(world: World, tmp_path: Path) -> None:
    # The fake's own is no JSON.
    world.resolver.render_sbom = sbom  # type: ignore[method-assign]
    live = await world.conductor.start(program(world, exec_id="ex_" + "a" * 26))
    assert live.task is not None
    await live.task
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    async with open_door(world) as door:
        arguments = ["--config-file", "schemathesis.toml", "run", f"http://{door.address}/openapi.json"]
        tool = Path(sys.executable).with_name("schemathesis")
        process = await asyncio.create_subprocess_exec(
            tool, *arguments, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        told, _ = await process.communicate()
    words = told.decode(errors="replace")
    assert process.returncode == 0, words[-8000:]
    tested = {operation.name for operation in operations_of_door()} - UNTESTED
    assert f"Tested: {len(tested)}" in words, words[-8000:]
