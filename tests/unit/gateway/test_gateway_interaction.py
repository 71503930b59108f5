"""What a client does to a running exec, over the wire; every call's answer in every state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.executor_fake import FakeExecutor, FakeProcess
from services.gateway.interaction import Interaction
from services.rpc.errors import ErrorCode, QilaError

from .gateway_world import LOST, PATIENCE, World, all_events, program, refused, run_bytes

TERMINAL = pb.Terminal(rows=24, columns=80)
NO_EXEC = "ex_" + "z" * 26


async def start(stub: Any, sandbox_id: str, *argv: str, **fields: Any) -> tuple[str, AsyncIterator[pb.ExecResponse]]:
    """An exec, watched until its process is there."""
    request = pb.ExecRequest(sandbox_id=sandbox_id, command=pb.Command(argv=argv), **fields)
    events = aiter(stub.Exec(request))
    return (await anext(events)).event.created.exec_id, events


async def rest(events: AsyncIterator[Any]) -> list[pb.ExecEvent]:
    async with asyncio.timeout(10):
        return [response.event async for response in events]


async def sent(sandbox_id: str, exec_id: str, *chunks: bytes, end: bool = True) -> AsyncIterator[pb.WriteStdinRequest]:
    yield pb.WriteStdinRequest(header=pb.WriteStdinHeader(sandbox_id=sandbox_id, exec_id=exec_id))
    offset = 0
    for chunk in chunks:
        yield pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=offset, data=chunk))
        offset += len(chunk)
    if end:
        yield pb.WriteStdinRequest(end=pb.StdinEnd(offset=offset))


async def test_input_goes_through_the_wire(stub: Any, sandbox_id: str) -> None:
    exec_id, events = await start(stub, sandbox_id, "count", stdin=True)
    chunks = [b"x" * 65536] * 64
    answers = [answer.accepted async for answer in stub.WriteStdin(sent(sandbox_id, exec_id, *chunks))]
    assert (answers[0], answers[-1], answers == sorted(answers)) == (0, 4 << 20, True)
    assert run_bytes(await rest(events)) == str(4 << 20).encode()
    error = await refused(anext(aiter(stub.WriteStdin(sent(sandbox_id, exec_id, b"x")))))
    assert (error.code, error.reason) == (ErrorCode.FAILED_PRECONDITION, "EXEC_ENDED")


async def test_keystrokes_are_answered_one_by_one(stub: Any, sandbox_id: str) -> None:
    exec_id, events = await start(stub, sandbox_id, "echo", terminal=TERMINAL)
    keys: asyncio.Queue[bytes] = asyncio.Queue()

    async def typed() -> AsyncIterator[pb.WriteStdinRequest]:
        yield pb.WriteStdinRequest(header=pb.WriteStdinHeader(sandbox_id=sandbox_id, exec_id=exec_id))
        for offset in range(3):
            yield pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=offset, data=await keys.get()))

    writing = asyncio.create_task(rest_of_answers(stub.WriteStdin(typed())))
    assert (await anext(events)).event.phase_started.phase == pb.PHASE_RUN
    for number, key in enumerate((b"a", b"\x03", b"\xff")):
        keys.put_nowait(key)
        output = (await asyncio.wait_for(anext(events), 5)).event.output
        assert (output.stream, output.offset, output.data) == (pb.STREAM_TERMINAL, number, key)
    assert (await writing)[-1] == 3
    await stub.CancelExec(pb.CancelExecRequest(sandbox_id=sandbox_id, exec_id=exec_id))
    ended = (await rest(events))[-1].ended
    assert (ended.WhichOneof("end"), ended.length.terminal) == ("cancelled", 3)
    # From a position within the terminal's stream.
    place = pb.OutputOffsets(terminal=1)
    attach = pb.AttachExecRequest(sandbox_id=sandbox_id, exec_id=exec_id, after_sequence=2, **{"from": place})
    again = await rest(aiter(stub.AttachExec(attach)))
    assert run_bytes(again, pb.STREAM_TERMINAL) == b"\x03\xff"


async def rest_of_answers(answers: Any) -> list[int]:
    return [answer.accepted async for answer in answers]


async def test_first_message_must_be_the_header(stub: Any) -> None:
    async def headless() -> AsyncIterator[pb.WriteStdinRequest]:
        yield pb.WriteStdinRequest(chunk=pb.StdinChunk(data=b"x"))

    async def nothing() -> AsyncIterator[pb.WriteStdinRequest]:
        for request in list[pb.WriteStdinRequest]():
            yield request

    for requests in (headless(), nothing()):
        assert (await refused(anext(aiter(stub.WriteStdin(requests))))).reason == "HEADER_MISSING"


async def test_unknown_ids_are_not_found(stub: Any, sandbox_id: str) -> None:
    for box, exec_id, reason in ((LOST, NO_EXEC, "SANDBOX_NOT_FOUND"), (sandbox_id, "x" * 99, "EXEC_NOT_FOUND")):
        for call in (
            anext(aiter(stub.WriteStdin(sent(box, exec_id)))),
            stub.ResizeTerminal(pb.ResizeTerminalRequest(sandbox_id=box, exec_id=exec_id, terminal=TERMINAL)),
            stub.SignalExec(pb.SignalExecRequest(sandbox_id=box, exec_id=exec_id, signal=2)),
        ):
            error = await refused(call)
            assert (error.code, error.reason) == (ErrorCode.NOT_FOUND, reason)
    assert (await refused(stub.ListExecs(pb.ListExecsRequest(sandbox_id=LOST)))).reason == "SANDBOX_NOT_FOUND"


async def test_signal_and_size_reach_the_process(stub: Any, sandbox_id: str, executor_fake: FakeExecutor) -> None:
    exec_id, events = await start(stub, sandbox_id, "ignore", terminal=TERMINAL, detach=True)
    # Detached: the stream is over, the exec is not.
    assert await rest(events) == []
    resize = pb.ResizeTerminalRequest(
        sandbox_id=sandbox_id, exec_id=exec_id, terminal=pb.Terminal(rows=4096, columns=1)
    )
    await stub.ResizeTerminal(resize)
    process = executor_fake.sandboxes[sandbox_id].processes[exec_id]
    assert process.sizes == [(4096, 1)]
    signal = pb.SignalExecRequest(sandbox_id=sandbox_id, exec_id=exec_id, signal=2)
    await stub.SignalExec(signal)
    attached = await rest(aiter(stub.AttachExec(pb.AttachExecRequest(sandbox_id=sandbox_id, exec_id=exec_id))))
    assert attached[-1].ended.exited == 130
    for call in (stub.SignalExec(signal), stub.ResizeTerminal(resize)):
        assert (await refused(call)).reason == "EXEC_ENDED"


async def test_detached_exec_is_joined_by_one_that_watches(stub: Any, sandbox_id: str) -> None:
    exec_id = "ex_" + "b" * 26
    _, events = await start(stub, sandbox_id, "true", exec_id=exec_id, detach=True)
    assert await rest(events) == []
    _, events = await start(stub, sandbox_id, "true", exec_id=exec_id)
    assert (await rest(events))[-1].ended.exited == 0


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 80), (24, 0), (4097, 80), (24, 4097)])
async def test_impossible_sizes_are_refused(stub: Any, sandbox_id: str, rows: int, columns: int) -> None:
    bad = pb.Terminal(rows=rows, columns=columns)
    resize = pb.ResizeTerminalRequest(sandbox_id=sandbox_id, exec_id=NO_EXEC, terminal=bad)
    for call in (stub.ResizeTerminal(resize), start(stub, sandbox_id, "true", terminal=bad)):
        error = await refused(call)
        assert error.metadata["field"] == ("terminal.columns" if 1 <= rows <= 4096 else "terminal.rows")


@pytest.mark.parametrize("number", [0, 32, 2**32 - 1])
async def test_numbers_that_are_no_signals_are_refused(stub: Any, sandbox_id: str, number: int) -> None:
    call = stub.SignalExec(pb.SignalExecRequest(sandbox_id=sandbox_id, exec_id=NO_EXEC, signal=number))
    assert (await refused(call)).metadata["field"] == "signal"


async def test_exec_without_a_terminal_has_no_size(stub: Any, sandbox_id: str) -> None:
    exec_id, _ = await start(stub, sandbox_id, "ignore", stdin=True)
    resize = pb.ResizeTerminalRequest(sandbox_id=sandbox_id, exec_id=exec_id, terminal=TERMINAL)
    assert (await refused(stub.ResizeTerminal(resize))).reason == "NO_TERMINAL"


async def test_exec_that_installs_takes_no_signal(world: World) -> None:
    world.close_gate("install")
    live = await world.conductor.start(program(world, terminal=TERMINAL))
    await world.at("install")
    interaction = Interaction(world.conductor, world.executor, PATIENCE)
    for call in (
        interaction.signal(live.sandbox_id, live.exec_id, 15),
        interaction.resize(live.sandbox_id, live.exec_id, TERMINAL),
    ):
        with pytest.raises(QilaError) as caught:
            await call
        assert caught.value.reason == "EXEC_NOT_RUNNING"
    world.gates["install"].set()
    assert (await all_events(world, live))[-1].ended.exited == 3


async def test_signal_waits_for_a_run_that_is_about_to_begin_but_not_for_ever(world: World) -> None:
    live = await world.conductor.start(program(world))
    await all_events(world, live)
    request = pb.ExecRequest(sandbox_id=world.sandbox_id, command=pb.Command(argv=["ignore"]))
    live = await world.conductor.start(request)
    # Nothing has had its turn yet: the process is not there.
    await Interaction(world.conductor, world.executor, PATIENCE).signal(live.sandbox_id, live.exec_id, 15)
    assert (await all_events(world, live))[-1].ended.exited == 143
    live = await world.conductor.start(request)
    await world.conductor.close()
    adopted = world.restarted()
    await adopted.adopt()
    with pytest.raises(QilaError) as caught:
        await Interaction(adopted, world.executor, 0.05).signal(live.sandbox_id, live.exec_id, 15)
    assert caught.value.code is ErrorCode.UNAVAILABLE


async def test_idle_end_and_merged_output_are_passed_on(
    stub: Any, sandbox_id: str, executor_fake: FakeExecutor
) -> None:
    async def quiet(process: FakeProcess) -> int:
        process.end(executor.ProcessEnded(timed_out=executor.TimedOut(idle=True)))
        await process.cancelled.wait()
        return 0

    executor_fake.programs["quiet"] = quiet
    request = pb.ExecRequest(sandbox_id=sandbox_id, command=pb.Command(argv=["quiet"]), merge_output=True)
    request.idle_timeout.seconds = 1
    events = await rest(aiter(stub.Exec(request)))
    assert events[-1].ended.timed_out == pb.TimedOut(phase=pb.PHASE_RUN, idle=True)
    [process] = executor_fake.sandboxes[sandbox_id].processes.values()
    assert (process.spec.merge_output, process.spec.idle_timeout.seconds, process.spec.stdin) == (True, 1, False)


async def test_program_starts_in_the_directory_of_the_client(world: World) -> None:
    request = program(world)
    request.program.working_directory = "data/in"
    live = await world.conductor.start(request)
    events = await all_events(world, live)
    spec = world.sandbox.processes[live.exec_id].spec
    assert spec.working_directory == "data/in"
    # Its file is found from there, too, and that is what the client is told.
    assert list(spec.argv) == ["program", "/sandbox/main.py", "a"]
    [made] = [event.plan_made for event in events if event.HasField("plan_made")]
    assert list(made.launch_argv) == list(spec.argv)


async def test_execs_are_listed_in_pages(stub: Any, sandbox_id: str) -> None:
    ids: list[str] = []
    for _ in range(3):
        exec_id, events = await start(stub, sandbox_id, "true")
        await rest(events)
        ids.insert(0, exec_id)
    running, _ = await start(stub, sandbox_id, "ignore")
    first = await stub.ListExecs(pb.ListExecsRequest(sandbox_id=sandbox_id, page_size=3))
    assert [item.id for item in first.execs] == [running, *ids[:2]]
    assert [item.ended.WhichOneof("end") for item in first.execs] == [None, "exited", "exited"]
    following = pb.ListExecsRequest(sandbox_id=sandbox_id, page_size=3, page_token=first.next_page_token)
    second = await stub.ListExecs(following)
    assert ([item.id for item in second.execs], second.next_page_token) == (ids[2:], "")
    alive = await stub.ListExecs(pb.ListExecsRequest(sandbox_id=sandbox_id, running_only=True))
    assert [item.id for item in alive.execs] == [running]
    bad = pb.ListExecsRequest(sandbox_id=sandbox_id, page_token=NO_EXEC)
    assert (await refused(stub.ListExecs(bad))).metadata["field"] == "page_token"


async def test_page_of_long_ends_stays_below_a_message(stub: Any, sandbox_id: str, executor_fake: FakeExecutor) -> None:
    async def fail(process: FakeProcess) -> int:
        detail = "x" * (300 << 10)
        process.end(executor.ProcessEnded(start_failed=executor.StartFailed(error="ENOENT", detail=detail)))
        await process.cancelled.wait()
        return 0

    executor_fake.programs["fail"] = fail
    ids: list[str] = []
    for _ in range(6):
        exec_id, events = await start(stub, sandbox_id, "fail")
        await rest(events)
        ids.insert(0, exec_id)
    found: list[str] = []
    token = ""
    for _ in range(2):
        answer = await stub.ListExecs(pb.ListExecsRequest(sandbox_id=sandbox_id, page_token=token))
        assert answer.ByteSize() < 2 << 20
        found += [item.id for item in answer.execs]
        token = answer.next_page_token
    assert (found, token) == (ids, "")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"program": {}, "stdin": True, "install_missing": True}, "stdin"),
        ({"program": {}, "terminal": TERMINAL, "install_missing": True}, "terminal"),
        ({"program": {"working_directory": "../up"}}, "program.working_directory"),
        ({"program": {"working_directory": "/etc"}}, "program.working_directory"),
        ({"command": {"argv": ["true"]}, "idle_timeout": {"nanos": 999_999_999}}, "idle_timeout"),
        ({"command": {"argv": ["true"]}, "idle_timeout": {"seconds": -1}}, "idle_timeout"),
        ({"command": {"argv": ["true"]}, "idle_timeout": {"seconds": 86_401}}, "idle_timeout"),
    ],
)
def test_bad_interaction_names_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(QilaError) as caught:
        checks.check_exec_request(pb.ExecRequest(sandbox_id=LOST, **fields))
    assert (caught.value.reason, caught.value.metadata["field"]) == ("FIELD_INVALID", field)
