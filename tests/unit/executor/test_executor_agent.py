from __future__ import annotations

import asyncio
import json
import struct
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as pb
from services.executor import files
from services.executor.agent.agent import Agent, bind_listener
from services.executor.agent.frames import Header, encode_frame, read_frame
from services.executor.errors import AgentUnavailableError, FileCallError, InvalidFieldError, ProtocolError
from services.executor.file_wire import UploadStream

WELCOME = {"type": "welcome", "protocol": 1, "toolchains": {"python": "3.13.5"}, "processes": []}


class Events:
    """Counts what the agent reports."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.chunks: list[bytes] = []

    def welcome(self, processes: Sequence[Header]) -> Mapping[str, Mapping[str, int]]:
        return {"p": {"stdout": len(processes), "stderr": 0}}

    def connected(self) -> None: ...

    def started(self, process_id: str) -> None: ...

    def output(self, process_id: str, stream: str, offset: int, data: bytes) -> Mapping[str, int]:
        self.chunks.append(data)
        return {"stdout": offset + len(data), "stderr": 0}

    def input(self, process_id: str, header: Header) -> None: ...

    def ended(self, process_id: str, header: Header) -> None: ...

    def disconnected(self) -> None:
        self.gone.set()


class Sandboxd:
    """The other end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        self.writer.write(encode_frame(header, payload))

    async def receive(self) -> tuple[Header, bytes]:
        frame = await asyncio.wait_for(read_frame(self.reader), 10)
        assert frame is not None
        return frame.header, frame.payload


@pytest.fixture
async def events() -> Events:
    return Events()


@pytest.fixture
async def path() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="qila-") as directory:
        yield Path(directory) / "control.sock"


@pytest.fixture
async def agent(events: Events, path: Path) -> AsyncIterator[Agent]:
    agent = Agent("sb_test", events)
    await agent.listen(bind_listener(path))
    yield agent
    await agent.close()


@pytest.fixture
async def sandboxd(agent: Agent, path: Path) -> AsyncIterator[Sandboxd]:
    peer = Sandboxd(*await asyncio.open_unix_connection(path))
    peer.send(WELCOME)
    assert (await peer.receive())[0] == {"type": "resume", "processes": {"p": {"stdout": 0, "stderr": 0}}}
    await agent.wait_connected(10)
    yield peer
    peer.writer.close()


