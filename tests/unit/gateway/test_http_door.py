from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from qila.executor.v1 import executor_pb2 as executor
from services.gateway.config import read_config
from services.gateway.http.config import HttpConfig, read_http_config
from services.gateway.http.door import HttpDoor, hosts_of
from services.gateway.http.results import Clipped
from services.rpc.config import ConfigError, Environment
from services.rpc.server import AddressInUse, BadAddress

from .gateway_world import World
from .http_world import open_door, servicer_of


def test_the_door_is_there_unless_its_address_is_set_and_empty() -> None:
    config = read_config(Environment({"QILA_STATE_DIR": "/s", "QILA_RUN_DIR": "/r"}))
    assert config.http == HttpConfig(address="127.0.0.1:8080")
    for off in ("", "off"):
        assert read_http_config(Environment({"QILA_HTTP_ADDRESS": off})) is None
    given = {"QILA_HTTP_HOSTS": "qila.test:80, [::1]:8080", "QILA_HTTP_ORIGINS": "http://127.0.0.1:3000"}
    config_given = read_http_config(Environment(given))
    assert config_given is not None
    assert config_given.hosts == ("qila.test:80", "[::1]:8080")
    assert config_given.origins == ("http://127.0.0.1:3000",)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QILA_HTTP_ORIGINS", "null"),
        ("QILA_HTTP_ORIGINS", "*"),
        ("QILA_HTTP_ORIGINS", "http://a.test/"),
        ("QILA_HTTP_ORIGINS", "http://a.test,"),
        ("QILA_HTTP_HOSTS", "*.test"),
        ("QILA_HTTP_HOSTS", "http://a.test"),
        ("QILA_HTTP_HOSTS", "A.test"),
    ],
)
def test_a_list_that_says_too_much_stops_the_gateway(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_http_config(Environment({variable: value}))
    assert variable in str(caught.value)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:80", "127.0.0.1", "unix:/tmp/x", "[::]:0"])
async def test_only_loopback_is_served(world: World, address: str) -> None:
    with pytest.raises(BadAddress):
        HttpDoor(servicer_of(world), HttpConfig(address=address))


def test_the_port_that_clients_leave_out_may_be_left_out() -> None:
    assert hosts_of("localhost", 80) == ["localhost:80", "localhost"]
    assert hosts_of("localhost", 8080) == ["localhost:8080"]


async def test_an_address_in_use_is_told(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressInUse, match="in use"):
            HttpDoor(servicer_of(world), HttpConfig(address=address))


async def test_every_own_name_is_answered_and_no_other(world: World) -> None:
    async with open_door(world) as door, httpx.AsyncClient(trust_env=False) as client:
        port = door.address.rpartition(":")[2]
        for host, status in ((f"localhost:{port}", 200), (f"LOCALHOST:{port}", 200), (f"localhost:{port}0", 403)):
            answer = await client.get(f"http://{door.address}/v1/health", headers={"host": host})
            assert answer.status_code == status


async def test_what_is_no_http_is_told_in_the_same_form(world: World) -> None:
    async with open_door(world) as door:
        host, _, port = door.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"\x16\x03\x01 nonsense\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"reason": "HTTP_INVALID"' in answer


@pytest.mark.parametrize("way", ["PUT", "POST"])
async def test_an_upload_that_breaks_off_leaves_the_old_file(world: World, way: str) -> None:
    write, writing = world.executor.write_file, asyncio.Event()

    async def noted(
        header: executor.WriteFileHeader, chunks: AsyncIterator[bytes], **options: Any
    ) -> executor.WriteFileResponse:
        writing.set()
        return await write(header, chunks, **options)

    world.executor.write_file = noted  # type: ignore[method-assign]
    async with open_door(world) as door:
        host, _, port = door.address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        path = f"/v1/sandboxes/{world.sandbox_id}/files" + ("/main.py" if way == "PUT" else "")
        head = f"{way} {path} HTTP/1.1\r\nHost: {door.address}\r\nContent-Length: 100000\r\n"
        part = (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="main.py"\r\n\r\n' if way == "POST" else b""
        )
        writer.write(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode() + part + b"half")
        await writer.drain()
        async with asyncio.timeout(10):
            await writing.wait()
            tasks = set(door._server.server_state.tasks)
            writer.close()
            await asyncio.wait(tasks)
        assert world.sandbox.files["main.py"] == b"import yaml"


def test_clipped_keeps_both_ends_in_bounded_memory() -> None:
    clipped, half = Clipped(), 512 << 10
    whole = bytes(index % 251 for index in range(3 * half + 7))
    for start in range(0, len(whole), 65_537):
        clipped.add(whole[start : start + 65_537])
    assert clipped.content() == whole[:half] + whole[-half:]
    assert clipped.left_out == len(whole) - 2 * half
