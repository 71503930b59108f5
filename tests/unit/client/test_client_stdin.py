"""Inputs, terminals, signals and lists of execs, with both clients."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from qila.client import (
    AbortedError,
    AsyncClient,
    AsyncExec,
    Client,
    Exec,
    FailedPreconditionError,
    NotFoundError,
    TerminalSize,
    UnavailableError,
)
from qila.client.requests import exec_request
from qila.client.stdin import MAX_UNACKNOWLEDGED_BYTES, StdinBuffer, StdinLink
from qila.gateway.v1 import gateway_pb2 as pb

from .scripted_gateway import SANDBOX, ScriptedExec, ScriptedGateway

DATA = random.Random(1).randbytes(3 << 20)


@pytest.fixture
def client(gateway: ScriptedGateway) -> Iterator[Client]:
    with Client(os.environ["QILA_GATEWAY_ADDRESS"], reconnect_seconds=10) as opened:
        yield opened


@pytest.fixture
async def async_client(gateway: ScriptedGateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(os.environ["QILA_GATEWAY_ADDRESS"], reconnect_seconds=10) as opened:
        yield opened


def test_input_comes_back_bit_for_bit(client: Client) -> None:
    result = client.exec(SANDBOX, ["cat"], stdin=True).communicate(DATA)
    assert result.stdout == DATA
    assert result.exit_code == 0


@pytest.mark.parametrize("at", [1, 100_000, len(DATA)])
def test_input_goes_on_after_a_lost_connection(gateway: ScriptedGateway, client: Client, at: int) -> None:
    gateway.break_input_at = at
    with client.exec(SANDBOX, ["cat"], stdin=True) as run:
        result = run.communicate(DATA)
    assert result.stdout == DATA
    assert gateway.execs[run.exec_id].writers == 2


@pytest.mark.parametrize("at", [1, 100_000, len(DATA)])
async def test_input_goes_on_after_a_lost_connection_async(
    gateway: ScriptedGateway, async_client: AsyncClient, at: int
) -> None:
    gateway.break_input_at = at
    async with async_client.exec(SANDBOX, ["cat"], stdin=True) as run:
        result = await run.communicate(DATA)
    assert result.stdout == DATA
    assert gateway.execs[run.exec_id].writers == 2


def test_events_and_input_both_go_on(gateway: ScriptedGateway, client: Client) -> None:
    with client.exec(SANDBOX, ["cat"], stdin=True) as run:
        run.write_stdin(b"one ")
        output = b""
        for event in run:
            output += event.output.data
            if output == b"one ":
                gateway.break_streams()
                run.write_stdin(b"two")
                run.close_stdin()
    assert output == b"one two"
    assert getattr(gateway.attaches[0], "from").stdout == 4


async def test_events_go_on_after_a_cancelled_wait(gateway: ScriptedGateway, async_client: AsyncClient) -> None:
    async with async_client.exec(SANDBOX, ["cat"], stdin=True) as run:
        await run.write_stdin(b"one")
        output = b""
        while output != b"one":
            output += (await anext(run)).output.data
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(run)
        await run.close_stdin()
        assert (await run.wait()).exited == 0


async def test_a_reader_that_is_cancelled_after_the_close_is_cancelled(async_client: AsyncClient) -> None:
    run = async_client.exec(SANDBOX, ["sleep"])
    assert (await anext(run)).HasField("created")
    assert (await anext(run)).HasField("phase_started")
    reading = asyncio.create_task(run.wait())
    await asyncio.sleep(0)
    await run.close()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


def test_a_close_in_the_middle_of_an_input_leaves_no_crashed_thread(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", crashed.append)
    before = set(threading.enumerate())
    run = client.exec(SANDBOX, ["sleep"], stdin=True)

    def leave(_: pb.ExecEvent) -> None:
        raise KeyboardInterrupt

    with run, pytest.raises(KeyboardInterrupt):
        run.communicate(DATA, on_event=leave)
    for thread in set(threading.enumerate()) - before:
        if "_write_all" in thread.name:
            thread.join(20)
    assert crashed == []


def test_a_second_writer_takes_over(gateway: ScriptedGateway, client: Client) -> None:
    with client.exec(SANDBOX, ["cat"], stdin=True) as run, client.attach(SANDBOX, run.start().exec_id) as other:
        run.write_stdin(b"first ")
        run.flush_stdin()
        other.write_stdin(b"second")
        other.flush_stdin()
        run.write_stdin(b"lost")
        with pytest.raises(AbortedError) as caught:
            run.flush_stdin()
        assert caught.value.reason == "STDIN_TAKEN_OVER"
        other.close_stdin()
        assert run.wait().exited == 0
    assert gateway.execs[run.exec_id].input == b"first second"


def test_a_program_that_is_gone_is_said(gateway: ScriptedGateway, client: Client) -> None:
    gateway.programs["head"] = lambda running: len(running.read()) * 0
    with client.exec(SANDBOX, ["head"], stdin=True) as run:
        run.write_stdin(b"x")
        run.wait()
        run.write_stdin(b"y")
        with pytest.raises(FailedPreconditionError) as caught:
            run.flush_stdin()
        assert caught.value.reason == "EXEC_ENDED"
    result = client.exec(SANDBOX, ["head"], stdin=True).communicate(DATA)
    assert result.exit_code == 0


def test_an_input_that_is_not_open_is_refused(client: Client) -> None:
    with client.exec(SANDBOX, ["sleep"]) as run:
        run.write_stdin(b"x")
        with pytest.raises(FailedPreconditionError) as caught:
            run.flush_stdin()
        assert caught.value.reason == "STDIN_NOT_OPEN"
        run.cancel()
        assert run.wait().HasField("cancelled")


def test_a_writer_waits_for_room(gateway: ScriptedGateway, client: Client) -> None:
    begin = threading.Event()

    def late(running: ScriptedExec) -> int:
        begin.wait(20)
        return 0

    gateway.programs["late"] = late
    buffer = StdinBuffer()
    assert buffer.append(memoryview(DATA)) == MAX_UNACKNOWLEDGED_BYTES
    assert buffer.room == 0
    with client.exec(SANDBOX, ["late"], stdin=True) as run:
        run.write_stdin(DATA)
        begin.set()
        assert run.wait().exited == 0


def test_terminal_signal_and_list(gateway: ScriptedGateway, client: Client) -> None:
    with client.exec(SANDBOX, ["sleep"], terminal=TerminalSize(24, 80)) as run:
        run.resize(50, 100)
        assert gateway.execs[run.exec_id].sizes == [(24, 80), (50, 100)]
        running = [found.id for found in client.list_execs(SANDBOX, running_only=True)]
        assert running == [run.exec_id]
        run.signal(15)
        assert run.wait().signaled == 15
    for _ in range(4):
        client.exec(SANDBOX, ["cat"], stdin=True).communicate()
    assert len(list(client.list_execs(SANDBOX))) == 5
    assert list(client.list_execs(SANDBOX, running_only=True)) == []


async def test_terminal_signal_and_list_async(gateway: ScriptedGateway, async_client: AsyncClient) -> None:
    async with async_client.exec(SANDBOX, ["sleep"], terminal=TerminalSize(24, 80)) as run:
        await run.resize(50, 100)
        assert gateway.execs[run.exec_id].sizes == [(24, 80), (50, 100)]
        await run.signal(2)
        assert (await run.wait()).signaled == 2
    for _ in range(4):
        await async_client.exec(SANDBOX, ["cat"], stdin=True).communicate()
    assert len([found async for found in async_client.list_execs(SANDBOX)]) == 5


def test_a_detached_exec_is_attached_to(client: Client) -> None:
    with client.exec(SANDBOX, ["cat"], stdin=True, detach=True) as run:
        assert [event.WhichOneof("event") for event in run] == ["created"]
        with pytest.raises(ValueError, match="attach"):
            run.wait()
    with client.attach(SANDBOX, run.exec_id) as again:
        assert again.communicate(b"late").stdout == b"late"


def test_what_is_sent_of_an_exec(gateway: ScriptedGateway, client: Client) -> None:
    run = client.exec(
        SANDBOX, ["sleep"], idle_seconds=1.5, run_seconds=2, merge_output=True, env={"A": "b"}, detach=True
    ).start()
    request = gateway.execs[run.exec_id].request
    assert (request.idle_timeout.ToTimedelta().total_seconds(), request.run_timeout.seconds) == (1.5, 2)
    assert (request.merge_output, dict(request.env), list(request.command.argv)) == (True, {"A": "b"}, ["sleep"])
    client.cancel(SANDBOX, run.exec_id)


def _silent_until_attached(gateway: ScriptedGateway) -> None:
    """A program of which the first connection hears one heartbeat, and then nothing."""

    def program(running: ScriptedExec) -> int:
        running.tell(heartbeat=pb.Heartbeat(phase=pb.PHASE_RUN))
        assert gateway.attached.wait(20)
        return 5

    gateway.programs["silent"] = program


def test_silence_after_a_heartbeat_is_a_lost_connection(gateway: ScriptedGateway, client: Client) -> None:
    _silent_until_attached(gateway)
    request = exec_request(SANDBOX, ["silent"], {})
    with Exec(client._stub, request, silence_seconds=0.3) as run:
        assert run.wait().exited == 5
    assert len(gateway.attaches) >= 1


def test_a_watch_that_failed_leaves_no_thread(gateway: ScriptedGateway, client: Client) -> None:
    def fall(running: ScriptedExec) -> int:
        running.tell(heartbeat=pb.Heartbeat(phase=pb.PHASE_RUN))
        running.read()
        del gateway.execs[running.request.exec_id]
        gateway.epoch += 1
        return 0

    gateway.programs["fall"] = fall
    run = client.exec(SANDBOX, ["fall"], stdin=True)
    while not next(run).HasField("heartbeat"):
        pass
    (watch,) = [thread for thread in threading.enumerate() if thread.name == "qila-silence"]
    run.write_stdin(b"x")
    with pytest.raises(NotFoundError):
        run.wait()
    watch.join(5)
    assert not watch.is_alive()


async def test_silence_after_a_heartbeat_is_a_lost_connection_async(
    gateway: ScriptedGateway, async_client: AsyncClient
) -> None:
    _silent_until_attached(gateway)
    request = exec_request(SANDBOX, ["silent"], {})
    async with AsyncExec(async_client._stub, request, silence_seconds=0.3) as run:
        assert (await run.wait()).exited == 5
    assert len(gateway.attaches) >= 1


async def test_errors_are_typed_async(async_client: AsyncClient) -> None:
    with pytest.raises(NotFoundError) as caught:
        await async_client.cancel(SANDBOX, "ex_" + "z" * 26)
    assert caught.value.reason == "EXEC_NOT_FOUND"
    async with AsyncClient("127.0.0.1:1") as nowhere:
        with pytest.raises(UnavailableError):
            await nowhere.exec(SANDBOX, ["cat"]).start()


def test_a_link_sends_nothing_before_it_knows_where() -> None:
    buffer = StdinBuffer()
    buffer.append(memoryview(b"abc"))
    link = StdinLink(buffer, SANDBOX, "ex")
    assert link.next_request() is None
    link.answered(7)
    assert link.next_request() == pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=7, data=b"abc"))
    again = StdinLink(buffer, SANDBOX, "ex")
    again.answered(8)
    assert again.next_request() == pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=8, data=b"bc"))
    with pytest.raises(AbortedError):
        StdinLink(buffer, SANDBOX, "ex").answered(11)
