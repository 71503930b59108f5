import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web

from services.executor.egress import policy
from services.executor.egress.config import DoorsConfig
from services.executor.egress.door_process import Doors
from services.executor.egress.limits import NO_LIMITS, TrafficLimits
from services.executor.egress.records import EgressRecord

from .harness import SANDBOX, FakePypi, OpenDoors, StartDoors, listening_socket, project, registries_text


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
    if fake.stall is not None:
        fake.stall.set()
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
        package_policy = tmp_path / "packages.toml"
        package_policy.write_text(rules)
        registries = tmp_path / "registries.toml"
        registries.write_text(registries_text(url, redirects))
        records: asyncio.Queue[EgressRecord] = asyncio.Queue()
        as_root = os.geteuid() == 0
        user = 65534 if as_root else os.getuid()
        cache = tmp_path / "cache"
        cache.mkdir(mode=0o700, exist_ok=True)
        if as_root:
            os.chown(cache, user, user)
        config = DoorsConfig(
            uid=user,
            gid=65534 if as_root else os.getgid(),
            registries=registries,
            cache_directory=cache if cache_bytes else None,
            cache_bytes=cache_bytes,
            package_policy=package_policy if rules else None,
            traffic=traffic,
        )
        doors = Doors(config, on_egress=records.put_nowait)
        await doors.start()
        started.append(doors)
        path = str(tmp_path / "doors.sock")
        with listening_socket(path) as listener:
            await doors.open(SANDBOX, listener, policy.DEFAULT)
        return OpenDoors(
            doors=doors,
            records=records,
            socket_path=path,
            registries=registries,
            cache=cache,
            package_policy=package_policy,
        )

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
