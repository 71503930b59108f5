"""Watchers: heartbeats in silence, and what many of them, slow or gone, cost."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import pulse
from services.gateway.executor_fake import FakeProcess
from services.gateway.journal import Bell, OutputRing
from services.gateway.live import LiveExec
from services.gateway.watching import watch

from .gateway_world import PATIENCE, World, all_events, command, kinds, program, run_bytes

MIB = 1 << 20


@pytest.fixture(name="impatient")
def make_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "SILENCE_SECONDS", 0.02)


def watcher(world: World, live: LiveExec, **options: Any) -> AsyncGenerator[pb.ExecEvent, None]:
    return watch(world.executor, live, patience=PATIENCE, **options)


async def heartbeats(events: AsyncGenerator[pb.ExecEvent, None], phase: pb.Phase.ValueType, number: int) -> None:
    found = 0
    async with asyncio.timeout(5):
        async for event in events:
            if event.HasField("heartbeat"):
                assert (event.sequence, event.heartbeat.phase, event.HasField("time")) == (0, phase, True)
                found += 1
            if found == number:
                return
    raise AssertionError


@pytest.mark.usefixtures("impatient")
async def test_silence_is_told_in_every_phase_and_not_recorded(world: World) -> None:
    world.close_gate("install")
    world.close_gate("run")
    live = await world.conductor.start(program(world))
    await world.at("install")
    async with aclosing(watcher(world, live)) as events:
        await heartbeats(events, pb.PHASE_INSTALL, 3)
        world.gates["install"].set()
        await heartbeats(events, pb.PHASE_RUN, 3)
        # One that reads the spool hears it too.
        async with aclosing(watcher(world, live, after=8, position=executor.Offsets(stdout=2))) as later:
            assert (await anext(later)).output.data == b"rst "
            await heartbeats(later, pb.PHASE_RUN, 3)
            world.gates["run"].set()
            assert run_bytes([event async for event in later]) == b"second"
        assert [event async for event in events][-1].ended.exited == 3
    again = await world.conductor.find(live.sandbox_id, live.exec_id)
    assert not [event for event in await all_events(world, again) if event.HasField("heartbeat")]


@pytest.mark.usefixtures("impatient")
async def test_silence_is_told_of_an_exec_that_waits_for_the_executor(world: World) -> None:
    live = await world.conductor.start(command(world, "ignore"))
    await world.conductor.close()
    adopted = world.restarted()
    await adopted.adopt()
    found = await adopted.find(live.sandbox_id, live.exec_id)
    async with aclosing(watcher(world, found)) as events:
        await heartbeats(events, pb.PHASE_RUN, 2)


async def test_an_exec_whose_output_is_no_longer_kept_is_told_to_its_end(world: World) -> None:
    live = await world.conductor.start(command(world, "program"))
    assert run_bytes(await all_events(world, live)) == b"first second"
    # Until it is on record, what ran is at hand.
    assert live.task is not None
    await live.task
    del world.sandbox.processes[live.exec_id]
    found = await world.conductor.find(live.sandbox_id, live.exec_id)
    events = await all_events(world, found)
    assert kinds(events) == ["created", "PHASE_RUN", "notice", "ended"]
    assert (events[-2].sequence, events[-2].notice.code) == (0, "OUTPUT_NOT_KEPT")
    assert events[-1].ended.exited == 3


async def test_output_costs_no_timers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    call_at = loop.call_at
    timers: list[object] = []

    def counted(when: float, callback: Any, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(getattr(callback, "__qualname__", ""))
        return call_at(when, callback, *arguments, **options)

    async def talk(process: FakeProcess) -> int:
        for _ in range(200):
            process.write(b"x")
            await asyncio.sleep(0)
        return 0

    world.executor.programs["talk"] = talk
    live = await world.conductor.start(command(world, "talk"))
    monkeypatch.setattr(loop, "call_at", counted)
    events = [event async for event in watcher(world, live)]
    assert len(run_bytes(events)) == 200
    assert timers.count("Pulse._look") == 1


async def test_watchers_that_go_away_from_a_silent_exec_leave_nothing(world: World) -> None:
    live = await world.conductor.start(command(world, "ignore"))

    async def come_and_go() -> None:
        async with aclosing(watcher(world, live)) as events:
            # All that there is comes without a wait; then it waits, and is cancelled.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(drain(events), 0.001)

    for _ in range(50):
        await come_and_go()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(300):
            await come_and_go()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # A future that stays behind is some 400 bytes.
    assert grown < 300 * 100


async def test_ring_is_bounded_whatever_the_size_of_its_pieces() -> None:
    ring = OutputRing(Bell())
    for number in range(20_000):
        ring.append(executor.Output(stream=executor.STREAM_TERMINAL, offset=number, data=b"x"))
    assert ring.has_lost(0)
    newest = ring.at(19_999)
    assert newest is not None
    assert newest.offset == 19_999
    assert ring.at(20_000) is None


@pytest.mark.parametrize("terminal", [False, True])
async def test_two_hundred_watchers_get_the_same_bytes_and_the_slow_ones_hold_nothing(
    world: World,
    terminal: bool,  # noqa: FBT001  # pytest's
) -> None:
    stream, told = executor.STREAM_STDOUT, pb.STREAM_STDOUT
    fields = {}
    if terminal:
        stream, told = executor.STREAM_TERMINAL, pb.STREAM_TERMINAL
        fields = {"terminal": pb.Terminal(rows=24, columns=80)}

    async def pour(process: FakeProcess) -> int:
        await world.pass_gate("pour")
        for number in range(6 * MIB // 65536):
            process.write(bytes([number]) * 65536, stream)
            await asyncio.sleep(0)
        return 0

    world.executor.programs["pour"] = pour
    world.close_gate("pour")
    live = await world.conductor.start(command(world, "pour", **fields))
    fast = [asyncio.create_task(digest(watcher(world, live), told)) for _ in range(20)]
    slow = [watcher(world, live) for _ in range(180)]
    for events in slow:
        assert (await anext(events)).HasField("created")
    await world.at("pour")
    world.gates["pour"].set()
    expected = [(number, number * 65536) for number in range(6 * MIB // 65536)]
    assert await asyncio.gather(*fast) == [expected] * 20
    # They never read while it was written: the ring has gone on, the spool has not.
    found = await asyncio.gather(*[digest(events, told) for events in slow[:5]])
    assert found == [expected] * 5
    for events in slow[5:]:
        await events.aclose()


async def drain(events: AsyncGenerator[pb.ExecEvent, None]) -> None:
    async for _ in events:
        pass


async def digest(events: AsyncGenerator[pb.ExecEvent, None], stream: pb.Stream.ValueType) -> list[tuple[int, int]]:
    outputs = [event.output async for event in events if event.HasField("output")]
    assert {output.stream for output in outputs} == {stream}
    return [(output.data[0], output.offset) for output in outputs]
