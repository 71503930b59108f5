"""Input, terminals and signals over the wire: one suite for the runtime in memory and for the real one."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import status_pb2

from qila.executor.v1 import executor_pb2 as pb
from services.executor.process_wire import unpack_spec
from services.executor.profile import load_profile
from services.executor.runtime.docker import DockerRuntime
from services.executor.runtime.fake import FakeRuntime
from services.executor.runtime.images import WorkspaceImages
from services.executor.runtime.port import Runtime, SandboxSpec
from services.rpc.errors import ErrorCode, QilaError, from_rpc_error, from_status

from .fake_sandboxd import FakeSandboxd
from .world import executor

pytestmark = pytest.mark.timeout(120)

SIZE = pb.Terminal(rows=24, columns=80)
STREAMS = {pb.STREAM_STDOUT: "stdout", pb.STREAM_STDERR: "stderr", pb.STREAM_TERMINAL: "terminal"}


class Subject:
    """A sandbox, and the executor of the moment."""

    def __init__(self, directory: Path, runtime: Runtime, image: str) -> None:
        self._directory = directory
        self._runtime = runtime
        self._image = image
        self._lives = AsyncExitStack()
        self.stub: Any = None
        self.id = ""

    async def begin(self) -> None:
        self.stub = await self._lives.enter_async_context(executor(self._directory, self._runtime, self._image))
        if not self.id:
            self.id = (await self.stub.CreateSandbox(pb.CreateSandboxRequest())).sandbox.id

    async def end(self) -> None:
        await self._lives.aclose()

    async def start(self, name: str, *argv: str, **fields: Any) -> Any:
        """Starts a process and returns its events, the first of which has come."""
        request = pb.RunProcessRequest(sandbox_id=self.id, process_id=name, spec=pb.ProcessSpec(argv=argv, **fields))
        events = self.stub.RunProcess(request)
        assert (await events.read()).event.HasField("started")
        return events

    def attach(self, name: str, **offsets: int) -> Any:
        wanted: dict[str, Any] = {"from": pb.Offsets(**offsets)}
        return self.stub.AttachProcess(pb.AttachProcessRequest(sandbox_id=self.id, process_id=name, **wanted))

    async def outcome(self, name: str) -> tuple[dict[str, bytes], pb.ProcessEnded]:
        """All output and the end of a process."""
        output: dict[str, bytes] = {}
        async for response in self.attach(name):
            event = response.event
            if event.HasField("output"):
                stream = STREAMS[event.output.stream]
                assert event.output.offset == len(output.get(stream, b""))
                output[stream] = output.get(stream, b"") + event.output.data
            if event.HasField("ended"):
                return output, event.ended
        raise AssertionError("no end")

    async def writer(self, name: str) -> Writer:
        return await Writer(self.stub.WriteStdin(), self.id, name).begin()

    async def cancel(self, name: str) -> None:
        await self.stub.CancelProcess(pb.CancelProcessRequest(sandbox_id=self.id, process_id=name))

    async def signal(self, name: str, number: int) -> None:
        request = pb.SignalProcessRequest(sandbox_id=self.id, process_id=name, signal=number)
        await self.stub.SignalProcess(request)

    async def resize(self, name: str, rows: int, columns: int) -> None:
        size = pb.Terminal(rows=rows, columns=columns)
        await self.stub.ResizeTerminal(pb.ResizeTerminalRequest(sandbox_id=self.id, process_id=name, terminal=size))


class Writer:
    """A WriteStdin stream."""

    def __init__(self, call: Any, sandbox_id: str, process_id: str) -> None:
        self.call = call
        self._header = pb.WriteStdinHeader(sandbox_id=sandbox_id, process_id=process_id)
        self.start = -1

    async def begin(self) -> Writer:
        await self.call.write(pb.WriteStdinRequest(header=self._header))
        self.start = await self.answer()
        return self

    async def answer(self) -> int:
        response = await self.call.read()
        if response is grpc.aio.EOF:
            # Raises what the stream ended with.
            await _checked(self.call)
            raise AssertionError("the stream has ended")
        accepted: int = response.accepted
        return accepted

    async def write(self, offset: int, data: bytes) -> int:
        await self.call.write(pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=offset, data=data)))
        return await self.answer()

    async def finish(self, offset: int) -> int:
        await self.call.write(pb.WriteStdinRequest(end=pb.StdinEnd(offset=offset)))
        accepted = await self.answer()
        assert await self.call.read() is grpc.aio.EOF
        await _checked(self.call)
        return accepted


async def _checked(call: Any) -> None:
    if await call.code() is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="qila-") as name:
        directory, running = Path(name), dict[str, FakeSandboxd]()

        async def start(spec: SandboxSpec) -> None:
            running[spec.sandbox_id] = FakeSandboxd(spec)

        async def kill(spec: SandboxSpec) -> None:
            await running.pop(spec.sandbox_id).stop()

        runtime: Runtime = FakeRuntime(images=["image"], on_start=start, on_kill=kill)
        image = "image"
        if request.param == "docker":
            image = request.getfixturevalue("sandbox_image")
            images = WorkspaceImages(directory=directory / "w", links=directory / "l", max_inodes=10_000)
            runtime = DockerRuntime(instance=f"test-{secrets.token_hex(4)}", profile=load_profile(), images=images)
        made = Subject(directory, runtime, image)
        try:
            await made.begin()
            yield made
        finally:
            await made.end()
            for status in await runtime.list():
                await runtime.remove(status.sandbox_id)
            await runtime.close()


def reason(caught: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> tuple[ErrorCode, str]:
    error: QilaError = from_rpc_error(caught.value)
    return error.code, error.reason


async def test_input_is_written_acknowledged_and_ended(subject: Subject) -> None:
    await subject.start("p", "cat", stdin=True)
    writer = await subject.writer("p")
    assert writer.start == 0
    assert await writer.write(0, b"hello ") == 6
    assert await writer.write(3, b"lo world") == 11
    assert await writer.finish(11) == 11
    output, ended = await subject.outcome("p")
    assert output == {"stdout": b"hello world"}
    assert (ended.exited, ended.length.stdout) == (0, 11)


async def test_a_writer_that_vanished_is_succeeded_by_one_that_asks_where_to_go_on(subject: Subject) -> None:
    await subject.start("p", "cat", stdin=True)
    first = await subject.writer("p")
    await first.write(0, b"abc")
    first.call.cancel()
    second = await subject.writer("p")
    assert second.start == 3
    await second.write(0, b"abcdef")
    await second.finish(6)
    assert (await subject.outcome("p"))[0] == {"stdout": b"abcdef"}


async def test_a_new_writer_takes_over_from_one_that_is_silent(subject: Subject) -> None:
    await subject.start("p", "cat", stdin=True)
    first = await subject.writer("p")
    await first.write(0, b"abc")
    second = await subject.writer("p")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first.answer()
    assert reason(caught) == (ErrorCode.ABORTED, "STDIN_TAKEN_OVER")
    assert second.start == 3
    await second.finish(3)
    assert (await subject.outcome("p"))[0] == {"stdout": b"abc"}


async def test_acknowledged_input_survives_a_restart_of_the_executor(subject: Subject) -> None:
    await subject.start("p", "cat", stdin=True)
    await (await subject.writer("p")).write(0, b"before ")
    await subject.end()
    await subject.begin()
    writer = await subject.writer("p")
    assert writer.start == 7
    await writer.write(7, b"after")
    await writer.finish(12)
    assert (await subject.outcome("p"))[0] == {"stdout": b"before after"}


async def test_a_program_that_never_reads_holds_its_writer_and_nobody_else(subject: Subject) -> None:
    await subject.start("p", "sleep", "1000", stdin=True)
    writer = await subject.writer("p")
    accepted, part = 0, bytes(1 << 16)
    writing = asyncio.create_task(_write_on(writer, part))
    while accepted < 1 << 20:
        accepted = await writer.answer()
    await subject.start("q", "cat", stdin=True)
    await (await subject.writer("q")).finish(0)
    await subject.outcome("q")
    # What waits, and what the kernel's pipe holds.
    assert accepted <= (1 << 20) + (1 << 16)
    await subject.cancel("p")
    # In the middle of a write gRPC's own client does not tell why a stream ended: whoever asks again is told.
    with pytest.raises(grpc.aio.AioRpcError):
        await _drain(writer)
    writing.cancel()
    assert (await subject.outcome("p"))[1].WhichOneof("end") == "cancelled"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await subject.writer("p")
    assert reason(caught) == (ErrorCode.FAILED_PRECONDITION, "PROCESS_ENDED")


async def _drain(writer: Writer) -> None:
    while True:
        await writer.answer()


async def _write_on(writer: Writer, part: bytes) -> None:
    offset = 0
    while True:
        await writer.call.write(pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=offset, data=part)))
        offset += len(part)


def chunk(offset: int, size: int) -> pb.WriteStdinRequest:
    return pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=offset, data=bytes(size)))


ENDED = pb.WriteStdinRequest(end=pb.StdinEnd(offset=0))
HEADER = pb.WriteStdinRequest(header=pb.WriteStdinHeader())


@pytest.mark.parametrize(
    ("parts", "answer"),
    [
        ((chunk(1, 1),), (ErrorCode.OUT_OF_RANGE, "STDIN_GAP")),
        ((pb.WriteStdinRequest(end=pb.StdinEnd(offset=1)),), (ErrorCode.OUT_OF_RANGE, "STDIN_GAP")),
        ((chunk(0, (64 << 10) + 1),), (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")),
        ((HEADER,), (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")),
        ((pb.WriteStdinRequest(),), (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")),
    ],
    ids=["gap", "end-behind-a-gap", "large", "second-header", "empty"],
)
async def test_bad_input_has_one_answer(
    subject: Subject, parts: Iterable[pb.WriteStdinRequest], answer: tuple[ErrorCode, str]
) -> None:
    await subject.start("p", "sleep", "1000", stdin=True)
    writer = await subject.writer("p")
    for part in parts:
        await writer.call.write(part)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await writer.answer()
    assert reason(caught) == answer


async def test_the_end_comes_twice_and_nothing_behind_it(subject: Subject) -> None:
    await subject.start("p", "sleep", "1000", stdin=True)
    for _ in range(2):
        assert await (await subject.writer("p")).finish(0) == 0
    writer = await subject.writer("p")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await writer.write(0, b"x")
    assert reason(caught) == (ErrorCode.FAILED_PRECONDITION, "STDIN_ENDED")


async def test_what_a_process_has_not_is_refused(subject: Subject) -> None:
    await subject.start("p", "sleep", "1000")
    for attempt, answer in (
        (subject.writer("p"), (ErrorCode.FAILED_PRECONDITION, "STDIN_NOT_OPEN")),
        (subject.resize("p", 24, 80), (ErrorCode.FAILED_PRECONDITION, "NO_TERMINAL")),
        (subject.writer("q"), (ErrorCode.NOT_FOUND, "PROCESS_NOT_FOUND")),
        (subject.resize("q", 24, 80), (ErrorCode.NOT_FOUND, "PROCESS_NOT_FOUND")),
        (subject.signal("q", 2), (ErrorCode.NOT_FOUND, "PROCESS_NOT_FOUND")),
        (subject.resize("p", 0, 0), (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")),
        (subject.resize("p", 24, 5000), (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")),
        (subject.signal("p", 0), (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")),
        (subject.signal("p", 32), (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await attempt
        assert reason(caught) == answer


@pytest.mark.parametrize(
    "fields", [{"terminal": pb.Terminal()}, {"terminal": pb.Terminal(rows=24, columns=5000)}], ids=["0x0", "wide"]
)
async def test_a_terminal_of_no_size_is_not_made(subject: Subject, fields: dict[str, Any]) -> None:
    spec = pb.ProcessSpec(argv=["cat"], **fields)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await subject.stub.RunProcess(pb.RunProcessRequest(sandbox_id=subject.id, process_id="p", spec=spec)).read()
    assert reason(caught) == (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_words_that_do_not_fit_into_an_order_are_refused_and_harm_nobody(subject: Subject) -> None:
    """sandboxd would hang up for an order above 1 MiB, and the executor send it again for ever."""
    small = {f"V{number}": "ж" * 60_000 for number in range(4)}
    await subject.start("p", "sleep", "1000", env=small)
    spec = pb.ProcessSpec(argv=["sleep", "1000"], env=dict.fromkeys(small, "\x01" * 120_000))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await subject.stub.RunProcess(pb.RunProcessRequest(sandbox_id=subject.id, process_id="q", spec=spec)).read()
    assert reason(caught) == (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")
    await subject.signal("p", 15)
    assert (await subject.outcome("p"))[1].signaled == 15


@pytest.mark.parametrize("field", ["timeout", "idle_timeout"])
@pytest.mark.parametrize("length", [Duration(seconds=-1), Duration(seconds=24 * 3600, nanos=1)])
async def test_a_time_that_cannot_be_kept_is_refused(subject: Subject, field: str, length: Duration) -> None:
    spec = pb.ProcessSpec(argv=["cat"], **{field: length})  # type: ignore[arg-type]  # one of two fields of a kind
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await subject.stub.RunProcess(pb.RunProcessRequest(sandbox_id=subject.id, process_id="p", spec=spec)).read()
    assert reason(caught) == (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")


def test_a_time_too_short_to_be_counted_is_not_without_a_limit() -> None:
    assert unpack_spec(pb.ProcessSpec(argv=["cat"], user=pb.USER_PROGRAM, timeout=Duration(nanos=1))).timeout_ms == 1


async def test_a_finished_process_answers_that_it_has_ended(subject: Subject) -> None:
    await subject.start("p", "sleep", "1000", terminal=SIZE)
    await subject.resize("p", 50, 132)
    await subject.signal("p", 15)
    ended = (await subject.outcome("p"))[1]
    assert ended.signaled == 15
    for attempt in (subject.writer("p"), subject.resize("p", 24, 80), subject.signal("p", 2)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await attempt
        assert reason(caught) == (ErrorCode.FAILED_PRECONDITION, "PROCESS_ENDED")


async def test_a_terminal_has_one_stream_and_its_end_of_input_hangs_up_nothing(subject: Subject) -> None:
    await subject.start("p", "cat", terminal=SIZE)
    assert await (await subject.writer("p")).finish(0) == 0
    writer = await subject.writer("p")
    await writer.write(0, b"hello\n")
    seen = b""
    watching = subject.attach("p")
    while b"hello" not in seen:
        event = (await watching.read()).event
        if event.HasField("output"):
            assert event.output.stream == pb.STREAM_TERMINAL
            seen += event.output.data
    await subject.cancel("p")
    output, ended = await subject.outcome("p")
    assert list(output) == ["terminal"]
    assert ended.length.terminal == len(output["terminal"])
    # A watcher comes back at the offset that it has.
    rest = subject.attach("p", terminal=2)
    assert (await rest.read()).event.HasField("started")
    assert (await rest.read()).event.output.offset == 2
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await subject.attach("p", terminal=len(output["terminal"]) + 1).read()
    assert reason(caught) == (ErrorCode.OUT_OF_RANGE, "OFFSET_BEYOND_END")


async def test_joining_takes_the_same_terminal(subject: Subject) -> None:
    await subject.start("p", "cat", terminal=SIZE)
    await subject.start("p", "cat", terminal=SIZE)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await subject.start("p", "cat", terminal=pb.Terminal(rows=25, columns=80))
    assert reason(caught) == (ErrorCode.ALREADY_EXISTS, "PROCESS_EXISTS")


class Runs:
    """A RunProcesses stream."""

    def __init__(self, subject: Subject) -> None:
        self._sandbox_id = subject.id
        self.call = subject.stub.RunProcesses()

    async def start(self, number: int, name: str, *argv: str) -> None:
        run = pb.RunProcessRequest(sandbox_id=self._sandbox_id, process_id=name, spec=pb.ProcessSpec(argv=argv))
        await self.call.write(pb.RunProcessesRequest(number=number, run=run))

    async def answer(self) -> tuple[int, str]:
        """The number and the kind of the next answer."""
        response = await self.call.read()
        assert response is not grpc.aio.EOF
        kind = response.WhichOneof("answer")
        return response.number, response.event.WhichOneof("event") if kind == "event" else kind


async def test_one_stream_starts_many_and_a_failure_of_one_is_its_own(subject: Subject) -> None:
    runs = Runs(subject)
    await runs.start(1, "sleeps", "sleep", "1000")
    assert await runs.answer() == (1, "started")
    await runs.start(2, "not an id", "true")
    response = await runs.call.read()
    error = from_status(status_pb2.Status.FromString(response.failure))
    assert (response.number, error.code, error.reason) == (2, ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")
    await runs.start(3, "other", "sleep", "1000")
    assert await runs.answer() == (3, "started")
    await subject.cancel("other")
    assert await runs.answer() == (3, "ended")
    # Leaving it kills nothing.
    await runs.call.write(pb.RunProcessesRequest(number=1, leave=pb.LeaveRun()))
    joined = Runs(subject)
    await joined.start(1, "sleeps", "sleep", "1000")
    assert await joined.answer() == (1, "started")
    await subject.cancel("sleeps")
    assert await joined.answer() == (1, "ended")


async def test_a_stream_that_breaks_its_rules_is_ended_and_its_runs_go_on(subject: Subject) -> None:
    runs = Runs(subject)
    await runs.start(1, "sleeps", "sleep", "1000")
    assert await runs.answer() == (1, "started")
    await runs.start(1, "other", "cat")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await runs.call.read()
    assert reason(caught) == (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")
    await subject.cancel("sleeps")
    assert (await subject.outcome("sleeps"))[1].HasField("cancelled")
