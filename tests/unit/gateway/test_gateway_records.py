"""When an exec's beginning and end are recorded, and what a gateway that dies in between leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy.exc import OperationalError

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.conductor import Conductor
from services.gateway.config import ConductorConfig
from services.gateway.executor_fake import FakeProcess
from services.gateway.listing import list_execs
from services.gateway.store.port import ExecRecord, StoredEvent
from services.rpc.errors import ErrorCode, QilaError

from .gateway_world import World, all_events, command, program, run_bytes

EXEC_ID = "ex_" + "a" * 26


def fail_to_write(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From now on the disk is full."""

    async def fail(record: ExecRecord, events: Sequence[StoredEvent]) -> None:
        raise OperationalError("a write", {}, OSError("disk full"))

    monkeypatch.setattr(world.store, name, fail)


async def listed(world: World, conductor: Conductor, *, running_only: bool = False) -> list[pb.Exec]:
    request = pb.ListExecsRequest(sandbox_id=world.sandbox_id, running_only=running_only)
    return list((await list_execs(world.store, request, conductor.ended(world.sandbox_id))).execs)


@pytest.mark.parametrize("what", [command, program])
async def test_an_end_is_told_wherever_it_is_asked_for_before_it_is_recorded_and_survives_the_gateway(
    world: World, monkeypatch: pytest.MonkeyPatch, what: object
) -> None:
    world.close_gate("run")
    request = program(world) if what is program else command(world, "program")
    live = await world.conductor.start(request)
    await world.at("run")
    fail_to_write(world, monkeypatch, "save_exec")
    world.gates["run"].set()
    events = await all_events(world, live)
    assert (events[-1].ended.exited, run_bytes(events)) == (3, b"first second")
    stored = await world.store.exec(world.sandbox_id, live.exec_id)
    assert stored is not None
    assert not stored.end_time_ns
    assert [row.ended.exited for row in await listed(world, world.conductor)] == [3]
    assert await listed(world, world.conductor, running_only=True) == []
    assert (await world.conductor.find(world.sandbox_id, live.exec_id)).journal.ended
    # kill -9 is no harder: nothing of it is in the store.
    await world.conductor.close()
    monkeypatch.undo()
    conductor = world.restarted()
    await conductor.adopt()
    await conductor.recover()
    again = await all_events(world, await conductor.find(world.sandbox_id, live.exec_id))
    assert again[-1].ended == events[-1].ended
    assert [event.sequence for event in again] == [event.sequence for event in events]
    assert run_bytes(again) == b"first second"
    assert world.executor.started.count(live.exec_id) == 1


async def test_an_end_that_was_told_is_recorded_soon_and_its_id_leads_to_it(world: World) -> None:
    request = command(world, "true", exec_id=EXEC_ID)
    events = await all_events(world, await world.conductor.start(request))
    again = await all_events(world, await world.conductor.start(request))
    assert again == events
    await world.conductor.close()
    stored = await world.store.exec(world.sandbox_id, EXEC_ID)
    assert stored is not None
    assert stored.end_time_ns
    assert [row.sequence for row in await world.store.events(world.sandbox_id, EXEC_ID, 0, 9)] == [1, 2, 3]
    assert await all_events(world, await world.conductor.start(request)) == events
    assert world.executor.started == [EXEC_ID]


async def test_ended_execs_leave_room_for_others_before_they_are_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = asyncio.Event()

    async def wait(record: ExecRecord, events: Sequence[StoredEvent]) -> None:
        await written.wait()

    monkeypatch.setattr(world.store, "save_exec", wait)
    for _ in range(ConductorConfig().execs_per_sandbox + 1):
        await all_events(world, await world.conductor.start(command(world, "true")))
    written.set()
    await world.conductor.close()


async def test_a_command_that_cannot_be_recorded_is_taken_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    began = asyncio.Event()

    async def wait(process: FakeProcess) -> int:
        began.set()
        await process.cancelled.wait()
        return 0

    world.executor.programs["wait"] = wait
    fail_to_write(world, monkeypatch, "add_exec")
    with pytest.raises(QilaError) as refused:
        await world.conductor.start(command(world, "wait", exec_id=EXEC_ID))
    assert (refused.value.code, refused.value.reason) == (ErrorCode.UNAVAILABLE, "EXEC_NOT_RECORDED")
    await asyncio.wait_for(began.wait(), 5)
    await asyncio.wait_for(world.sandbox.processes[EXEC_ID].cancelled.wait(), 5)
    with pytest.raises(QilaError) as caught:
        await world.conductor.find(world.sandbox_id, EXEC_ID)
    assert caught.value.code is ErrorCode.NOT_FOUND


async def test_a_command_in_a_sandbox_that_is_not_there_begins_nothing(world: World) -> None:
    with pytest.raises(QilaError) as caught:
        await world.conductor.start(pb.ExecRequest(sandbox_id="sb_" + "z" * 26, command=pb.Command(argv=["true"])))
    assert caught.value.code is ErrorCode.NOT_FOUND
    assert world.executor.started == []
