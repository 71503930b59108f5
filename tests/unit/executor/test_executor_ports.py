from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as pb
from services.executor.agent.agent import Agent, bind_listener
from services.executor.agent.frames import Header, encode_frame, read_frame
from services.executor.agent.ports import CHUNK_BYTES, MAX_CONNECTIONS, WINDOW_BYTES, PortConnection
from services.executor.errors import AgentUnavailableError, LimitError, PortBrokenError, PortClosedError
from services.executor.port_wire import carry

PORT = 8000


class Nobody:
    """Hears of processes; there are none."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    def welcome(self, processes: Sequence[Header]) -> Mapping[str, Mapping[str, int]]:
        return {}

    def connected(self) -> None: ...

    def started(self, process_id: str) -> None: ...

    def output(self, process_id: str, stream: str, offset: int, data: bytes) -> Mapping[str, int]:
        raise AssertionError

    def input(self, process_id: str, header: Header) -> None: ...

    def ended(self, process_id: str, header: Header) -> None: ...

    def disconnected(self) -> None:
        self.gone.set()


class Sandboxd:
    """The other end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def say(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        self.writer.write(encode_frame({"type": kind, "connection": 1, **fields}, payload))

    async def hear(self) -> tuple[Header, bytes]:
        frame = await asyncio.wait_for(read_frame(self._reader), 10)
        assert frame is not None
        return frame.header, frame.payload


@pytest.fixture
async def nobody() -> Nobody:
    return Nobody()


@pytest.fixture
async def agent(nobody: Nobody) -> AsyncIterator[Agent]:
    with tempfile.TemporaryDirectory(prefix="qila-") as directory:
        made = Agent("sb_test", nobody)
        await made.listen(bind_listener(Path(directory) / "control.sock"))
        yield made
        await made.close()


@pytest.fixture
async def sandboxd(agent: Agent) -> AsyncIterator[Sandboxd]:
    assert agent._server is not None
    path = agent._server.sockets[0].getsockname()
    peer = Sandboxd(*await asyncio.open_unix_connection(path))
    peer.writer.write(encode_frame({"type": "welcome", "protocol": 2, "toolchains": {}, "processes": []}))
    assert (await peer.hear())[0]["type"] == "resume"
    await agent.wait_connected(10)
    yield peer
    peer.writer.close()


@pytest.fixture
async def connection(agent: Agent, sandboxd: Sandboxd) -> PortConnection:
    connecting = asyncio.create_task(agent.ports.connect(PORT))
    assert (await sandboxd.hear())[0] == {"type": "connect", "connection": 1, "port": PORT}
    sandboxd.say("connected")
    return await connecting


async def test_bytes_both_ways(connection: PortConnection, sandboxd: Sandboxd, agent: Agent) -> None:
    await connection.send(b"question")
    assert await sandboxd.hear() == ({"type": "bytes", "connection": 1}, b"question")
    await connection.shut()
    assert (await sandboxd.hear())[0] == {"type": "shut", "connection": 1}
    sandboxd.say("bytes", b"answer")
    sandboxd.say("shut")
    assert await connection.receive() == b"answer"
    assert (await sandboxd.hear())[0] == {"type": "taken", "connection": 1, "bytes": 6}
    assert await connection.receive() == b""
    await agent.ports.close(connection)


async def test_a_program_that_takes_nothing_is_waited_for(connection: PortConnection, sandboxd: Sandboxd) -> None:
    for _ in range(WINDOW_BYTES // CHUNK_BYTES):
        await connection.send(bytes(CHUNK_BYTES))
    more = asyncio.create_task(connection.send(b"more"))
    for _ in range(WINDOW_BYTES // CHUNK_BYTES):
        assert len((await sandboxd.hear())[1]) == CHUNK_BYTES
    assert not more.done()
    sandboxd.say("taken", bytes=CHUNK_BYTES)
    assert (await sandboxd.hear())[1] == b"more"
    await more


async def test_a_waiting_sender_hears_that_the_program_broke_off(
    connection: PortConnection, sandboxd: Sandboxd
) -> None:
    for _ in range(WINDOW_BYTES // CHUNK_BYTES):
        await connection.send(bytes(CHUNK_BYTES))
    more = asyncio.create_task(connection.send(b"more"))
    sandboxd.say("dropped", error="ECONNRESET")
    with pytest.raises(PortBrokenError, match="ECONNRESET"):
        await more
    with pytest.raises(PortBrokenError):
        await connection.receive()


async def uploads() -> AsyncIterator[pb.ConnectPortRequest]:
    while True:
        yield pb.ConnectPortRequest(chunk=bytes(CHUNK_BYTES))


async def silence() -> AsyncIterator[pb.ConnectPortRequest]:
    await asyncio.Event().wait()
    yield pb.ConnectPortRequest()


async def test_what_a_program_said_comes_before_that_it_broke_off(
    connection: PortConnection, sandboxd: Sandboxd
) -> None:
    responses = carry(connection, uploads())
    first = asyncio.create_task(anext(responses))
    await sandboxd.hear()
    # In one piece, so that both are known at once.
    sandboxd.say("bytes", b"refused")
    sandboxd.say("dropped", error="ECONNRESET")
    assert (await first).chunk == b"refused"
    with pytest.raises(PortBrokenError):
        await anext(responses)


async def test_a_connection_that_breaks_behind_the_programs_end_ends(
    connection: PortConnection, sandboxd: Sandboxd
) -> None:
    responses = carry(connection, silence())
    sandboxd.say("shut")
    assert (await anext(responses)).HasField("end")
    sandboxd.say("dropped", error="EPIPE")
    with pytest.raises(PortBrokenError):
        await asyncio.wait_for(anext(responses), 10)


@pytest.mark.parametrize(("error", "expected"), [("ECONNREFUSED", PortClosedError), ("EMFILE", LimitError)])
async def test_a_refusal_is_told(agent: Agent, sandboxd: Sandboxd, error: str, expected: type[Exception]) -> None:
    connecting = asyncio.create_task(agent.ports.connect(PORT))
    await sandboxd.hear()
    sandboxd.say("refused", error=error)
    with pytest.raises(expected):
        await connecting


async def test_a_caller_that_leaves_drops_the_connection(agent: Agent, sandboxd: Sandboxd) -> None:
    connecting = asyncio.create_task(agent.ports.connect(PORT))
    await sandboxd.hear()
    connecting.cancel()
    assert (await sandboxd.hear())[0] == {"type": "drop", "connection": 1}
    # What sandboxd said before it heard of it concerns nobody.
    sandboxd.say("connected")
    sandboxd.say("bytes", b"x")
    second = asyncio.create_task(agent.ports.connect(PORT))
    assert (await sandboxd.hear())[0] == {"type": "connect", "connection": 2, "port": PORT}
    second.cancel()


async def test_connections_of_a_sandbox_are_bounded(agent: Agent, sandboxd: Sandboxd) -> None:
    waiting = [asyncio.create_task(agent.ports.connect(PORT)) for _ in range(MAX_CONNECTIONS)]
    for _ in waiting:
        await sandboxd.hear()
    with pytest.raises(LimitError):
        await agent.ports.connect(PORT)
    for task in waiting:
        task.cancel()


async def test_all_are_lost_with_sandboxd(connection: PortConnection, sandboxd: Sandboxd) -> None:
    sandboxd.writer.close()
    with pytest.raises(AgentUnavailableError):
        await connection.receive()
    with pytest.raises(AgentUnavailableError):
        await connection.send(b"x")


@pytest.mark.parametrize(
    ("kind", "payload", "fields"),
    [
        ("taken", b"", {"bytes": 1}),
        ("taken", b"", {"bytes": -1}),
        ("bytes", b"", {}),
        ("dropped", b"", {"error": 1}),
        ("bytes", b"x", {"connection": "1"}),
        ("bytes", b"x", {}),
        ("shut", b"", {}),
    ],
)
async def test_a_forged_frame_ends_the_control_connection(
    connection: PortConnection, sandboxd: Sandboxd, nobody: Nobody, kind: str, payload: bytes, fields: dict[str, Any]
) -> None:
    sandboxd.say("shut")
    sandboxd.say(kind, payload, **fields)
    await asyncio.wait_for(nobody.gone.wait(), 10)


async def test_bytes_beyond_what_was_taken_end_the_control_connection(
    connection: PortConnection, sandboxd: Sandboxd, nobody: Nobody
) -> None:
    for _ in range(WINDOW_BYTES // CHUNK_BYTES + 1):
        sandboxd.say("bytes", bytes(CHUNK_BYTES))
    await asyncio.wait_for(nobody.gone.wait(), 10)
