"""Programs of which only a step in the sandbox can say what they need."""

from __future__ import annotations

import asyncio

import pytest

from qila.gateway.v1 import gateway_pb2 as pb

from .gateway_world import World, all_events, kinds, program


@pytest.fixture(autouse=True)
def _question(world: World) -> None:
    world.sandbox.files["requirements.txt"] = b"ask yaml six"


async def events_of(world: World, request: pb.ExecRequest) -> list[pb.ExecEvent]:
    return await all_events(world, await world.conductor.start(request))


def plans(events: list[pb.ExecEvent]) -> list[pb.PlanMade]:
    return [event.plan_made for event in events if event.HasField("plan_made")]


def questions_asked(world: World) -> int:
    return sum(process.spec.argv[0] == "ask" for process in world.sandbox.processes.values())


async def test_what_a_step_answers_is_planned_and_installed(world: World) -> None:
    events = await events_of(world, program(world))
    assert events[-1].ended.exited == 3
    [made] = plans(events)
    assert [item.specifier for item in made.requirements] == ["yaml", "six"]
    assert b"asked\n" in b"".join(event.output.data for event in events if event.output.phase == pb.PHASE_INSTALL)
    assert kinds(events).count("PHASE_INSTALL") == 1
    assert not [path for path in world.sandbox.files if path.startswith(".qila/stage")]
    # A question has no environment, and nothing of it becomes current.
    assert len(await world.store.present_environments(world.sandbox_id)) == 1


async def test_second_exec_asks_nothing(world: World) -> None:
    await events_of(world, program(world))
    planned = world.resolver.plans
    world.executor.started.clear()
    live = await world.conductor.start(program(world))
    assert "PHASE_INSTALL" not in kinds(await all_events(world, live))
    assert world.executor.started == [live.exec_id]
    assert world.resolver.plans == planned


async def test_change_of_the_program_alone_asks_nothing_again(world: World) -> None:
    await events_of(world, program(world))
    world.sandbox.files["main.py"] = b"other"
    await events_of(world, program(world))
    assert questions_asked(world) == 1
    world.sandbox.files["requirements.txt"] = b"ask yaml"
    await events_of(world, program(world))
    assert questions_asked(world) == 2


async def test_gateway_that_was_restarted_knows_the_answer(world: World) -> None:
    await events_of(world, program(world))
    world.restarted()
    world.sandbox.files["main.py"] = b"other"
    await events_of(world, program(world))
    assert questions_asked(world) == 1


async def test_execs_that_need_the_same_answer_ask_once(world: World) -> None:
    world.close_gate("ask")
    first = await world.conductor.start(program(world))
    await world.at("ask")
    second = await world.conductor.start(program(world))
    following = [asyncio.create_task(all_events(world, live)) for live in (first, second)]
    world.gates["ask"].set()
    assert [(await events)[-1].ended.exited for events in following] == [3, 3]
    assert questions_asked(world) == 1


async def test_step_that_fails_ends_the_exec_and_is_asked_anew(world: World) -> None:
    world.sandbox.files["requirements.txt"] = b"ask broken"
    for number in (1, 2):
        events = await events_of(world, program(world))
        assert events[-1].ended.install_failed.detail == "asked\nno such build\n"
        assert plans(events) == []
        assert questions_asked(world) == number
    assert not [path for path in world.sandbox.files if path.startswith(".qila/stage")]


async def test_step_that_leaves_no_answer_is_a_failed_build(world: World) -> None:
    world.sandbox.files["requirements.txt"] = b"ask silent"
    failed = (await events_of(world, program(world)))[-1].ended.install_failed
    assert failed.reason == pb.INSTALL_FAILURE_REASON_BUILD_FAILED
    assert "answer" in failed.detail


async def test_answer_above_its_bound_is_a_failed_build(world: World) -> None:
    world.sandbox.files["requirements.txt"] = b"ask " + b"x" * (1 << 20)
    failed = (await events_of(world, program(world)))[-1].ended.install_failed
    assert failed.reason == pb.INSTALL_FAILURE_REASON_BUILD_FAILED
    assert questions_asked(world) == 1


async def test_cancel_while_it_is_asked_ends_the_exec_and_keeps_nothing(world: World) -> None:
    world.close_gate("ask")
    live = await world.conductor.start(program(world))
    await world.at("ask")
    await world.conductor.cancel(world.sandbox_id, live.exec_id)
    assert (await all_events(world, live))[-1].ended.HasField("cancelled")
    assert not [path for path in world.sandbox.files if path.startswith(".qila/stage")]


async def test_gateway_killed_while_it_asks_goes_on(world: World) -> None:
    world.close_gate("ask")
    live = await world.conductor.start(program(world))
    await world.at("ask")
    await world.conductor.close()
    world.gates["ask"].set()
    conductor = world.restarted()
    await conductor.adopt()
    await conductor.recover()
    events = await all_events(world, await conductor.find(world.sandbox_id, live.exec_id))
    assert events[-1].ended.exited == 3
    assert kinds(events).count("PHASE_INSTALL") == 1


async def test_other_projects_ask_too_and_a_failure_names_its_own(world: World) -> None:
    world.sandbox.files["node/requirements.txt"] = b"ask express"
    events = await events_of(world, program(world, install_all=True))
    assert [(item.project, len(item.requirements)) for item in plans(events)] == [(".", 2), ("node", 1)]
    world.sandbox.files["node/requirements.txt"] = b"ask broken"
    failed = (await events_of(world, program(world, install_all=True)))[-1].ended.install_failed
    assert failed.project == "node"
    assert failed.detail.startswith("project node (node): ")


async def test_workspace_that_asks_something_else_each_time_ends(world: World) -> None:
    answers = iter(range(100))

    async def change() -> None:
        while True:
            world.close_gate("ask")
            await world.at("ask")
            world.sandbox.files["requirements.txt"] = b"ask yaml%d" % next(answers)
            world.gates["ask"].set()

    changing = asyncio.create_task(change())
    try:
        ended = (await events_of(world, program(world)))[-1].ended
    finally:
        changing.cancel()
    assert questions_asked(world) == 3
    assert "repeat the call" in str(ended)
