from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.executor_fake import FakeProcess
from services.gateway.resolver_fake import LOCK
from services.gateway.watching import watch
from services.rpc.errors import ErrorCode, QilaError, internal, unavailable

from .gateway_world import PATIENCE, World, all_events, command, kinds, program, run_bytes, until


async def test_program_is_planned_installed_and_run(world: World) -> None:
    events = await all_events(world, await world.conductor.start(program(world)))
    assert [kind for kind in kinds(events) if kind != "output"] == [
        "created",
        "PHASE_RESOLVE",
        "plan_made",
        "PHASE_INSTALL",
        "package",
        "stage",
        "PHASE_RUN",
        "ended",
    ]
    control = [event.sequence for event in events if event.sequence]
    assert control == list(range(1, len(control) + 1))
    made = next(event.plan_made for event in events if event.HasField("plan_made"))
    assert (made.installed, list(made.launch_argv)) == (False, ["program", "main.py", "a"])
    assert made.requirements[0].origins == ["requirements.txt:1"]
    assert (run_bytes(events), run_bytes(events, pb.STREAM_STDERR)) == (b"first second", b"bad")
    end = events[-1].ended
    assert (end.exited, end.length.stdout, end.length.stderr) == (3, 12, 3)
    fingerprint = made.fingerprint
    lock = json.loads(world.sandbox.files[f".qila/env/python/{fingerprint}/qila.lock.json"])
    assert (lock["native"], lock["inventory"]) == ("locked", "inventory")
    assert f".qila/env/python/{fingerprint}/.complete" in world.sandbox.files
    assert world.sandbox.links == {
        ".qila/current/python": f"../env/python/{fingerprint}",
        "deps": ".qila/current/python/lib",
    }
    assert not [path for path in world.sandbox.files if path.startswith(".qila/stage/")]
    assert not world.sandbox.install_open
    run = world.sandbox.processes[events[0].created.exec_id].spec
    assert (list(run.argv), run.env["LAUNCHED"]) == (["program", "main.py", "a"], "yes")


async def test_what_an_install_left_is_read_when_it_has_no_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_files = world.executor.read_files
    open_at_read: list[bool] = []

    def read(request: executor.ReadFilesRequest) -> AsyncGenerator[executor.ReadFilesResponse, None]:
        if request.user == executor.USER_INSTALL:
            open_at_read.append(world.sandbox.install_open)
        return read_files(request)

    monkeypatch.setattr(world.executor, "read_files", read)
    live = await world.conductor.start(program(world))
    await all_events(world, live)
    assert open_at_read == [False]
    spec = {process_id.rpartition(".")[2]: process.spec for process_id, process in world.sandbox.processes.items()}
    # What an installer keeps goes with the stage, and no program can write an inventory.
    assert spec["install-1"].env["HOME"] == spec["install-1"].working_directory
    assert spec["install-2"].env["HOME"] == f"/sandbox/.qila/stage/{live.exec_id}"
    assert spec["inventory"].user == executor.USER_INSTALL


async def test_lock_that_no_step_changes_is_the_planned_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_of = world.resolver.plan

    async def plan(*arguments: Any) -> resolver.Plan:
        planned = await plan_of(*arguments)
        planned.staged.add(path=LOCK, content=b"of the project")
        planned.native_lock_staged = True
        return planned

    monkeypatch.setattr(world.resolver, "plan", plan)
    await all_events(world, await world.conductor.start(program(world)))
    # The fake's solver has changed the file in the stage.
    (lock,) = (json.loads(text) for path, text in world.sandbox.files.items() if path.endswith("/qila.lock.json"))
    assert lock["native"] == "of the project"


async def test_executor_that_returns_during_the_inventory_opens_no_phase(world: World) -> None:
    states: list[bool] = []

    async def inventory(process: FakeProcess) -> int:
        await world.pass_gate("inventory")
        states.append(process.sandbox.install_open)
        process.write(b"inventory")
        return 0

    world.executor.programs["inventory"] = inventory
    world.close_gate("inventory")
    live = await world.conductor.start(program(world))
    await world.at("inventory")
    world.executor.break_off()
    await asyncio.wait_for(world.executor.refused.wait(), 5)
    world.executor.down = False
    world.gates["inventory"].set()
    assert (await all_events(world, live))[-1].ended.exited == 3
    assert states == [False]
    assert not world.sandbox.install_open


