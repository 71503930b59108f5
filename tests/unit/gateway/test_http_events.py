from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.executor_fake import FakeProcess
from services.gateway.http.config import HttpConfig
from services.gateway.http.door import HttpDoor
from services.gateway.http.events import beating
from services.gateway.live import LiveExec

from .gateway_world import World
from .http_world import client_of, events_in, open_door, output_in, servicer_of

EXEC = "ex_" + "a" * 26
STREAM = {"accept": "text/event-stream"}


@pytest.fixture(name="client")
async def make_client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as client:
        yield client


async def read_until(stream: httpx.Response, words: str) -> str:
    text = ""
    async with asyncio.timeout(10):
        async for part in stream.aiter_text():
            text += part
            if words in text and text.endswith("\n\n"):
                return text
    raise AssertionError(text)


async def test_after_every_event_the_stream_goes_on_exactly(world: World, client: httpx.AsyncClient) -> None:
    url = f"/v1/sandboxes/{world.sandbox_id}"
    body = {"filename": "main.py", "exec_id": EXEC}
    answer = await client.post(f"{url}/exec", json=body, headers=STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    whole = events_in(answer.text)
    assert [whole[0][1], whole[-1][1]] == ["created", "ended"]
    assert len({event_id for event_id, _, _ in whole}) == len(whole)
    for index, (event_id, _, _) in enumerate(whole[:-1]):
        headers = STREAM | {"last-event-id": event_id}
        attached = await client.get(f"{url}/execs/{EXEC}/events", headers=headers)
        rest = events_in(attached.text)
        for stream in ("stdout", "stderr"):
            assert output_in(whole[: index + 1], stream) + output_in(rest, stream) == output_in(whole, stream)
        assert [item for item in rest if item[1] != "output"] == [
            item for item in whole[index + 1 :] if item[1] != "output"
        ]
        again = await client.post(f"{url}/exec", json={"filename": "main.py"}, headers=headers)
        assert events_in(again.text) == rest
    ended = STREAM | {"last-event-id": whole[-1][0]}
    assert (await client.get(f"{url}/execs/{EXEC}/events", headers=ended)).status_code == 204
    assert world.executor.started.count(EXEC) == 1


async def test_output_of_later_runs_goes_on_exactly_too(world: World, client: httpx.AsyncClient) -> None:
    world.sandbox.files["main.py"] = b"x"
    world.resolver.missing = {b"bad": [resolver.MissingImport(module="more", suggestion="more")]}
    body = {"filename": "main.py", "exec_id": EXEC, "install_missing": True}
    url = f"/v1/sandboxes/{world.sandbox_id}"
    whole = events_in((await client.post(f"{url}/exec", json=body, headers=STREAM)).text)
    runs = {data["output"]["run"] for _, kind, data in whole if kind == "output"}
    assert runs >= {0, 1}
    for index, (event_id, _, _) in enumerate(whole[:-1]):
        params = {"after": event_id}
        rest = events_in((await client.get(f"{url}/execs/{EXEC}/events", params=params)).text)
        assert output_in(whole[: index + 1]) + output_in(rest) == output_in(whole)
    told = (await client.get(f"{url}/execs/{EXEC}/result")).json()
    assert told["runs"] == len(runs)
    assert told["stdout"] == "first second"


@pytest.mark.parametrize(
    ("event_id", "status"),
    [
        ("nonsense", 400),
        ("ex_" + "b" * 26 + ".1.0.0.0", 409),
        (f"{EXEC}.99.0.0.0", 409),
        (f"{EXEC}.1.9.0.0", 409),
        (f"{EXEC}.{'9' * 19}.0.0.0", 400),
    ],
)
async def test_a_position_that_never_was_is_refused(
    world: World, client: httpx.AsyncClient, event_id: str, status: int
) -> None:
    url = f"/v1/sandboxes/{world.sandbox_id}"
    await client.post(f"{url}/exec", json={"filename": "main.py", "exec_id": EXEC})
    answer = await client.get(f"{url}/execs/{EXEC}/events", headers={"last-event-id": event_id})
    assert answer.status_code == status
    assert answer.json()["error"]["reason"] in {
        "EVENT_ID_INVALID",
        "EVENT_OF_ANOTHER_EXEC",
        "SEQUENCE_BEYOND_END",
        "RUN_BEYOND_END",
    }


async def test_a_position_of_an_exec_that_is_not_there_starts_nothing(world: World, client: httpx.AsyncClient) -> None:
    headers = STREAM | {"last-event-id": f"{EXEC}.1.0.0.0"}
    answer = await client.post(f"/v1/sandboxes/{world.sandbox_id}/exec", json={"filename": "main.py"}, headers=headers)
    assert answer.status_code == 404
    assert not world.executor.started


async def test_what_keeps_a_program_from_starting_is_told_in_either_form(
    world: World, client: httpx.AsyncClient
) -> None:
    url = f"/v1/sandboxes/{world.sandbox_id}"
    body = {"filename": "gone.py", "exec_id": EXEC}
    events = events_in((await client.post(f"{url}/exec", json=body, headers=STREAM)).text)
    assert events[-1][1] == "failed"
    assert events[-1][2]["error"]["reason"] == "TARGET_NOT_FOUND"
    attached = events_in((await client.get(f"{url}/execs/{EXEC}/events")).text)
    assert attached[-1][2]["ended"]["plan_failed"]["reason"] == "TARGET_NOT_FOUND"


async def test_a_client_that_vanishes_does_not_end_the_exec(world: World, client: httpx.AsyncClient) -> None:
    world.close_gate("run")
    url = f"/v1/sandboxes/{world.sandbox_id}"
    body = {"filename": "main.py", "exec_id": EXEC}
    async with client.stream("POST", f"{url}/exec", json=body, headers=STREAM) as stream:
        seen = await read_until(stream, '"first "')
    with pytest.raises(httpx.ReadTimeout):
        await client.post(f"{url}/exec", json=body, timeout=0.2)
    async with client.stream(
        "GET", f"{url}/execs/{EXEC}/events", headers=STREAM | {"last-event-id": events_in(seen)[-1][0]}
    ) as stream:
        world.gates["run"].set()
        rest = await read_until(stream, "event: ended")
    assert output_in(events_in(seen) + events_in(rest)) == "first second"
    assert (await client.get(f"{url}/execs/{EXEC}/result")).json()["end"] == {"exited": 3}


async def test_a_watcher_that_left_is_no_longer_served(world: World) -> None:
    world.close_gate("run")
    async with open_door(world) as door:
        async with httpx.AsyncClient(base_url=f"http://{door.address}", trust_env=False) as client:
            body = {"filename": "main.py"}
            url = f"/v1/sandboxes/{world.sandbox_id}/exec"
            async with client.stream("POST", url, json=body, headers=STREAM) as stream:
                await read_until(stream, '"first "')
                assert len(door._server.server_state.tasks) == 1
        async with asyncio.timeout(10):
            while door._server.server_state.tasks:
                await asyncio.wait(set(door._server.server_state.tasks))
        assert world.executor.sandboxes


async def test_a_reader_that_is_slow_slows_only_itself(world: World, client: httpx.AsyncClient) -> None:
    total = 64 << 20

    async def pour(process: FakeProcess) -> int:
        for _ in range(total >> 16):
            process.write(b"x" * 65536)
            await asyncio.sleep(0)
        return 0

    world.executor.programs["pour"] = pour
    url = f"/v1/sandboxes/{world.sandbox_id}"
    body = {"command": ["pour"], "exec_id": EXEC}
    async with client.stream("POST", f"{url}/exec", json=body, headers=STREAM) as stream:
        # Nothing is read while the program runs to its end and another client is served.
        told = (await client.get(f"{url}/execs/{EXEC}/result")).json()
        assert told["end"] == {"exited": 0}
        seen = 0
        async for line in stream.aiter_lines():
            seen += line.count("x" * 1024) * 1024
    assert seen == total


async def test_silence_is_filled_with_comments() -> None:
    heard: list[bytes] = []
    go = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        await go.wait()
        yield b"data"

    stream = beating(chunks(), 0.01)  # type: ignore[arg-type]
    async for chunk in stream:
        heard.append(chunk)
        if len(heard) == 3:
            go.set()
    assert heard[-1] == b"data"
    assert len(heard) > 3
    assert all(chunk.startswith(b":") and chunk.endswith(b"\n\n") for chunk in heard[:-1])


async def test_when_the_door_closes_streams_end_and_waiting_clients_are_told(world: World) -> None:
    world.close_gate("run")
    door = HttpDoor(servicer_of(world), HttpConfig(address="127.0.0.1:0"))
    await door.start()
    url = f"/v1/sandboxes/{world.sandbox_id}"
    body: dict[str, Any] = {"filename": "main.py", "exec_id": EXEC}
    async with (
        httpx.AsyncClient(base_url=f"http://{door.address}", trust_env=False, timeout=10) as client,
        client.stream("POST", f"{url}/exec", json=body, headers=STREAM) as stream,
    ):
        await read_until(stream, '"first "')
        watching = asyncio.Event()
        find = world.conductor.find

        async def found(sandbox_id: str, exec_id: str) -> LiveExec:
            watching.set()
            return await find(sandbox_id, exec_id)

        world.conductor.find = found  # type: ignore[method-assign]
        waiting = asyncio.create_task(client.get(f"{url}/execs/{EXEC}/result"))
        async with asyncio.timeout(10):
            await watching.wait()
            await door.stop(5)
            answer = await waiting
        assert answer.status_code == 503
        assert answer.json()["error"]["reason"] == "GATEWAY_STOPPING"
    assert not world.sandbox.processes[EXEC].ended
    world.gates["run"].set()
