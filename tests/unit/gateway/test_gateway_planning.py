"""What a program's exec asks of the executor and the resolver, when files change and when they do not."""

from __future__ import annotations

import pytest

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.ports import Survey

from .gateway_world import World, all_events, program


@pytest.fixture
def surveys(world: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Of each survey, whether it was told as unchanged, and how many files were listed."""
    made: list[tuple[bool, int]] = []
    survey = world.executor.survey

    async def noted(sandbox_id: str, known_digest: str = "") -> Survey:
        answer = await survey(sandbox_id, known_digest)
        made.append((answer.summary.unchanged, len(answer.entries)))
        return answer

    monkeypatch.setattr(world.executor, "survey", noted)
    return made


async def _run(world: World, request: pb.ExecRequest) -> None:
    await all_events(world, await world.conductor.start(request))


def _other(world: World) -> pb.ExecRequest:
    return pb.ExecRequest(sandbox_id=world.sandbox_id, program=pb.Program(file="main.py", command=["program", "other"]))


async def test_files_that_did_not_change_are_not_listed_again(world: World, surveys: list[tuple[bool, int]]) -> None:
    await _run(world, program(world))
    count = len(world.sandbox.files) - sum(path.startswith(".qila/") for path in world.sandbox.files)
    await _run(world, program(world))
    world.restarted()
    await _run(world, program(world))
    assert surveys == [(False, count), (True, 0), (True, 0)]
    assert world.resolver.plans == 1
    world.sandbox.files["main.py"] = b"import yaml # changed"
    await _run(world, program(world))
    assert surveys[3:] == [(False, count)]
    assert world.resolver.plans == 2


async def test_another_program_in_the_same_files_is_planned_from_all_of_them(
    world: World, surveys: list[tuple[bool, int]]
) -> None:
    await _run(world, program(world))
    await _run(world, _other(world))
    assert surveys == [(False, surveys[0][1]), (True, 0), (False, surveys[0][1])]
    assert world.resolver.plans == 2


async def test_programs_that_are_run_in_turn_are_planned_once_each(world: World) -> None:
    for _ in range(3):
        await _run(world, program(world))
        await _run(world, _other(world))
    assert world.resolver.plans == 2


async def test_a_plan_whose_environment_is_gone_is_made_anew(world: World, surveys: list[tuple[bool, int]]) -> None:
    await _run(world, program(world))
    for path in [path for path in world.sandbox.files if path.startswith(".qila/env/")]:
        del world.sandbox.files[path]
    await _run(world, program(world))
    assert surveys[1:] == [(True, 0), (False, surveys[0][1])]
    assert world.resolver.plans == 2