async def test_second_exec_starts_nothing_but_the_program(world: World) -> None:
    await all_events(world, await world.conductor.start(program(world)))
    world.executor.started.clear()
    live = await world.conductor.start(program(world))
    events = await all_events(world, live)
    assert [kind for kind in kinds(events) if kind != "output"] == [
        "created",
        "PHASE_RESOLVE",
        "plan_made",
        "PHASE_RUN",
        "ended",
    ]
    assert events[2].plan_made.installed
    assert world.executor.started == [live.exec_id]
    assert world.resolver.plans == 1


async def test_marker_without_a_record_is_void(world: World) -> None:
    live = await world.conductor.start(program(world))
    await all_events(world, live)
    await world.store.mark_collected(world.sandbox_id, "python", live.journal.record.fingerprint)
    events = await all_events(world, await world.conductor.start(program(world)))
    assert "PHASE_INSTALL" in kinds(events)


async def test_same_environment_is_installed_once_for_two_execs(world: World) -> None:
    world.close_gate("install")
    first = await world.conductor.start(program(world))
    await world.at("install")
    second = await world.conductor.start(program(world))
    await until(world, second, lambda event: event.phase_started.phase == pb.PHASE_INSTALL)
    world.gates["install"].set()
    one, two = await asyncio.gather(all_events(world, first), all_events(world, second))
    assert len([name for name in world.executor.started if ".install-" in name]) == 2
    told = [[event.package.name for event in events if event.HasField("package")] for events in (one, two)]
    assert told == [["yaml"], ["yaml"]]
    said = [[event.output for event in events if event.output.phase == pb.PHASE_INSTALL] for events in (one, two)]
    assert said[0] == said[1] != []
    assert one[-1].ended.exited == two[-1].ended.exited == 3


async def test_another_environment_waits_for_the_install_before_it(world: World) -> None:
    world.close_gate("install")
    first = await world.conductor.start(program(world))
    await world.at("install")
    world.sandbox.files["requirements.txt"] = b"pyyaml requests"
    second = await world.conductor.start(program(world))
    await until(world, second, lambda event: event.phase_started.phase == pb.PHASE_RESOLVE)
    assert not [name for name in world.executor.started if name.startswith(f"{second.exec_id}.")]
    world.gates["install"].set()
    one, two = await asyncio.gather(all_events(world, first), all_events(world, second))
    assert one[-1].ended.exited == two[-1].ended.exited == 3
    assert f"{second.exec_id}.install-2" in world.executor.started
    assert world.resolver.headers[-1].previous_locks.get("python", b"") in {b"", b"locked"}


async def test_failed_install_is_told_and_leaves_the_old_environment(world: World) -> None:
    good = await world.conductor.start(program(world))
    await all_events(world, good)
    links = dict(world.sandbox.links)
    world.sandbox.files["requirements.txt"] = b"broken"
    events = await all_events(world, await world.conductor.start(program(world)))
    failed = events[-1].ended.install_failed
    assert failed.reason == pb.INSTALL_FAILURE_REASON_NOT_FOUND
    assert "no such package" in failed.detail
    assert list(failed.hints) == ["pylock.txt:3: broken 1 could not be installed as the lock says", "look twice"]
    assert "PHASE_RUN" not in kinds(events)
    assert world.sandbox.links == links
    environments = {path.split("/")[3] for path in world.sandbox.files if path.startswith(".qila/env/")}
    assert environments == {good.journal.record.fingerprint}
    assert not [path for path in world.sandbox.files if path.startswith(".qila/stage/")]
    assert not world.sandbox.install_open


async def test_install_that_is_not_what_was_locked_fails(world: World) -> None:
    world.resolver.complete = False
    events = await all_events(world, await world.conductor.start(program(world)))
    assert events[-1].ended.install_failed.reason == pb.INSTALL_FAILURE_REASON_BUILD_FAILED
    assert not [path for path in world.sandbox.files if path.startswith(".qila/")]


async def test_resolver_that_fails_at_what_an_install_left_fails_the_install(world: World) -> None:
    world.resolver.lock_error = internal("INTERNAL", "a fault in Qila")
    events = await all_events(world, await world.conductor.start(program(world)))
    failure = events[-1].ended.install_failed
    assert (failure.reason, failure.detail) == (pb.INSTALL_FAILURE_REASON_BUILD_FAILED, "a fault in Qila")
    assert not [path for path in world.sandbox.files if path.startswith(".qila/")]


async def test_resolver_that_does_not_answer_is_no_failure_of_the_install(world: World) -> None:
    world.resolver.lock_error = unavailable("RESOLVER_UNAVAILABLE", "does not answer")
    events = await all_events(world, await world.conductor.start(program(world)))
    assert events[-1].ended.WhichOneof("end") == "sandbox_lost"


