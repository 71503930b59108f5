"""uv and pip through the doors to the real PyPI."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.executor.egress import policy
from services.executor.egress.config import DoorsConfig
from services.executor.egress.door_process import Doors
from services.executor.egress.records import EgressRecord

SANDBOX = "sb_" + "b" * 26


@pytest.fixture
async def records() -> list[EgressRecord]:
    return []


@pytest.fixture
async def index_url(tmp_path: Path, records: list[EgressRecord]) -> AsyncIterator[str]:
    """A loopback port that carries bytes to the door, as sandboxd does."""
    as_root = os.geteuid() == 0
    user = 65534 if as_root else os.getuid()
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    if as_root:
        os.chown(cache, user, user)
    group = 65534 if as_root else os.getgid()
    config = DoorsConfig(uid=user, gid=group, cache_directory=cache, cache_bytes=1 << 30)
    doors = Doors(config, on_egress=records.append)
    await doors.start()
    path = str(tmp_path / "doors.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(128)
        await doors.open(SANDBOX, listener, policy.DEFAULT)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        door_reader, door_writer = await asyncio.open_unix_connection(path)
        door_writer.write(b"QILA1 mirror 1000\n")
        await asyncio.gather(pump(reader, door_writer), pump(door_reader, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/pypi/simple/"
    server.close()
    await doors.stop()


async def run(*command: str, home: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_uv_installs(index_url: str, records: list[EgressRecord], tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    await run(
        str(uv), "pip", "install", "--python", sys.executable, "--target", str(tmp_path / "target"), "requests",
        "--default-index", index_url, "--no-cache", "--no-config", home=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "target" / "requests" / "__init__.py").exists()
    assert (tmp_path / "target" / "urllib3").is_dir()
    verified = [record for record in records if record.rule == "pypi file" and record.path.endswith(".whl")]
    assert len(verified) >= 5
    assert all(record.digest and record.verdict == "allowed" for record in verified)


async def test_a_second_install_comes_from_the_cache(
    index_url: str, records: list[EgressRecord], tmp_path: Path
) -> None:
    uv = Path(sys.executable).with_name("uv")
    for target in ("one", "other"):
        await run(
            str(uv), "pip", "install", "--python", sys.executable, "--target", str(tmp_path / target), "requests",
            "--default-index", index_url, "--no-cache", "--no-config", home=tmp_path,
        )  # fmt: skip
    asked = [record for record in records if record.path.endswith(".whl") and record.method == "GET"]
    # Where the registry breaks off, uv asks again.
    wheels = [record for record in asked if record.verdict != "failed"]
    assert {record.path for record in asked} == {record.path for record in wheels}
    assert len(wheels) >= 10
    for wheel in wheels:
        assert wheel.verdict == "allowed", wheel
        assert (tmp_path / "cache" / "blobs" / wheel.digest).stat().st_size == wheel.bytes
    installed = [{file.name for file in (tmp_path / target).iterdir()} for target in ("one", "other")]
    assert installed[0] == installed[1]


async def test_pip_downloads(index_url: str, records: list[EgressRecord], tmp_path: Path) -> None:
    await run(
        sys.executable, "-m", "pip", "--isolated", "download", "requests", "--dest", str(tmp_path / "target"),
        "--index-url", index_url, "--no-cache-dir", "--disable-pip-version-check", home=tmp_path,
    )  # fmt: skip
    assert len(list((tmp_path / "target").glob("*.whl"))) >= 5
    assert {record.verdict for record in records} == {"allowed"}
