import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web

from services.executor.egress.door_process import Doors
from services.executor.egress.limits import NO_LIMITS, TrafficLimits

from .harness import FakePypi, OpenDoors, StartDoors, open_doors, project


@pytest.fixture
async def pypi() -> AsyncIterator[FakePypi]:
    fake = FakePypi()
    runner = web.ServerRunner(web.Server(fake.answer), shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    fake.url = f"http://127.0.0.1:{port}"
    fake.project = project(fake.url)
    yield fake
    await runner.cleanup()


@pytest.fixture
async def start_doors(tmp_path: Path) -> AsyncIterator[StartDoors]:
    started: list[Doors] = []

    async def start(
        url: str,
        *,
        cache_bytes: int = 1 << 30,
        redirects: Sequence[str] = (),
        rules: str = "",
        traffic: TrafficLimits = NO_LIMITS,
    ) -> OpenDoors:
        opened = await open_doors(
            tmp_path, url, cache_bytes=cache_bytes, redirects=redirects, rules=rules, traffic=traffic
        )
        started.append(opened.doors)
        return opened

    yield start
    for doors in started:
        await doors.stop()


@pytest.fixture
async def opened(pypi: FakePypi, start_doors: StartDoors) -> OpenDoors:
    return await start_doors(pypi.url)


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