async def test_own_deps_win(world: World) -> None:
    world.sandbox.files["deps"] = b"mine"
    events = await all_events(world, await world.conductor.start(program(world)))
    assert events[-1].ended.exited == 3
    assert "deps" not in world.sandbox.links


async def test_old_environments_are_collected_but_for_the_last_two(world: World) -> None:
    fingerprints = []
    for name in ("a", "b", "c", "d"):
        world.sandbox.files["requirements.txt"] = name.encode()
        live = await world.conductor.start(program(world))
        await all_events(world, live)
        fingerprints.append(live.journal.record.fingerprint)
    there = {path.split("/")[3] for path in world.sandbox.files if path.startswith(".qila/env/")}
    assert there == set(fingerprints[1:])
    assert await world.store.environment(world.sandbox_id, "python", fingerprints[0]) is not None


async def test_plan_error_is_a_status_and_stays_one(world: World) -> None:
    request = pb.ExecRequest(sandbox_id=world.sandbox_id, exec_id="ex_" + "a" * 26, program=pb.Program(file="no.py"))
    for _ in range(2):
        live = await world.conductor.start(request)
        with pytest.raises(QilaError) as caught:
            await all_events(world, live, as_status=True)
        assert (caught.value.code, caught.value.reason) == (ErrorCode.INVALID_ARGUMENT, "TARGET_NOT_FOUND")
    attached = await all_events(world, await world.conductor.find(world.sandbox_id, request.exec_id))
    assert attached[-1].ended.plan_failed.reason == "TARGET_NOT_FOUND"


async def test_command_that_is_not_there_is_data(world: World) -> None:
    events = await all_events(world, await world.conductor.start(command(world, "nope")), as_status=True)
    assert events[-1].ended.start_failed.error == "ENOENT"


async def test_command_runs_without_survey_or_plan(world: World) -> None:
    events = await all_events(world, await world.conductor.start(command(world, "true")))
    assert kinds(events) == ["created", "PHASE_RUN", "ended"]
    assert world.resolver.headers == []


@pytest.mark.parametrize("gate", ["install", "run"])
async def test_cancel_ends_the_exec_in_its_phase(world: World, gate: str) -> None:
    world.close_gate(gate)
    live = await world.conductor.start(program(world))
    await world.at(gate)
    await until(world, live, lambda event: event.HasField("output"))
    await world.conductor.cancel(world.sandbox_id, live.exec_id)
    events = await all_events(world, live)
    assert events[-1].ended.HasField("cancelled")
    await world.conductor.cancel(world.sandbox_id, live.exec_id)
    assert not world.sandbox.install_open
    if gate == "install":
        assert not [path for path in world.sandbox.files if path.startswith(".qila/")]


async def test_a_program_that_cannot_be_recorded_is_not_started_and_may_be_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "add_exec", full)
        with pytest.raises(QilaError) as caught:
            await world.conductor.start(program(world))
    assert (caught.value.code, caught.value.reason) == (ErrorCode.UNAVAILABLE, "EXEC_NOT_RECORDED")
    assert not world.executor.started
    live = await world.conductor.start(program(world))
    assert (await all_events(world, live))[-1].ended.exited == 3


@pytest.mark.parametrize("request_of", [command, program])
async def test_what_no_service_answered_may_be_repeated_with_its_id(world: World, request_of: Any) -> None:
    request = request_of(world, "program") if request_of is command else request_of(world)
    request.exec_id = "ex_" + "r" * 26
    world.executor.down = True
    with pytest.raises(QilaError) as caught:
        await all_events(world, await world.conductor.start(request), as_status=True)
    assert caught.value.code is ErrorCode.UNAVAILABLE
    world.executor.down = False
    live = await world.conductor.start(request)
    events = await all_events(world, live, as_status=True)
    assert (kinds(events)[0], events[-1].ended.exited) == ("created", 3)
    again = await world.conductor.start(request)
    assert kinds(await all_events(world, again)) == kinds(events)
    assert world.executor.started.count(request.exec_id) == 1


async def test_cancel_while_planning_starts_nothing(world: World) -> None:
    live = await world.conductor.start(program(world))
    world.resolver.pause = asyncio.Event()
    await asyncio.wait_for(world.resolver.asked.wait(), 5)
    await world.conductor.cancel(world.sandbox_id, live.exec_id)
    assert (await all_events(world, live))[-1].ended.HasField("cancelled")
    assert world.executor.started == []


