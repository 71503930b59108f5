"""The input of an exec: offsets, one writer, backpressure, and whatever goes away in the middle."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.interaction import Interaction
from services.gateway.live import LiveExec
from services.gateway.process_fake import echo
from services.rpc.errors import ErrorCode, QilaError

from .gateway_world import PATIENCE, World, all_events, command, program, run_bytes, until

CHUNK = 64 << 10
MIB = 1 << 20


class Writer:
    """A client's stream: what it sends, and what it is answered."""

    def __init__(self, world: World, live: LiveExec, *, patience: float = PATIENCE) -> None:
        self.taken = 0
        self._requests: asyncio.Queue[pb.WriteStdinRequest | None] = asyncio.Queue()
        header = pb.WriteStdinHeader(sandbox_id=live.sandbox_id, exec_id=live.exec_id)
        self._requests.put_nowait(pb.WriteStdinRequest(header=header))
        interaction = Interaction(world.conductor, world.executor, patience)
        self.answers = interaction.write_stdin(self._sent())

    def send(self, offset: int, data: bytes) -> None:
        self.put(pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=offset, data=data)))

    def end(self, offset: int) -> None:
        self.put(pb.WriteStdinRequest(end=pb.StdinEnd(offset=offset)))

    def put(self, request: pb.WriteStdinRequest | None) -> None:
        self._requests.put_nowait(request)

    async def accepted(self) -> int:
        return await asyncio.wait_for(anext(self.answers), 5)

    async def until_accepted(self, length: int) -> None:
        while await self.accepted() < length:
            pass

    async def rest(self) -> list[int]:
        async with asyncio.timeout(10):
            return [accepted async for accepted in self.answers]

    async def refused(self) -> QilaError:
        with pytest.raises(QilaError) as caught:
            await self.rest()
        return caught.value

    async def _sent(self) -> Any:
        while (request := await self._requests.get()) is not None:
            self.taken += 1
            yield request


async def settle() -> None:
    """Lets everything go as far as it can: nothing here waits for more than the loop's turns."""
    for _ in range(2000):
        await asyncio.sleep(0)


async def restart_executor(world: World) -> None:
    world.executor.break_off()
    await asyncio.wait_for(world.executor.refused.wait(), 5)
    world.executor.refused.clear()
    world.executor.down = False


async def test_input_arrives_whole_and_ends(world: World) -> None:
    live = await world.conductor.start(command(world, "count", stdin=True))
    writer = Writer(world, live)
    assert await writer.accepted() == 0
    writer.send(0, b"abc")
    writer.send(1, b"bcde")
    writer.end(5)
    assert (await writer.rest())[-1] == 5
    assert run_bytes(await all_events(world, live)) == b"5"


async def test_input_begins_with_the_run(world: World) -> None:
    world.executor.programs["program"] = echo
    world.close_gate("install")
    live = await world.conductor.start(program(world, stdin=True))
    await world.at("install")
    writer = Writer(world, live)
    writer.send(0, b"typed ahead")
    writer.end(11)
    first = asyncio.create_task(writer.accepted())
    await settle()
    assert not first.done()
    world.gates["install"].set()
    assert await first == 0
    await writer.rest()
    assert run_bytes(await all_events(world, live)) == b"typed ahead"


@pytest.mark.parametrize("ending", ["cancelled", "install_failed"])
async def test_exec_that_never_runs_ends_the_wait_for_its_input(world: World, ending: str) -> None:
    world.close_gate("install")
    if ending == "install_failed":
        world.sandbox.files["requirements.txt"] = b"broken"
    live = await world.conductor.start(program(world, stdin=True))
    await world.at("install")
    refused = asyncio.create_task(Writer(world, live).refused())
    await settle()
    if ending == "cancelled":
        await world.conductor.cancel(live.sandbox_id, live.exec_id)
    world.gates["install"].set()
    assert (await refused).reason == "EXEC_ENDED"
    assert (await all_events(world, live))[-1].ended.WhichOneof("end") == ending


@pytest.mark.parametrize("waiting", [True, False])
async def test_second_writer_takes_the_input_over(world: World, waiting: bool) -> None:  # noqa: FBT001  # pytest's
    world.executor.programs["program"] = echo
    world.close_gate("install")
    live = await world.conductor.start(program(world, stdin=True))
    await world.at("install")
    first = Writer(world, live)
    taken_over = asyncio.create_task(first.refused())
    length = 0
    if not waiting:
        world.gates["install"].set()
        first.send(0, b"one ")
        await until(world, live, lambda event: event.output.data == b"one ")
        length = 4
    await settle()
    second = Writer(world, live)
    answer = asyncio.create_task(second.accepted())
    error = await taken_over
    assert (error.code, error.reason) == (ErrorCode.ABORTED, "STDIN_TAKEN_OVER")
    world.gates["install"].set()
    assert await answer == length
    second.send(length, b"two")
    second.end(length + 3)
    await second.rest()
    assert run_bytes(await all_events(world, live)) == (b"two" if waiting else b"one two")


