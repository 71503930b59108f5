"""Inputs, terminals, signals and lists of execs over the HTTP door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from qila.executor.v1 import executor_pb2 as executor
from services.gateway import pulse
from services.gateway.executor_fake import FakeProcess
from services.gateway.http.bodies import MAX_STDIN_BYTES

from .gateway_world import World
from .http_world import client_of, events_in
from .test_http_calls import reason

EXEC = "ex_" + "a" * 26
TERMINAL = {"rows": 24, "columns": 80}
STREAM = {"accept": "text/event-stream"}


@pytest.fixture(name="client")
async def make_client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as client:
        yield client


@pytest.fixture
def url(world: World) -> str:
    return f"/v1/sandboxes/{world.sandbox_id}"


async def start(client: httpx.AsyncClient, url: str, *words: str, **fields: object) -> str:
    """A command that goes on; its URL."""
    body = {"command": words, "exec_id": EXEC, "wait": False, **fields}
    assert (await client.post(f"{url}/exec", json=body)).status_code == 202
    return f"{url}/execs/{EXEC}"


async def test_input_goes_in_piece_by_piece_and_comes_back(client: httpx.AsyncClient, url: str) -> None:
    run = await start(client, url, "echo", stdin=True)
    answer = await client.post(f"{run}/stdin", content=b"one ")
    assert answer.json() == {"accepted": 4, "ended": False}
    # Behind what is there, or at an offset: what came already is not taken twice.
    assert (await client.post(f"{run}/stdin", content=b"two ")).json()["accepted"] == 8
    again = await client.post(f"{run}/stdin", params={"offset": 4}, content=b"two three")
    assert again.json()["accepted"] == 13
    gap = await client.post(f"{run}/stdin", params={"offset": 14}, content=b"x")
    assert reason(gap) == (409, "STDIN_GAP")
    last = await client.post(f"{run}/stdin", params={"offset": 13, "end": True}, content=b"!")
    assert last.json() == {"accepted": 14, "ended": True}
    assert (await client.get(f"{run}/result")).json()["stdout"] == "one two three!"
    assert reason(await client.post(f"{run}/stdin", content=b"late")) == (409, "EXEC_ENDED")


async def test_a_repeat_of_the_end_is_fine(client: httpx.AsyncClient, url: str) -> None:
    run = await start(client, url, "ignore", stdin=True)
    ended = {"offset": 0, "end": True}
    for _ in range(2):
        answer = await client.post(f"{run}/stdin", params=ended, content=b"all")
        assert answer.json() == {"accepted": 3, "ended": True}
    assert reason(await client.post(f"{run}/stdin", params=ended, content=b"all and more")) == (409, "STDIN_ENDED")
    assert reason(await client.post(f"{run}/stdin", content=b"more")) == (409, "STDIN_ENDED")
    assert (await client.post(f"{run}/cancel")).status_code == 200


async def test_a_large_input_and_one_that_is_too_large(client: httpx.AsyncClient, url: str) -> None:
    run = await start(client, url, "count", stdin=True)
    too_large = await client.post(f"{run}/stdin", content=b"x" * (MAX_STDIN_BYTES + 1))
    assert reason(too_large) == (413, "BODY_TOO_LARGE")
    whole = await client.post(f"{run}/stdin", params={"end": True}, content=b"x" * MAX_STDIN_BYTES)
    assert whole.json()["accepted"] == MAX_STDIN_BYTES
    assert (await client.get(f"{run}/result")).json()["output"] == str(MAX_STDIN_BYTES)


async def test_an_input_that_is_not_open_is_told(client: httpx.AsyncClient, url: str) -> None:
    run = await start(client, url, "ignore")
    assert reason(await client.post(f"{run}/stdin", content=b"x")) == (409, "STDIN_NOT_OPEN")
    assert reason(await client.post(f"{run}/resize", json=TERMINAL)) == (409, "NO_TERMINAL")
    lost = f"{url}/execs/ex_{'z' * 26}"
    for path, body in (("stdin", None), ("resize", TERMINAL), ("signal", {"signal": 2})):
        assert reason(await client.post(f"{lost}/{path}", json=body)) == (404, "EXEC_NOT_FOUND")
    await client.post(f"{run}/cancel")


async def test_a_writer_that_leaves_lets_the_next_one_in(client: httpx.AsyncClient, url: str, world: World) -> None:
    run = await start(client, url, "ignore", stdin=True)
    # The program reads nothing: 1 MiB waits for it, and what is more does not come in.
    half: dict[str, Any] = {"content": b"x" * (512 << 10)}
    assert (await client.post(f"{run}/stdin", **half)).json()["accepted"] == 512 << 10
    stuck = asyncio.create_task(client.post(f"{run}/stdin", content=b"x" * (1 << 20)))
    process = world.sandbox.processes[EXEC]
    async with asyncio.timeout(10):
        while process.accepted < 1 << 20:
            await process.bell.wait()
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    async with asyncio.timeout(10):
        # What it was given is in the sandbox: another writer goes on behind it.
        answer = await client.post(f"{run}/stdin", params={"offset": 512 << 10}, **half)
        assert answer.json()["accepted"] == 1 << 20
    assert (await client.post(f"{run}/signal", json={"signal": 15})).status_code == 204
    assert (await client.get(f"{run}/result")).json()["exit_code"] == 143


async def test_a_terminal_is_sized_signalled_and_resumed(client: httpx.AsyncClient, url: str, world: World) -> None:
    run = await start(client, url, "echo", terminal=TERMINAL)
    await client.post(f"{run}/stdin", content=b"typed")
    assert (await client.post(f"{run}/resize", json={"rows": 4096, "columns": 1})).status_code == 204
    assert world.sandbox.processes[EXEC].sizes == [(4096, 1)]
    for size in ({"rows": 0, "columns": 80}, {"rows": 24, "columns": 4097}, {"rows": 24}):
        assert reason(await client.post(f"{run}/resize", json=size)) == (400, "FIELD_INVALID")
    for number in (0, 32, "TERM"):
        assert reason(await client.post(f"{run}/signal", json={"signal": number})) == (400, "FIELD_INVALID")
    await client.post(f"{run}/stdin", content=b" more")
    await client.post(f"{run}/cancel")
    whole = events_in((await client.get(f"{run}/events")).text)
    shown = [(event_id, data["output"]) for event_id, kind, data in whole if kind == "output"]
    assert {output["stream"] for _, output in shown} == {"terminal"}
    for index, (event_id, _) in enumerate(shown):
        rest = events_in((await client.get(f"{run}/events", headers={"last-event-id": event_id})).text)
        left = "".join(data["output"]["data"] for _, kind, data in rest if kind == "output")
        assert left == "".join(output["data"] for _, output in shown[index + 1 :])
    assert (await client.get(f"{run}/result")).json()["stdout"] == "typed more"


async def test_a_heartbeat_leaves_the_position_where_it_is(
    client: httpx.AsyncClient, url: str, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    may_end = asyncio.Event()

    async def careful(process: FakeProcess) -> int:
        process.write(b"careful", executor.STREAM_STDERR)
        await may_end.wait()
        return 0

    monkeypatch.setattr(pulse, "SILENCE_SECONDS", 0.05)
    world.executor.programs["careful"] = careful
    body = {"command": ["careful"], "exec_id": EXEC}
    async with client.stream("POST", f"{url}/exec", json=body, headers=STREAM) as stream:
        text = ""
        async for part in stream.aiter_text():
            text += part
            if "event: heartbeat" in text and "event: output" in text:
                may_end.set()
    events = events_in(text)
    beat = next(index for index, (_, kind, _) in enumerate(events) if kind == "heartbeat")
    assert events[beat][0] == events[beat - 1][0]
    assert events[beat][0].endswith(".0.7")


async def test_execs_are_listed_in_pages(client: httpx.AsyncClient, url: str) -> None:
    for letter in "bcd":
        body = {"command": ["ignore"], "exec_id": "ex_" + letter * 26, "wait": False}
        await client.post(f"{url}/exec", json=body)
    first = (await client.get(f"{url}/execs", params={"page_size": 2, "running_only": True})).json()
    assert [item["id"][3] for item in first["execs"]] == ["d", "c"]
    asked = {"page_size": 2, "page_token": first["next_page_token"]}
    second = (await client.get(f"{url}/execs", params=asked)).json()
    assert ([item["id"][3] for item in second["execs"]], second["next_page_token"]) == (["b"], "")
    unknown = await client.get(f"{url}/execs", params={"page_token": "ex_" + "z" * 26})
    assert unknown.status_code == 400
    for letter in "bcd":
        await client.post(f"{url}/execs/ex_{letter * 26}/cancel")