async def test_cancel_of_an_exec_that_has_ended_reaches_the_children_that_live_on(world: World) -> None:
    live = await world.conductor.start(command(world, "program"))
    assert (await all_events(world, live))[-1].ended.exited == 3
    await world.conductor.cancel(live.sandbox_id, live.exec_id)
    assert world.sandbox.processes[live.exec_id].cancelled.is_set()
    # Of one that is forgotten there is nothing left to kill.
    del world.sandbox.processes[live.exec_id]
    await world.conductor.cancel(live.sandbox_id, live.exec_id)


async def test_a_cancel_before_the_start_survives_an_executor_that_does_not_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = await world.conductor.start(command(world, "ignore"))
    await until(world, live, lambda event: event.phase_started.phase == pb.PHASE_RUN)
    await world.conductor.close()
    adopted = world.restarted()
    await adopted.adopt()
    # Nobody has heard of its process again yet.
    await adopted.cancel(live.sandbox_id, live.exec_id)
    cancel = world.executor.cancel_process
    failures = [unavailable("EXECUTOR_UNAVAILABLE", "the executor does not answer")]

    async def cancel_later(sandbox_id: str, process_id: str) -> None:
        if failures:
            raise failures.pop()
        await cancel(sandbox_id, process_id)

    monkeypatch.setattr(world.executor, "cancel_process", cancel_later)
    await adopted.recover()
    found = await adopted.find(live.sandbox_id, live.exec_id)
    assert (await all_events(world, found))[-1].ended.HasField("cancelled")


async def test_install_goes_on_for_the_other_when_one_cancels(world: World) -> None:
    world.close_gate("install")
    first = await world.conductor.start(program(world))
    await world.at("install")
    second = await world.conductor.start(program(world))
    await until(world, second, lambda event: event.phase_started.phase == pb.PHASE_INSTALL)
    await world.conductor.cancel(world.sandbox_id, first.exec_id)
    world.gates["install"].set()
    assert (await all_events(world, first))[-1].ended.HasField("cancelled")
    assert (await all_events(world, second))[-1].ended.exited == 3


async def test_seventeenth_exec_is_refused(world: World) -> None:
    world.close_gate("run")
    execs = [await world.conductor.start(command(world, "program")) for _ in range(16)]
    with pytest.raises(QilaError) as caught:
        await world.conductor.start(command(world, "program"))
    assert (caught.value.code, caught.value.reason) == (ErrorCode.RESOURCE_EXHAUSTED, "TOO_MANY_EXECS")
    world.gates["run"].set()
    await asyncio.gather(*[all_events(world, live) for live in execs])
    assert (await all_events(world, await world.conductor.start(command(world, "true"))))[-1].ended.exited == 0


async def test_same_id_joins_and_another_request_is_refused(world: World) -> None:
    request = command(world, "program", exec_id="ex_" + "b" * 26)
    one, two = await asyncio.gather(world.conductor.start(request), world.conductor.start(request))
    assert one is two
    first = await all_events(world, one)
    again = await all_events(world, await world.conductor.start(request))
    assert again == first
    assert world.executor.started == [request.exec_id]
    with pytest.raises(QilaError) as caught:
        await world.conductor.start(command(world, "true", exec_id=request.exec_id))
    assert caught.value.code is ErrorCode.ALREADY_EXISTS


async def test_unknown_sandbox_and_exec_are_not_found(world: World) -> None:
    with pytest.raises(QilaError, match="CreateSandbox"):
        await world.conductor.start(pb.ExecRequest(sandbox_id="sb_" + "z" * 26, command=pb.Command(argv=["true"])))
    with pytest.raises(QilaError) as caught:
        await world.conductor.find(world.sandbox_id, "ex_" + "z" * 26)
    assert caught.value.reason == "EXEC_NOT_FOUND"


async def test_gateway_killed_in_the_run_gives_the_very_same_bytes(world: World) -> None:
    world.close_gate("run")
    live = await world.conductor.start(program(world))
    seen = await until(world, live, lambda event: event.output.phase == pb.PHASE_RUN)
    assert seen.output.data == b"first "
    await world.conductor.close()
    conductor = world.restarted()
    await conductor.adopt()
    adopted = await conductor.find(world.sandbox_id, live.exec_id)
    watching = asyncio.create_task(all_events(world, adopted))
    await conductor.recover()
    world.gates["run"].set()
    events = await watching
    assert run_bytes(events) == b"first second"
    assert events[-1].ended.exited == 3
    assert world.executor.started.count(live.exec_id) == 1
    again = await all_events(world, await conductor.find(world.sandbox_id, live.exec_id))
    assert again == events


