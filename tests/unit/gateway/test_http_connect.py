from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator

import httpx
import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb

from .gateway_world import World
from .http_world import client_of, open_door

SERVICE = "/qila.gateway.v1.GatewayService"
LOST = "sb_" + "z" * 26


@pytest.fixture(name="client")
async def make_client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as client:
        yield client


def frames(content: bytes) -> list[tuple[int, bytes]]:
    found = []
    while content:
        flags, length = struct.unpack(">BI", content[:5])
        found.append((flags, content[5 : 5 + length]))
        content = content[5 + length :]
    return found


async def test_a_call_in_json_and_its_error(world: World, client: httpx.AsyncClient) -> None:
    made = await client.post(f"{SERVICE}/CreateSandbox", json={"language": "python"})
    assert made.json()["sandbox"]["language"] == "python"
    lost = await client.post(f"{SERVICE}/GetSandbox", json={"sandboxId": LOST})
    assert lost.status_code == 404
    assert lost.json()["code"] == "not_found"
    assert lost.json()["details"][0]["type"] == "google.rpc.ErrorInfo"


async def test_exec_streams_as_grpc_web(world: World, client: httpx.AsyncClient) -> None:
    request = pb.ExecRequest(sandbox_id=world.sandbox_id, program=pb.Program(file="main.py")).SerializeToString()
    body = struct.pack(">BI", 0, len(request)) + request
    headers = {"content-type": "application/grpc-web+proto"}
    world.close_gate("run")
    content = b""
    async with client.stream("POST", f"{SERVICE}/Exec", content=body, headers=headers) as stream:
        async for part in stream.aiter_bytes():
            content += part
            # It comes while the program still runs.
            if b"first " in content:
                world.gates["run"].set()
    told = frames(content)
    events = [pb.ExecResponse.FromString(data).event for flags, data in told if not flags]
    assert (
        b"".join(e.output.data for e in events if e.output.phase == pb.PHASE_RUN and e.output.stream == 1)
        == b"first second"
    )
    assert events[-1].ended.exited == 3
    assert told[-1][0] == 0x80
    assert b"grpc-status: 0" in told[-1][1].lower() or b"grpc-status:0" in told[-1][1].lower()


async def test_a_fault_keeps_its_words_to_itself(world: World, client: httpx.AsyncClient) -> None:
    async def fail(sandbox_id: str) -> executor.Sandbox:
        raise ZeroDivisionError("a secret")

    world.executor.sandbox = fail  # type: ignore[method-assign]
    answer = await client.post(f"{SERVICE}/GetSandbox", json={"sandboxId": world.sandbox_id})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.test"}, 403),
        ({"origin": "http://evil.test"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/grpc"}, 400),
    ],
)
async def test_a_page_or_another_protocol_is_refused(
    world: World, client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    before = set(world.executor.sandboxes)
    headers = {"content-type": "application/json", **headers}
    answer = await client.post(f"{SERVICE}/CreateSandbox", content=b"{}", headers=headers)
    assert answer.status_code == status
    assert (await client.get(f"{SERVICE}/CreateSandbox?message=%7B%7D&encoding=json&connect=v1")).status_code >= 400
    assert set(world.executor.sandboxes) == before


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 100_000, b"{", b"\xff", b'{"nothing": 1}' * 2])
async def test_a_bad_body_is_a_bad_request(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post(f"{SERVICE}/GetSandbox", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")


async def test_the_pages_of_an_allowed_origin_may_call(world: World) -> None:
    origin = "http://console.test"
    async with client_of(world, origins=(origin,)) as client:
        headers = {"origin": origin, "sec-fetch-site": "cross-site"}
        answer = await client.post(f"{SERVICE}/ListSandboxes", json={}, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "connect-protocol-version"}
        assert (await client.options(f"{SERVICE}/Exec", headers=headers | asked)).status_code == 200
        other = await client.get("/v1/sandboxes", headers={"origin": "http://other.test"})
        assert other.status_code == 403
        assert "access-control-allow-origin" not in other.headers


async def test_a_stream_ends_when_the_door_closes(world: World) -> None:
    world.close_gate("run")
    request = json.dumps({"sandboxId": world.sandbox_id, "program": {"file": "main.py"}}).encode()
    body = struct.pack(">BI", 0, len(request)) + request
    headers = {"content-type": "application/connect+json"}
    async with (
        open_door(world) as door,
        httpx.AsyncClient(base_url=f"http://{door.address}", trust_env=False, timeout=10) as client,
        client.stream("POST", f"{SERVICE}/Exec", content=body, headers=headers) as stream,
    ):
        parts = stream.aiter_bytes()
        seen = b""
        while b"output" not in seen:
            seen += await anext(parts)
        async with asyncio.timeout(5):
            await door.stop(5)
            with contextlib.suppress(httpx.RemoteProtocolError):
                async for part in parts:
                    seen += part
    assert any(b'"created"' in data for _, data in frames(seen) if data)
    world.gates["run"].set()
