"""The executor's port behaves the same in memory and over the wire."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as pb
from qila.executor.v1 import executor_pb2_grpc
from services.executor.run_stream import RunStreams
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

    async def WriteTree(self, request_iterator: Any, _context: Any) -> Any:  # noqa: N802  # generated name
        requests = aiter(request_iterator)
        header = (await anext(requests)).header
        last = pb.WriteTreeEnd()

        async def chunks() -> AsyncIterator[bytes]:
            async for request in requests:
                if request.HasField("end"):
                    last.CopyFrom(request.end)
                    return
                yield request.chunk
            raise invalid_argument("INVALID_FIELD", "the stream broke off")

        return await self._fake.write_tree(header, chunks(), sha256=lambda: last.sha256)

    async def ReadTree(self, request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802  # generated name
        async for response in self._fake.read_tree(request):
            yield response

    async def CompareTree(self, request_iterator: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802  # generated name
        requests = aiter(request_iterator)
        header = (await anext(requests)).header

        async def files() -> AsyncIterator[list[pb.TreeFile]]:
            async for request in requests:
                if request.HasField("end"):
                    return
                yield list(request.files.files)
            raise invalid_argument("INVALID_FIELD", "the stream broke off")

        async for found in self._fake.compare_tree(header, files()):
            yield found

    async def GetTransfer(self, request: Any, _context: Any) -> Any:  # noqa: N802  # generated name
        size = await self._fake.transfer_size(request.sandbox_id, request.transfer_id)
        return pb.GetTransferResponse(size=size)

    async def ReadFile(self, request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802  # generated name
        async for response in self._fake.read_file(request):
            yield response

    async def ListFiles(self, request: Any, _context: Any) -> Any:  # noqa: N802  # generated name
        return pb.ListFilesResponse(files=await self._fake.list_files(request))

    async def StatFile(self, request: Any, _context: Any) -> Any:  # noqa: N802  # generated name
        return pb.StatFileResponse(file=await self._fake.stat_file(request.sandbox_id, request.path))

    async def MoveFile(self, request: Any, _context: Any) -> Any:  # noqa: N802  # generated name
        await self._fake.move_file(request)
        return pb.MoveFileResponse()

    async def MakeDirectory(self, request: Any, _context: Any) -> Any:  # noqa: N802  # generated name
        await self._fake.make_directory(request.sandbox_id, request.path)
        return pb.MakeDirectoryResponse()

    async def RunProcess(self, request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802  # generated name
        async for event in self._fake.run_process(request):
            yield pb.RunProcessResponse(event=event)

    async def RunProcesses(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  # generated name
        await RunStreams(self._fake.run_process).serve(request_iterator, context.write)
        nothing: tuple[pb.RunProcessesResponse, ...] = ()
        for response in nothing:
            yield response

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


async def test_files_are_read_in_parts_listed_and_moved(port: ExecutorPort, sandbox_id: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"0123456789"

    await port.write_file(header(sandbox_id), chunks())
    part = pb.ReadFileRequest(sandbox_id=sandbox_id, path="a", offset=8)
    parts = [response async for response in port.read_file(part)]
    assert [response.WhichOneof("part") for response in parts] == ["header", "chunk", "end"]
    assert (parts[0].header.size, parts[1].chunk, parts[2].end.size) == (10, b"89", 2)
    await port.make_directory(sandbox_id, "d")
    await port.move_file(pb.MoveFileRequest(sandbox_id=sandbox_id, source="a", target="d/b.py"))
    request = pb.ListFilesRequest(sandbox_id=sandbox_id, depth=64, patterns=["**/*.py"])
    assert [file.name for file in await port.list_files(request)] == ["d/b.py"]
    assert (await port.stat_file(sandbox_id, "d")).kind == pb.FILE_KIND_DIRECTORY
    with pytest.raises(QilaError) as caught:
        await port.stat_file(sandbox_id, "a")
    assert caught.value.reason == "FILE_NOT_FOUND"


async def test_trees_go_in_and_out(port: ExecutorPort, sandbox_id: str) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        made.addfile(tarfile.TarInfo("a"))
    data = file.getvalue()

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    async def broken() -> AsyncIterator[bytes]:
        yield data[:100]
        raise resource_exhausted("FILE_TOO_LARGE", "too large")

    target = pb.WriteTreeHeader(sandbox_id=sandbox_id, path="t", transfer_id="x")
    with pytest.raises(QilaError, match="FILE_TOO_LARGE"):
        await port.write_tree(target, broken())
    target.transfer_id = ""
    with pytest.raises(QilaError, match="FILE_DIGEST_MISMATCH"):
        await port.write_tree(target, chunks(), sha256=lambda: "0" * 64)
    assert (await port.write_tree(target, chunks(), sha256=lambda: hashlib.sha256(data).hexdigest())).file_count == 1
    parts = [part async for part in port.read_tree(pb.ReadTreeRequest(sandbox_id=sandbox_id, path="t"))]
    assert [part.WhichOneof("part") for part in parts] == ["header", "chunk", "end"]
    other = pb.ReadTreeRequest(sandbox_id=sandbox_id, path="t", etag="other")
    with pytest.raises(QilaError, match="FILE_TREE_CHANGED"):
        await anext(port.read_tree(other))
    assert await port.transfer_size(sandbox_id, "unknown") == 0


async def test_trees_are_compared(port: ExecutorPort, sandbox_id: str, fake: FakeExecutor) -> None:
    fake.sandboxes[sandbox_id].files |= {"t/a": b"1", "t/b": b"1"}

    async def files() -> AsyncIterator[list[pb.TreeFile]]:
        yield [pb.TreeFile(path="a", sha256=hashlib.sha256(b"1").hexdigest())]
        yield [pb.TreeFile(path="c", sha256="0" * 64)]

    async def broken() -> AsyncIterator[list[pb.TreeFile]]:
        yield [pb.TreeFile(path="a")]
        raise resource_exhausted("FILES_TOO_MANY", "too many")

    asked = pb.CompareTreeHeader(sandbox_id=sandbox_id, path="t")
    (found,) = [found async for found in port.compare_tree(asked, files())]
    assert (list(found.different), list(found.beyond)) == (["c"], ["b"])
    with pytest.raises(QilaError, match="FILES_TOO_MANY"):
        await anext(port.compare_tree(asked, broken()))


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


async def test_a_process_that_says_much_is_heard_whole_and_holds_up_nobody(
    port: ExecutorPort, sandbox_id: str, fake: FakeExecutor
) -> None:
    async def shout(process: FakeProcess) -> int:
        for number in range(64):
            process.write(bytes([number]) * 8000)
        return 0

    fake.programs["shout"] = shout
    loud = port.run_process(
        pb.RunProcessRequest(sandbox_id=sandbox_id, process_id="loud", spec=pb.ProcessSpec(argv=["shout"]))
    )
    # Whoever listens to this one takes its time.
    begun = [await anext(loud) for _ in range(3)]
    quiet = pb.RunProcessRequest(sandbox_id=sandbox_id, process_id="quiet", spec=pb.ProcessSpec(argv=["speak"]))
    heard = [event async for event in port.run_process(quiet)]
    assert [event.WhichOneof("event") for event in heard] == ["started", "output", "ended"]
    events = [*begun, *[event async for event in loud]]
    output = b"".join(event.output.data for event in events)
    assert output == b"".join(bytes([number]) * 8000 for number in range(64))
    kinds = [event.WhichOneof("event") for event in events]
    assert (kinds.count("started"), kinds.count("ended"), kinds[-1]) == (1, 1, "ended")


async def test_a_process_that_nobody_listens_to_any_more_runs_on(
    port: ExecutorPort, sandbox_id: str, fake: FakeExecutor
) -> None:
    gate = asyncio.Event()

    async def wait(process: FakeProcess) -> int:
        await gate.wait()
        process.write(b"late")
        return 0

    fake.programs["wait"] = wait
    request = pb.RunProcessRequest(sandbox_id=sandbox_id, process_id="p", spec=pb.ProcessSpec(argv=["wait"]))
    left = port.run_process(request)
    assert (await anext(left)).HasField("started")
    await left.aclose()
    gate.set()
    again = [event async for event in port.run_process(request)]
    assert [event.output.data for event in again if event.HasField("output")] == [b"late"]
    assert fake.started == ["p"]


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