async def test_executor_that_restarts_is_not_noticed_by_a_writer(world: World) -> None:
    live = await world.conductor.start(command(world, "echo", stdin=True))
    writer = Writer(world, live)
    writer.send(0, b"before ")
    await writer.until_accepted(7)
    world.executor.break_off()
    writer.send(7, b"meanwhile ")
    pending = asyncio.create_task(writer.accepted())
    await restart_executor(world)
    assert await pending == 17
    writer.send(17, b"after")
    writer.end(22)
    await writer.rest()
    assert run_bytes(await all_events(world, live)) == b"before meanwhile after"


async def test_executor_that_stays_away_is_told(world: World) -> None:
    live = await world.conductor.start(command(world, "echo", stdin=True))
    writer = Writer(world, live, patience=0.2)
    assert await writer.accepted() == 0
    world.executor.break_off()
    writer.send(0, b"lost")
    assert (await writer.refused()).code is ErrorCode.UNAVAILABLE
    world.executor.down = False
    again = Writer(world, live)
    assert await again.accepted() == 0


async def test_end_whose_answer_was_lost_is_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    live = await world.conductor.start(command(world, "ignore", stdin=True))
    take_input = world.executor.write_stdin
    calls = 0

    async def write_stdin(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise QilaError(ErrorCode.FAILED_PRECONDITION, "STDIN_ENDED", "the input has ended")
        async for accepted in take_input(*arguments):
            yield accepted
            if accepted:
                break
        await take_all(world, live)
        raise QilaError(ErrorCode.UNAVAILABLE, "EXECUTOR_UNAVAILABLE", "gone")

    monkeypatch.setattr(world.executor, "write_stdin", write_stdin)
    writer = Writer(world, live)
    writer.send(0, b"all")
    writer.end(3)
    assert (await writer.rest())[-1] == 3
    assert calls == 2


async def take_all(world: World, live: LiveExec) -> None:
    """The end gets through, its acknowledgement does not."""
    process = world.sandbox.processes[live.exec_id]
    while not process.input_ended:
        await asyncio.wait_for(process.bell.wait(), 5)


async def test_program_that_reads_nothing_stops_its_writer(world: World) -> None:
    live = await world.conductor.start(command(world, "ignore", stdin=True))
    writer = Writer(world, live)
    for number in range(4 * MIB // CHUNK):
        writer.send(number * CHUNK, b"x" * CHUNK)
    collecting = asyncio.create_task(writer.rest())
    await settle()
    # 1 MiB in the sandbox and 1 MiB in the gateway, and not a chunk more.
    assert writer.taken == 1 + 2 * MIB // CHUNK
    assert world.sandbox.processes[live.exec_id].accepted == MIB
    collecting.cancel()


async def test_many_small_chunks_cost_what_their_bytes_do(world: World) -> None:
    live = await world.conductor.start(command(world, "count", stdin=True))
    writer = Writer(world, live)
    for number in range(5000):
        writer.send(number, b"x")
    writer.end(5000)
    await writer.rest()
    assert run_bytes(await all_events(world, live)) == b"5000"


def chunk(offset: int, data: bytes) -> pb.WriteStdinRequest:
    return pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=offset, data=data))


BAD: list[tuple[list[pb.WriteStdinRequest], str, str]] = [
    ([chunk(1, b"x")], "STDIN_GAP", "0"),
    ([chunk(0, b"abc"), chunk(2**63, b"x")], "STDIN_GAP", "3"),
    ([pb.WriteStdinRequest(end=pb.StdinEnd(offset=1))], "STDIN_GAP", "0"),
    ([chunk(0, b"x" * (CHUNK + 1))], "CHUNK_TOO_LARGE", "64 KiB"),
    ([pb.WriteStdinRequest(header=pb.WriteStdinHeader())], "HEADER_REPEATED", "first"),
    ([pb.WriteStdinRequest()], "CHUNK_EXPECTED", "chunk"),
    ([chunk(0, b"abc"), pb.WriteStdinRequest(end=pb.StdinEnd(offset=2))], "FIELD_INVALID", "3"),
]