async def test_gateway_killed_in_the_install_does_it_again(world: World) -> None:
    world.close_gate("install")
    live = await world.conductor.start(program(world))
    await world.at("install")
    await until(world, live, lambda event: event.output.phase == pb.PHASE_INSTALL)
    await world.conductor.close()
    world.gates["install"].set()
    conductor = world.restarted()
    await conductor.adopt()
    await conductor.recover()
    events = await all_events(world, await conductor.find(world.sandbox_id, live.exec_id))
    assert events[-1].ended.exited == 3
    assert kinds(events).count("PHASE_INSTALL") == kinds(events).count("plan_made") == 1
    said = [event.output for event in events if event.output.phase == pb.PHASE_INSTALL]
    assert [output.offset for output in said] == [0, len(said[0].data)]


async def test_sandbox_that_is_gone_after_a_restart_is_lost(world: World) -> None:
    world.close_gate("run")
    live = await world.conductor.start(command(world, "program"))
    await world.at("run")
    await world.conductor.close()
    await world.executor.remove_sandbox(world.sandbox_id)
    conductor = world.restarted()
    await conductor.adopt()
    await conductor.recover()
    events = await all_events(world, await conductor.find(world.sandbox_id, live.exec_id))
    assert events[-1].ended.HasField("sandbox_lost")


async def test_executor_restarted_in_the_run_loses_no_byte(world: World) -> None:
    world.close_gate("run")
    live = await world.conductor.start(command(world, "program"))
    await world.at("run")
    watching = asyncio.create_task(all_events(world, live))
    await until(world, live, lambda event: event.HasField("output"))
    world.executor.break_off()
    await asyncio.wait_for(world.executor.refused.wait(), 5)
    world.gates["run"].set()
    world.executor.down = False
    events = await watching
    assert run_bytes(events) == b"first second"
    assert events[-1].ended.exited == 3


async def test_executor_that_does_not_answer_is_a_status(world: World) -> None:
    world.executor.down = True
    with pytest.raises(QilaError) as caught:
        await all_events(world, await world.conductor.start(command(world, "true")), as_status=True)
    assert caught.value.code is ErrorCode.UNAVAILABLE


async def test_slow_watcher_reads_the_spool_and_misses_nothing(world: World) -> None:
    live = await world.conductor.start(command(world, "spin"))
    async with aclosing(watch(world.executor, live, patience=PATIENCE)) as events:
        received = [await anext(events) for _ in range(3)]
        assert live.task is not None
        await live.task
        received += [event async for event in events]
    assert run_bytes(received) == b"x" * 6553600
    offsets = [event.output.offset for event in received if event.HasField("output")]
    assert offsets == sorted(set(offsets))


async def test_resumed_watcher_gets_what_is_left(world: World) -> None:
    live = await world.conductor.start(command(world, "program"))
    whole = await all_events(world, live)
    ended = await world.conductor.find(world.sandbox_id, live.exec_id)
    rest = await all_events(world, ended, after=2, position=executor.Offsets(stdout=4))
    assert (run_bytes(rest), run_bytes(rest, pb.STREAM_STDERR)) == (b"t second", b"bad")
    assert rest[-1] == whole[-1]
    assert await all_events(world, ended, after=3) == []
    with pytest.raises(QilaError) as caught:
        await all_events(world, ended, after=4)
    assert caught.value.code is ErrorCode.OUT_OF_RANGE


async def test_removed_sandbox_ends_its_execs(world: World) -> None:
    world.close_gate("run")
    live = await world.conductor.start(command(world, "program"))
    await world.at("run")
    watching = asyncio.create_task(all_events(world, live))
    await until(world, live, lambda event: event.HasField("output"))
    await world.conductor.forget_sandbox(world.sandbox_id)
    assert (await watching)[-1].ended.HasField("sandbox_lost")


async def test_a_plan_is_told_of_all_images_and_uses_the_sandbox_s_own(world: World) -> None:
    world.executor.images["py3.14"] = {"python": "3.14.1"}
    world.sandbox.image = "py3.14"
    await all_events(world, await world.conductor.start(program(world)))
    header = world.resolver.headers[-1]
    assert dict(header.toolchains) == {"python": "3.14.1"}
    assert {image.name: dict(image.toolchains) for image in header.images} == world.executor.images
    # Another image beside it is no reason for another plan.
    world.executor.images["go1.26"] = {"go": "1.26.6"}
    plans = world.resolver.plans
    await all_events(world, await world.conductor.start(program(world)))
    assert world.resolver.plans == plans
