"""Programs that run again with what they lacked, in whatever is killed, cancelled or resumed meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.documents import Documents
from services.gateway.executor_fake import FakeProcess
from services.gateway.live import LiveExec
from services.gateway.store.port import EnvironmentRecord
from services.rpc.errors import ErrorCode, QilaError

from .gateway_world import World, all_events, command, kinds, program, until

FIRST, SECOND = b"no module six\n", b"no module attr\n"


def prepare(world: World, *, failing: int = 2) -> None:
    """The program lacks six, then attrs, and then has all it needs."""

    async def run(process: FakeProcess) -> int:
        number = len([name for name in process.sandbox.processes if "run-" in name])
        process.write(b"output %d" % number)
        await world.pass_gate(f"run {number}")
        if number < failing:
            process.write([FIRST, SECOND, b"no module other\n", b"no module last\n"][number], executor.STREAM_STDERR)
            return 1
        return 0

    world.executor.programs["program"] = run
    world.resolver.missing = {
        FIRST: [resolver.MissingImport(module="six", path="main.py", line=1, suggestion="six", package="six")],
        SECOND: [resolver.MissingImport(module="attr", suggestion="attrs"), resolver.MissingImport(module="odd")],
        b"no module other\n": [resolver.MissingImport(module="other", suggestion="other")],
        b"no module last\n": [resolver.MissingImport(module="last", suggestion="last")],
    }


def told(events: list[pb.ExecEvent]) -> list[tuple[str, int]]:
    return [
        (pb.Phase.Name(event.phase_started.phase), event.phase_started.run)
        for event in events
        if event.HasField("phase_started")
    ]


def outputs(events: list[pb.ExecEvent]) -> list[tuple[int, int, bytes]]:
    return [
        (event.output.run, event.output.offset, event.output.data)
        for event in events
        if event.output.phase == pb.PHASE_RUN and event.output.stream == pb.STREAM_STDOUT
    ]


RUNS = [(phase, run) for run in (0, 1, 2) for phase in ("PHASE_RESOLVE", "PHASE_INSTALL", "PHASE_RUN")]


async def test_program_runs_again_with_what_it_lacked(world: World) -> None:
    prepare(world)
    live = await world.conductor.start(program(world, install_missing=True))
    events = await all_events(world, live)
    assert told(events) == RUNS
    assert outputs(events) == [(0, 0, b"output 0"), (1, 0, b"output 1"), (2, 0, b"output 2")]
    end = events[-1].ended
    assert (end.exited, end.length.run, end.length.stdout, list(end.missing_imports)) == (0, 2, 8, [])
    assert [list(header.options.added) for header in world.resolver.headers] == [[], ["six"], ["six", "attrs"]]
    assert [name for name in world.executor.started if "." not in name or ".run" in name] == [
        live.exec_id,
        f"{live.exec_id}.run-1",
        f"{live.exec_id}.run-2",
    ]
    control = [event.sequence for event in events if event.sequence]
    assert control == list(range(1, len(control) + 1))
    installs = {event.output.run for event in events if event.output.phase == pb.PHASE_INSTALL}
    assert installs == {0, 1, 2}
    assert await all_events(world, await world.conductor.find(world.sandbox_id, live.exec_id)) == events


@pytest.mark.parametrize("restart", [False, True])
async def test_program_that_lacked_something_has_it_the_next_time(world: World, restart: bool) -> None:  # noqa: FBT001  # pytest's
    prepare(world)
    await all_events(world, await world.conductor.start(program(world, install_missing=True)))
    if restart:
        world.restarted()
    again = await all_events(world, await world.conductor.start(program(world, install_missing=True)))
    assert told(again) == [("PHASE_RESOLVE", 0), ("PHASE_RUN", 0)]
    assert world.resolver.plans == 3
    # A workspace that changed still needs it; a program that was not asked for more is not given it.
    world.sandbox.files["main.py"] += b" changed"
    again = await all_events(world, await world.conductor.start(program(world, install_missing=True)))
    assert (told(again), list(world.resolver.headers[-1].options.added)) == (
        [("PHASE_RESOLVE", 0), ("PHASE_RUN", 0)],
        ["six", "attrs"],
    )
    await all_events(world, await world.conductor.start(program(world)))
    assert list(world.resolver.headers[-1].options.added) == []


async def test_what_cannot_be_installed_any_more_is_forgotten(world: World) -> None:
    prepare(world)
    await all_events(world, await world.conductor.start(program(world, install_missing=True)))
    world.sandbox.files["requirements.txt"] = b"broken"
    failed = await all_events(world, await world.conductor.start(program(world, install_missing=True)))
    assert failed[-1].ended.HasField("install_failed")
    assert list(world.resolver.headers[-1].options.added) == ["six", "attrs"]
    await all_events(world, await world.conductor.start(program(world, install_missing=True)))
    assert list(world.resolver.headers[-1].options.added) == []


async def test_without_being_asked_it_only_tells_what_was_missing(world: World) -> None:
    prepare(world)
    end = (await all_events(world, await world.conductor.start(program(world))))[-1].ended
    assert (end.exited, [(item.module, item.suggestion) for item in end.missing_imports]) == (1, [("six", "six")])
    assert world.resolver.explained[0].ecosystem == "python"
    assert list(world.resolver.explained[0].manifests) == ["requirements.txt"]


async def test_program_runs_at_most_four_times(world: World) -> None:
    prepare(world, failing=4)
    end = (await all_events(world, await world.conductor.start(program(world, install_missing=True))))[-1].ended
    assert (end.exited, end.length.run, end.missing_imports[0].module) == (1, 3, "last")


async def test_what_was_added_is_not_added_again(world: World) -> None:
    prepare(world)
    world.resolver.missing[SECOND] = world.resolver.missing[FIRST]
    events = await all_events(world, await world.conductor.start(program(world, install_missing=True)))
    assert (told(events), events[-1].ended.length.run) == (RUNS[:6], 1)


async def test_addition_that_changes_nothing_does_not_run_again(world: World) -> None:
    prepare(world)
    world.resolver.deaf = True
    events = await all_events(world, await world.conductor.start(program(world, install_missing=True)))
    assert (events[-1].ended.exited, events[-1].ended.missing_imports[0].module) == (1, "six")
    assert told(events) == [*RUNS[:3], ("PHASE_RESOLVE", 1)]


async def test_addition_that_cannot_be_installed_keeps_what_was_missing(world: World) -> None:
    prepare(world)
    world.resolver.missing[FIRST][0].suggestion = "broken"

    async def install(process: FakeProcess) -> int:
        return 1 if ".1" in process.process_id else 0

    world.executor.programs["install"] = install
    end = (await all_events(world, await world.conductor.start(program(world, install_missing=True))))[-1].ended
    assert list(end.install_failed.hints)[-1] == "look twice"
    assert (end.missing_imports[0].module, end.length.stdout, end.length.run) == ("six", 8, 0)


async def test_manifest_that_a_run_broke_ends_as_that_run_did(world: World) -> None:
    prepare(world)
    world.close_gate("run 0")
    live = await world.conductor.start(program(world, install_missing=True))
    await world.at("run 0")
    del world.sandbox.files["main.py"]
    world.gates["run 0"].set()
    events = await all_events(world, live, as_status=True)
    assert (events[-1].ended.exited, events[-1].ended.missing_imports[0].module) == (1, "six")
    assert events[-2].notice.code == "NOT_RUN_AGAIN"
    sbom = Documents(world.store, world.resolver).sbom(world.sandbox_id, "", pb.SBOM_FORMAT_SPDX_2_3)
    assert (await anext(sbom)).startswith(live.exec_id.encode())


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_gateway_killed_in_any_run_tells_the_very_same(world: World, number: int) -> None:
    prepare(world)
    world.close_gate(f"run {number}")
    live = await world.conductor.start(program(world, install_missing=True))
    await until(world, live, lambda event: event.output.phase == pb.PHASE_RUN and event.output.run == number)
    events = await restarted(world, live, f"run {number}")
    assert outputs(events) == [(0, 0, b"output 0"), (1, 0, b"output 1"), (2, 0, b"output 2")]
    assert told(events) == RUNS
    assert (events[-1].ended.exited, events[-1].ended.length.run) == (0, 2)
    assert len([name for name in world.executor.started if "run-" in name]) == 2


async def test_gateway_killed_in_a_later_install_does_it_again(world: World) -> None:
    prepare(world, failing=1)
    live = await world.conductor.start(program(world, install_missing=True))
    await until(world, live, lambda event: event.output.run == 0 and event.output.phase == pb.PHASE_RUN)
    world.close_gate("install")
    await world.at("install")
    events = await restarted(world, live, "install")
    assert (told(events), events[-1].ended.exited) == (RUNS[:6], 0)
    assert [kind for kind in kinds(events) if kind == "plan_made"] == ["plan_made"] * 2


async def restarted(world: World, live: LiveExec, gate: str) -> list[pb.ExecEvent]:
    await world.conductor.close()
    conductor = world.restarted()
    await conductor.adopt()
    watching = asyncio.create_task(all_events(world, await conductor.find(world.sandbox_id, live.exec_id)))
    world.gates[gate].set()
    await conductor.recover()
    return await watching


@pytest.mark.parametrize("gate", ["run 1", "install"])
async def test_cancel_ends_a_program_that_runs_again(world: World, gate: str) -> None:
    prepare(world)
    live = await world.conductor.start(program(world, install_missing=True))
    await until(world, live, lambda event: event.output.phase == pb.PHASE_RUN)
    world.close_gate(gate)
    await world.at(gate)
    await world.conductor.cancel(world.sandbox_id, live.exec_id)
    assert live.journal.ended
    assert (await all_events(world, live))[-1].ended.HasField("cancelled")
    assert not world.sandbox.install_open


async def test_cancel_while_the_failure_is_explained_runs_nothing_again(world: World) -> None:
    prepare(world)
    explaining, go_on = asyncio.Event(), asyncio.Event()
    explain = world.resolver.explain_run

    async def slow(request: resolver.ExplainRunRequest) -> resolver.ExplainRunResponse:
        explaining.set()
        await go_on.wait()
        return await explain(request)

    world.resolver.explain_run = slow  # type: ignore[method-assign]  # the port's own call, held
    live = await world.conductor.start(program(world, install_missing=True))
    await asyncio.wait_for(explaining.wait(), 5)
    cancelling = asyncio.create_task(world.conductor.cancel(world.sandbox_id, live.exec_id))
    await asyncio.wait([cancelling], timeout=0.05)
    go_on.set()
    await cancelling
    assert live.journal.ended
    assert (await all_events(world, live))[-1].ended.HasField("cancelled")
    assert not [name for name in world.executor.started if "run-" in name]


async def test_watcher_resumes_in_any_run(world: World) -> None:
    prepare(world)
    live = await world.conductor.start(program(world, install_missing=True))
    whole = await all_events(world, live)
    ended = await world.conductor.find(world.sandbox_id, live.exec_id)
    begun = [event.sequence for event in whole if event.phase_started.phase == pb.PHASE_RUN]
    for run in (0, 1, 2):
        position = executor.Offsets(stdout=3)
        rest = await all_events(world, ended, after=begun[run], position=position, run=run)
        expected = [(run, 3, b"put %d" % run)] + [(later, 0, b"output %d" % later) for later in range(run + 1, 3)]
        assert outputs(rest) == expected
        assert rest[-1] == whole[-1]
    # A client that has nothing of the run that it was told of, but all of the one before.
    rest = await all_events(world, ended, after=begun[1], position=executor.Offsets(stdout=8), run=0)
    assert outputs(rest) == [(1, 0, b"output 1"), (2, 0, b"output 2")]
    rest = await all_events(world, ended, after=begun[0] + 1, position=executor.Offsets(stdout=8), run=0)
    assert outputs(rest) == [(1, 0, b"output 1"), (2, 0, b"output 2")]
    with pytest.raises(QilaError) as caught:
        await all_events(world, ended, run=3)
    assert caught.value.code is ErrorCode.OUT_OF_RANGE


async def test_tail_of_a_long_stderr_is_explained(world: World) -> None:
    async def run(process: FakeProcess) -> int:
        for _ in range(40):
            process.write(b"x" * 4095 + b"\n", executor.STREAM_STDERR)
        process.write(FIRST, executor.STREAM_STDERR)
        return 1

    prepare(world)
    world.executor.programs["program"] = run
    end = (await all_events(world, await world.conductor.start(program(world))))[-1].ended
    assert end.missing_imports[0].module == "six"
    assert len(world.resolver.explained[0].output) == 64 << 10


@pytest.mark.parametrize("second", [False, True])
async def test_imports_are_checked_against_the_lock_before_each_run(world: World, second: bool) -> None:  # noqa: FBT001  # pytest's
    world.sandbox.files["main.py"] = b"unknown_a undeclared_pyyaml undeclared_pyyaml-dep undeclared_b"
    for _ in range(2 if second else 1):
        events = await all_events(world, await world.conductor.start(program(world)))
    index, checked = next((n, event) for n, event in enumerate(events) if event.HasField("imports_checked"))
    assert kinds(events)[index + 1] == "PHASE_RUN"
    assert [item.module for item in checked.imports_checked.missing] == ["undeclared_b", "unknown_a"]
    found = [(item.module, item.transitive_version) for item in checked.imports_checked.transitive]
    assert found == [("undeclared_pyyaml-dep", "2")]
    assert ("PHASE_INSTALL" in kinds(events)) is not second


async def test_options_decide_the_plan(world: World) -> None:
    wanted: list[dict[str, Any]] = [{}, {"no_detection": True}, {"extras": ["a"]}, {"groups": ["a"]}]
    for plans, fields in enumerate([*wanted, {"install_missing": True}], start=1):
        for _ in range(2):
            await all_events(world, await world.conductor.start(program(world, **fields)))
        assert world.resolver.plans == plans
    options: Any = world.resolver.headers[-2].options
    assert (list(options.groups), options.no_install_scripts) == (["a"], False)
    request = program(world)
    request.program.command.append("other")
    events = await all_events(world, await world.conductor.start(request))
    assert list(next(event.plan_made.launch_argv for event in events if event.HasField("plan_made"))) == ["other", "a"]


async def test_record_of_what_a_command_can_import_follows_the_current_environment(world: World) -> None:
    async def locks(*, restart: bool = False) -> str:
        if restart:
            world.restarted()
        live = await world.conductor.start(command(world, "true"))
        await all_events(world, live)
        return live.journal.record.importable

    def named(environment: EnvironmentRecord | None) -> str:
        assert environment is not None
        return environment.lock_digest

    assert '"locks": []' in await locks()
    digests = []
    for name in (b"a", b"b"):
        world.sandbox.files["requirements.txt"] = name
        live = await world.conductor.start(program(world))
        await all_events(world, live)
        digests.append(
            named(await world.store.environment(world.sandbox_id, "python", live.journal.record.fingerprint))
        )
        assert digests[-1] in await locks()
    world.sandbox.files["requirements.txt"] = b"a"
    await all_events(world, await world.conductor.start(program(world)))
    assert digests[0] in await locks()
    assert digests[0] in await locks(restart=True)