@pytest.mark.parametrize(("requests", "reason", "names"), BAD)
async def test_bad_input_has_its_answer(
    world: World, requests: list[pb.WriteStdinRequest], reason: str, names: str
) -> None:
    live = await world.conductor.start(command(world, "echo", stdin=True))
    writer = Writer(world, live)
    assert await writer.accepted() == 0
    for request in requests:
        writer.put(request)
    error = await writer.refused()
    assert (error.reason, names in error.message) == (reason, True)
    # The input is as open as it was.
    again = Writer(world, live)
    start = await again.accepted()
    again.send(start, b"end")
    again.end(start + 3)
    await again.rest()
    assert run_bytes(await all_events(world, live)).endswith(b"end")


async def test_bytes_after_the_end_are_refused(world: World) -> None:
    live = await world.conductor.start(command(world, "ignore", stdin=True))
    first = Writer(world, live)
    first.end(0)
    assert await first.rest() == [0]
    later = Writer(world, live)
    later.send(0, b"more")
    assert (await later.refused()).reason == "STDIN_ENDED"
    again = Writer(world, live)
    again.end(0)
    assert await again.rest() == [0]


async def test_input_that_was_not_opened_is_refused(world: World) -> None:
    live = await world.conductor.start(command(world, "true"))
    error = await Writer(world, live).refused()
    assert (error.reason, "start it with" in error.message) == ("STDIN_NOT_OPEN", True)


async def test_input_of_an_ended_exec_is_refused(world: World) -> None:
    live = await world.conductor.start(command(world, "true", stdin=True))
    await all_events(world, live)
    ended = await world.conductor.find(live.sandbox_id, live.exec_id)
    assert (await Writer(world, ended).refused()).reason == "EXEC_ENDED"


async def test_program_that_ends_ends_its_writer(world: World) -> None:
    live = await world.conductor.start(command(world, "ignore", stdin=True))
    writer = Writer(world, live)
    assert await writer.accepted() == 0
    await Interaction(world.conductor, world.executor, PATIENCE).signal(live.sandbox_id, live.exec_id, 15)
    assert (await writer.refused()).reason == "EXEC_ENDED"
    assert (await all_events(world, live))[-1].ended.exited == 143


async def test_stream_that_stops_leaves_the_input_open(world: World) -> None:
    live = await world.conductor.start(command(world, "echo", stdin=True))
    first = Writer(world, live)
    first.send(0, b"one ")
    first.put(None)
    assert (await first.rest())[-1] == 4
    # A client that vanishes is a stream that is closed in the middle.
    second = Writer(world, live)
    assert await second.accepted() == 4
    second.send(4, b"two ")
    await second.until_accepted(8)
    await second.answers.aclose()
    third = Writer(world, live)
    assert await third.accepted() == 8
    third.end(8)
    await third.rest()
    assert run_bytes(await all_events(world, live)) == b"one two "


async def test_terminal_survives_both_restarts(world: World) -> None:
    request = command(world, "echo", terminal=pb.Terminal(rows=24, columns=80))
    request.idle_timeout.seconds = 60
    live = await world.conductor.start(request)
    writer = Writer(world, live)
    writer.send(0, b"one ")
    await writer.until_accepted(4)
    await until(world, live, lambda event: event.output.data == b"one ")
    await writer.answers.aclose()
    await world.conductor.close()
    again = world.restarted()
    await again.adopt()
    found = await again.find(live.sandbox_id, live.exec_id)
    waiting = Writer(world, found)
    answer = asyncio.create_task(waiting.accepted())
    await settle()
    assert not answer.done()
    await again.recover()
    assert await answer == 4
    await restart_executor(world)
    waiting.send(4, b"two")
    await waiting.until_accepted(7)
    interaction = Interaction(again, world.executor, PATIENCE)
    await interaction.resize(live.sandbox_id, live.exec_id, pb.Terminal(rows=50, columns=132))
    process = world.sandbox.processes[live.exec_id]
    assert process.sizes == [(50, 132)]
    assert (process.spec.terminal, process.spec.idle_timeout.seconds) == (executor.Terminal(rows=24, columns=80), 60)
    process.input_ended = True
    process.bell.ring()
    events = await all_events(world, found)
    assert run_bytes(events, pb.STREAM_TERMINAL) == b"one two"
    assert (events[-1].ended.length.terminal, events[-1].ended.length.stdout) == (7, 0)
    assert world.executor.started == [live.exec_id]
