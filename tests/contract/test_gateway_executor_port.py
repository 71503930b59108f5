"""The executor's port behaves the same in memory and over the wire."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as pb
from qila.executor.v1 import executor_pb2_grpc
from services.gateway.executor_client import ExecutorClient
from services.gateway.executor_fake import FakeExecutor, FakeProcess
from services.gateway.ports import ExecutorPort, StdinPart
from services.rpc.channel import build_channel
from services.rpc.errors import ErrorCode, QilaError, invalid_argument, resource_exhausted
from services.rpc.server import ServerConfig, build_server


class Servicer(executor_pb2_grpc.ExecutorServiceServicer):
    """Serves the calls of the suite from the fake."""

    def __init__(self, fake: FakeExecutor) -> None:
        self._fake = fake

    async def WriteFile(self, request_iterator: Any, _context: Any) -> Any:  # noqa: N802  # generated name
        requests = aiter(request_iterator)
        header = (await anext(requests)).header

        async def chunks() -> AsyncIterator[bytes]:
            async for request in requests:
                if request.HasField("end"):
                    return
                yield request.chunk
            # As the executor: a stream that broke off looks the same as one that stopped.
            raise invalid_argument("INVALID_FIELD", "the stream broke off")

        return await self._fake.write_file(header, chunks())

    async def ListImages(self, _request: Any, _context: Any) -> Any:  # noqa: N802  # generated name
        return pb.ListImagesResponse(images=await self._fake.list_images())

    async def RunProcess(self, request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802  # generated name
        async for event in self._fake.run_process(request):
            yield pb.RunProcessResponse(event=event)

    async def AttachProcess(self, request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802  # generated name
        async for event in self._fake.attach_process(request):
            yield pb.AttachProcessResponse(event=event)

    async def ConnectPort(self, request_iterator: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802  # generated name
        async for response in self._fake.connect_port(request_iterator):
            yield response

    async def WriteStdin(self, request_iterator: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802  # generated name
        header = (await anext(request_iterator)).header

        async def parts() -> AsyncIterator[StdinPart]:
            async for request in request_iterator:
                yield request.end if request.HasField("end") else request.chunk

        async for accepted in self._fake.write_stdin(header.sandbox_id, header.process_id, parts()):
            yield pb.WriteStdinResponse(accepted=accepted)

    async def ResizeTerminal(self, request: Any, _context: Any) -> Any:  # noqa: N802  # generated name
        await self._fake.resize_terminal(request.sandbox_id, request.process_id, request.terminal)
        return pb.ResizeTerminalResponse()

    async def SignalProcess(self, request: Any, _context: Any) -> Any:  # noqa: N802  # generated name
        await self._fake.signal_process(request.sandbox_id, request.process_id, request.signal)
        return pb.SignalProcessResponse()

    async def SurveyWorkspace(self, request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802  # generated name
        survey = await self._fake.survey(request.sandbox_id, request.known_digest)
        for entry in survey.entries:
            yield pb.SurveyWorkspaceResponse(entries=[entry])
        yield pb.SurveyWorkspaceResponse(summary=survey.summary)


@pytest.fixture
async def fake() -> FakeExecutor:
    made = FakeExecutor()

    async def speak(process: FakeProcess) -> int:
        process.write(b"hello")
        return 4

    made.programs["speak"] = speak
    return made


@pytest.fixture(params=["memory", "wire"])
async def port(request: pytest.FixtureRequest, fake: FakeExecutor) -> AsyncIterator[ExecutorPort]:
    if request.param == "memory":
        yield fake
        return
    servicer = Servicer(fake)  # type: ignore[abstract]  # the suite uses some of the calls
    with tempfile.TemporaryDirectory(prefix="qila-") as directory:
        server = await build_server(
            ServerConfig(address=f"unix:{directory}/x.sock", service_names=("qila.executor.v1.ExecutorService",)),
            [lambda server: executor_pb2_grpc.add_ExecutorServiceServicer_to_server(servicer, server)],
        )
        await server.start()
        async with build_channel(server.address) as channel:
            yield ExecutorClient(channel)
        await server.stop(0)


@pytest.fixture
async def sandbox_id(fake: FakeExecutor) -> str:
    return (await fake.create_sandbox(pb.CreateSandboxRequest())).id


def header(sandbox_id: str) -> pb.WriteFileHeader:
    return pb.WriteFileHeader(sandbox_id=sandbox_id, path="a", user=pb.USER_PROGRAM)


async def test_images_are_listed(port: ExecutorPort, fake: FakeExecutor) -> None:
    fake.images["go1.26"] = {"go": "1.26.6"}
    found = [(image.name, image.is_default, dict(image.toolchains).get("go")) for image in await port.list_images()]
    assert found == [("default", True, None), ("go1.26", False, "1.26.6")]


async def test_written_file_is_surveyed(port: ExecutorPort, sandbox_id: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    assert (await port.write_file(header(sandbox_id), chunks())).size == 6
    survey = await port.survey(sandbox_id)
    assert [(entry.path, entry.size) for entry in survey.entries] == [("a", 6)]
    assert survey.summary.file_count == 1
    again = await port.survey(sandbox_id, survey.summary.digest)
    assert (again.summary.unchanged, again.entries) == (True, [])
    assert again.summary.file_count == 1
    await port.write_file(header(sandbox_id), chunks())
    other = await port.survey(sandbox_id, "0" * 64)
    assert (other.summary.unchanged, len(other.entries)) == (False, 1)


async def test_source_that_fails_breaks_the_write_off(port: ExecutorPort, sandbox_id: str, fake: FakeExecutor) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"half"
        raise resource_exhausted("FILE_TOO_LARGE", "too large")

    with pytest.raises(QilaError) as caught:
        await port.write_file(header(sandbox_id), chunks())
    assert caught.value.reason == "FILE_TOO_LARGE"
    assert fake.sandboxes[sandbox_id].files == {}


async def test_process_is_run_joined_and_attached(port: ExecutorPort, sandbox_id: str, fake: FakeExecutor) -> None:
    request = pb.RunProcessRequest(sandbox_id=sandbox_id, process_id="p", spec=pb.ProcessSpec(argv=["speak"]))
    first = [event async for event in port.run_process(request)]
    assert [event.WhichOneof("event") for event in first] == ["started", "output", "ended"]
    assert [event async for event in port.run_process(request)] == first
    assert fake.started == ["p"]
    attach = pb.AttachProcessRequest(sandbox_id=sandbox_id, process_id="p")
    getattr(attach, "from").stdout = 3
    rest = [event async for event in port.attach_process(attach)]
    assert (rest[1].output.offset, rest[1].output.data) == (3, b"lo")
    other = pb.RunProcessRequest(sandbox_id=sandbox_id, process_id="p", spec=pb.ProcessSpec(argv=["true"]))
    with pytest.raises(QilaError) as caught:
        await anext(port.run_process(other))
    assert caught.value.code is ErrorCode.ALREADY_EXISTS


async def test_a_port_answers_and_ends(port: ExecutorPort, fake: FakeExecutor, sandbox_id: str) -> None:
    fake.sandboxes[sandbox_id].servers[8000] = bytes.upper

    async def requests() -> AsyncIterator[pb.ConnectPortRequest]:
        yield pb.ConnectPortRequest(header=pb.PortHeader(sandbox_id=sandbox_id, port=8000))
        yield pb.ConnectPortRequest(chunk=b"question")
        yield pb.ConnectPortRequest(end=pb.PortEnd())

    parts = [response async for response in port.connect_port(requests())]
    assert [part.WhichOneof("part") for part in parts] == ["connected", "chunk", "end"]
    assert parts[1].chunk == b"QUESTION"


async def test_a_port_where_nothing_listens(port: ExecutorPort, sandbox_id: str) -> None:
    async def requests() -> AsyncIterator[pb.ConnectPortRequest]:
        yield pb.ConnectPortRequest(header=pb.PortHeader(sandbox_id=sandbox_id, port=8000))

    with pytest.raises(QilaError) as caught:
        _ = [response async for response in port.connect_port(requests())]
    assert (caught.value.code, caught.value.reason) == (ErrorCode.FAILED_PRECONDITION, "PORT_CLOSED")


def interactive(sandbox_id: str, name: str, **fields: Any) -> pb.RunProcessRequest:
    spec = pb.ProcessSpec(argv=[name], **fields)
    return pb.RunProcessRequest(sandbox_id=sandbox_id, process_id="p", spec=spec)


async def test_input_is_written_by_one_at_a_time(port: ExecutorPort, sandbox_id: str) -> None:
    events = aiter(port.run_process(interactive(sandbox_id, "echo", stdin=True)))
    assert (await anext(events)).HasField("started")
    more = asyncio.Event()

    async def first_part() -> AsyncIterator[StdinPart]:
        yield pb.StdinChunk(offset=0, data=b"one")
        await more.wait()

    first = aiter(port.write_stdin(sandbox_id, "p", first_part()))
    while await anext(first) != 3:
        pass
    assert (await anext(events)).output.data == b"one"

    async def rest() -> AsyncIterator[StdinPart]:
        yield pb.StdinChunk(offset=1, data=b"ne two")
        yield pb.StdinEnd(offset=7)

    answers = [accepted async for accepted in port.write_stdin(sandbox_id, "p", rest())]
    assert (answers[0], answers[-1]) == (3, 7)
    with pytest.raises(QilaError) as caught:
        await anext(first)
    assert (caught.value.code, caught.value.reason) == (ErrorCode.ABORTED, "STDIN_TAKEN_OVER")
    more.set()
    assert (await anext(events)).output.data == b" two"
    assert (await anext(events)).ended.exited == 0


async def test_input_that_has_no_place_is_refused(port: ExecutorPort, sandbox_id: str) -> None:
    async def gap() -> AsyncIterator[StdinPart]:
        yield pb.StdinChunk(offset=9, data=b"x")

    async def reason() -> str:
        with pytest.raises(QilaError) as caught:
            async for _ in port.write_stdin(sandbox_id, "p", gap()):
                pass
        return caught.value.reason

    assert await reason() == "PROCESS_NOT_FOUND"
    events = aiter(port.run_process(interactive(sandbox_id, "ignore", stdin=True)))
    await anext(events)
    assert await reason() == "STDIN_GAP"
    await port.signal_process(sandbox_id, "p", 9)
    assert (await anext(events)).ended.exited == 137
    assert await reason() == "PROCESS_ENDED"


async def test_terminal_is_sized_and_signalled(port: ExecutorPort, sandbox_id: str, fake: FakeExecutor) -> None:
    size = pb.Terminal(rows=24, columns=80)
    events = aiter(port.run_process(interactive(sandbox_id, "ignore", terminal=size)))
    await anext(events)
    await port.resize_terminal(sandbox_id, "p", pb.Terminal(rows=1, columns=2))
    await port.signal_process(sandbox_id, "p", 2)
    process = fake.sandboxes[sandbox_id].processes["p"]
    assert (process.sizes, process.signals) == ([(1, 2)], [2])
    assert (await anext(events)).ended.exited == 130
    for call in (port.resize_terminal(sandbox_id, "p", size), port.signal_process(sandbox_id, "p", 2)):
        with pytest.raises(QilaError) as caught:
            await call
        assert caught.value.reason == "PROCESS_ENDED"


async def test_process_without_a_terminal_has_no_size(port: ExecutorPort, sandbox_id: str) -> None:
    events = aiter(port.run_process(interactive(sandbox_id, "ignore", stdin=True)))
    await anext(events)
    with pytest.raises(QilaError) as caught:
        await port.resize_terminal(sandbox_id, "p", pb.Terminal(rows=1, columns=2))
    assert caught.value.reason == "NO_TERMINAL"