async def test_the_socket_is_for_root_alone(agent: Agent, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert not agent.is_connected


async def test_many_small_outputs_cost_few_acknowledgements(agent: Agent, sandboxd: Sandboxd, events: Events) -> None:
    frames = [
        encode_frame({"type": "output", "process": "p", "stream": "stdout", "offset": index}, b"x")
        for index in range(100)
    ]
    sandboxd.writer.write(b"".join(frames))
    acknowledgements = 0
    while True:
        header, _ = await sandboxd.receive()
        assert header["type"] == "ack"
        acknowledgements += 1
        if header["stdout"] == 100:
            break
    assert len(events.chunks) == 100
    assert acknowledgements < 100


@pytest.mark.parametrize(
    "raw",
    [
        b"\0\0\0\1\0\0\0\0{",
        struct.pack(">II", 1 << 30, 0),
        struct.pack(">II", 2, 1 << 30) + b"{}",
        struct.pack(">II", 2, 0) + b"[]",
        struct.pack(">II", 2, 0) + b"{}",
        struct.pack(">II", 200_000, 0) + b"[" * 200_000,
        encode_frame({"type": "surprise"}),
        encode_frame({"type": "output", "process": "p", "stream": "stdout", "offset": -1}, b"x"),
        encode_frame({"type": "output", "process": 7, "stream": "stdout", "offset": 0}, b"x"),
        encode_frame({"type": "data", "call": "1"}),
        encode_frame({"type": "data", "call": True}),
    ],
)
async def test_a_forged_frame_ends_the_connection(agent: Agent, sandboxd: Sandboxd, events: Events, raw: bytes) -> None:
    sandboxd.writer.write(raw)
    await asyncio.wait_for(events.gone.wait(), 10)
    assert not agent.is_connected


@pytest.mark.parametrize("first", [{**WELCOME, "protocol": 3}, {"type": "output"}, {**WELCOME, "processes": 1}])
async def test_a_forged_welcome_is_refused(agent: Agent, path: Path, first: dict[str, Any]) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(encode_frame(first))
    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert not agent.is_connected
    writer.close()


async def test_sandboxd_may_dial_again(agent: Agent, sandboxd: Sandboxd, path: Path) -> None:
    again = Sandboxd(*await asyncio.open_unix_connection(path))
    again.send(WELCOME)
    await again.receive()
    assert await asyncio.wait_for(sandboxd.reader.read(), 10) == b""
    agent.send({"type": "cancel", "process": "p"})
    assert (await again.receive())[0]["type"] == "cancel"
    again.writer.close()


async def test_a_file_is_written_in_chunks(agent: Agent, sandboxd: Sandboxd) -> None:
    content = bytes(range(256)) * 1000

    async def requests() -> AsyncIterator[pb.WriteFileRequest]:
        yield pb.WriteFileRequest(chunk=content)
        yield pb.WriteFileRequest(end=pb.WriteFileEnd(sha256="12"))

    async def answer() -> bytes:
        call = (await sandboxd.receive())[0]
        assert (call["op"], call["path"], call["user"]) == ("write", "a/b", "program")
        assert (call["transfer"], call["offset"]) == ("t", 5)
        received = b""
        while True:
            header, payload = await sandboxd.receive()
            received += payload
            if header.get("last"):
                assert header["sha256"] == "12"
                sandboxd.send({"type": "result", "call": call["call"], "size": len(received), "sha256": "00"})
                return received

    answering = asyncio.create_task(answer())
    upload = UploadStream(pb.WriteFileHeader(transfer_id="t", offset=5), requests())
    size, _ = await files.write(agent, path="a/b", executable=False, user="program", upload=upload)
    assert size == len(content)
    assert await answering == content


async def test_a_failing_call_names_its_path(agent: Agent, sandboxd: Sandboxd) -> None:
    async def answer() -> None:
        call = (await sandboxd.receive())[0]["call"]
        sandboxd.send({"type": "error", "call": call, "kind": "not_found", "message": "no such file"})

    answering = asyncio.create_task(answer())
    with pytest.raises(FileCallError, match="x/y: no such file"):
        await files.remove(agent, path="x/y", user="program")
    await answering


async def test_a_listing_without_end_is_refused(agent: Agent, sandboxd: Sandboxd) -> None:
    async def answer() -> Header:
        call = (await sandboxd.receive())[0]["call"]
        row = {"name": "x" * 200, "kind": "file", "size": 0, "mtime_ns": 0}
        for _ in range(files.MAX_LIST_ROWS // 100 + 1):
            sandboxd.send({"type": "data", "call": call, "files": [row] * 100})
        return (await sandboxd.receive())[0]

    answering = asyncio.create_task(answer())
    with pytest.raises(FileCallError, match="too many names"):
        await files.list_directory(agent, path="d")
    assert (await answering)["type"] == "abort"


@pytest.mark.parametrize(
    ("known", "digest", "listed", "outcome"),
    [
        ("a" * 64, "a" * 64, 0, "unchanged"),
        ("b" * 64, "a" * 64, 2, "listed"),
        ("", "a" * 64, 2, "listed"),
        # As an older sandboxd answers.
        ("a" * 64, "a" * 64, 2, "listed"),
        ("", "a" * 64, 0, "refused"),
        ("b" * 64, "a" * 64, 1, "refused"),
    ],
)
async def test_a_survey_lists_what_it_counts_unless_it_is_known(
    agent: Agent, sandboxd: Sandboxd, known: str, digest: str, listed: int, outcome: str
) -> None:
    async def answer() -> None:
        header = (await sandboxd.receive())[0]
        assert header["known"] == known
        call = header["call"]
        for number in range(listed):
            sandboxd.send({"type": "data", "call": call, "entries": [[f"f{number}", 1, 2, 3, 4]]})
        empty: dict[str, list[str]] = {"environments": [], "own_directories": [], "unmanaged": []}
        result = {"type": "result", "call": call, "digest": digest, "file_count": 2, "skipped_count": 0, **empty}
        sandboxd.send(result)

    answering = asyncio.create_task(answer())
    if outcome == "refused":
        with pytest.raises(ProtocolError, match="other files than it counts"):
            [batch async for batch in files.survey(agent, known)]
    else:
        *batches, summary = [batch async for batch in files.survey(agent, known)]
        assert isinstance(summary, files.SurveySummary)
        assert (len(batches), summary.unchanged) == (listed, outcome == "unchanged")
    await answering


async def test_a_known_digest_that_is_none_is_refused(agent: Agent) -> None:
    with pytest.raises(InvalidFieldError, match="known_digest"):
        [batch async for batch in files.survey(agent, "\n")]


async def test_a_call_ends_when_the_connection_breaks(agent: Agent, sandboxd: Sandboxd) -> None:
    async def vanish() -> None:
        await sandboxd.receive()
        sandboxd.writer.close()

    vanishing = asyncio.create_task(vanish())
    with pytest.raises(AgentUnavailableError):
        await files.list_directory(agent, path="")
    await vanishing


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a/", "a\0b", "x" * 256, "d/" * 2500 + "f"]
)
def test_a_bad_path_is_refused_with_its_rule(path: str) -> None:
    with pytest.raises(InvalidFieldError, match="path: must"):
        files.check_path(path)


def test_frames_are_what_the_protocol_says() -> None:
    raw = encode_frame({"type": "ack"}, b"xyz")
    header_length, payload_length = struct.unpack(">II", raw[:8])
    assert json.loads(raw[8 : 8 + header_length]) == {"type": "ack"}
    assert raw[8 + header_length :] == b"xyz"
    assert payload_length == 3
