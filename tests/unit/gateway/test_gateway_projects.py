"""Execs that install every project of their workspace."""

from __future__ import annotations

import asyncio
import json

import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.documents import Documents
from services.gateway.store.port import EnvironmentRecord, GivenLock, SandboxRecord
from services.resolver.joined_locks import parts_of
from services.resolver.model import Lockfile
from services.rpc.errors import QilaError

from .gateway_world import World, all_events, command, kinds, program


@pytest.fixture(autouse=True)
def _projects(world: World) -> None:
    world.sandbox.files.update(
        {"node/requirements.txt": b"express", "go/requirements.txt": b"uuid", "worker/requirements.txt": b"redis"}
    )


async def events_of(world: World, request: pb.ExecRequest) -> list[pb.ExecEvent]:
    return await all_events(world, await world.conductor.start(request))


def plans(events: list[pb.ExecEvent]) -> list[pb.PlanMade]:
    return [event.plan_made for event in events if event.HasField("plan_made")]


async def test_every_project_is_planned_installed_and_told_apart(world: World) -> None:
    events = await events_of(world, program(world, install_all=True))
    made = plans(events)
    assert [(item.project, item.ecosystem) for item in made] == [
        (".", "python"),
        ("go", "go"),
        ("node", "node"),
        ("worker", "python"),
    ]
    assert [bool(item.launch_argv) for item in made] == [True, False, False, False]
    installs = [event for event in events if event.HasField("package")]
    assert [event.project for event in installs] == [".", "go", "node", "worker"]
    outputs = [event for event in events if event.output.phase == pb.PHASE_INSTALL]
    assert {event.project for event in outputs} == {".", "go", "node", "worker"}
    assert not any(event.project for event in events if event.output.phase == pb.PHASE_RUN)
    assert kinds(events).count("PHASE_INSTALL") == 1
    assert events[-1].ended.exited == 3
    # The program's own project, and not its other one, is Python's current environment.
    current = {name: target for name, target in world.sandbox.links.items() if name.startswith(".qila/current/")}
    assert current == {
        f".qila/current/{item.ecosystem}": f"../env/{item.ecosystem}/{item.fingerprint}" for item in made[:3]
    }
    locks = await world.store.current_locks(world.sandbox_id)
    assert {name: lock.fingerprint for name, lock in locks.items()} == {
        item.ecosystem: item.fingerprint for item in made[:3]
    }


async def test_second_exec_installs_nothing_and_asks_nobody(world: World) -> None:
    await events_of(world, program(world, install_all=True))
    planned = world.resolver.plans
    world.executor.started.clear()
    live = await world.conductor.start(program(world, install_all=True))
    events = await all_events(world, live)
    assert world.executor.started == [live.exec_id]
    assert world.resolver.plans == planned
    assert all(item.installed for item in plans(events))
    assert "PHASE_INSTALL" not in kinds(events)


async def test_only_the_project_that_changed_is_installed(world: World) -> None:
    await events_of(world, program(world, install_all=True))
    world.sandbox.files["go/requirements.txt"] = b"uuid chi"
    events = await events_of(world, program(world, install_all=True))
    assert {event.project for event in events if event.HasField("package")} == {"go"}
    assert [item.installed for item in plans(events)] == [True, False, True, True]


async def test_without_it_the_programs_own_project_is_installed_alone(world: World) -> None:
    events = await events_of(world, program(world))
    assert [(item.project, item.ecosystem) for item in plans(events)] == [("", "python")]
    assert not any(event.project for event in events)


async def test_project_that_cannot_be_installed_is_named(world: World) -> None:
    world.sandbox.files["node/requirements.txt"] = b"broken"
    live = await world.conductor.start(program(world, install_all=True))
    failed = (await all_events(world, live))[-1].ended.install_failed
    assert (failed.project, failed.reason) == ("node", pb.INSTALL_FAILURE_REASON_NOT_FOUND)
    assert failed.detail.startswith("project node (node): ")
    assert failed.hints[-1] == "look twice"
    assert not [path for path in world.sandbox.files if path.startswith((".qila/env/node", ".qila/stage"))]
    # What was installed before it stays, and the program alone has what it needs.
    world.executor.started.clear()
    alone = await world.conductor.start(program(world))
    assert (await all_events(world, alone))[-1].ended.exited == 3
    assert world.executor.started == [alone.exec_id]


async def test_gateway_killed_between_the_projects_goes_on(world: World) -> None:
    world.close_gate("install node")
    live = await world.conductor.start(program(world, install_all=True))
    await world.at("install node")
    await world.conductor.close()
    world.gates["install node"].set()
    world.executor.started.clear()
    conductor = world.restarted()
    await conductor.adopt()
    await conductor.recover()
    events = await all_events(world, await conductor.find(world.sandbox_id, live.exec_id))
    assert events[-1].ended.exited == 3
    assert [item.project for item in plans(events)] == [".", "go", "node", "worker"]
    assert kinds(events).count("PHASE_INSTALL") == 1
    again = [process_id for process_id in world.executor.started if ".install-2" in process_id]
    assert len(again) == len(["node", "worker"])
    assert {record.ecosystem for record in await world.store.present_environments(world.sandbox_id)} == {
        "python",
        "go",
        "node",
    }


async def test_other_exec_waits_for_its_turn_and_gets_its_own_environment(world: World) -> None:
    world.close_gate("install go")
    first = await world.conductor.start(program(world, install_all=True))
    await world.at("install go")
    world.sandbox.files["requirements.txt"] = b"other"
    second = await world.conductor.start(program(world))
    while world.resolver.plans < 2:  # noqa: ASYNC110  # no event tells it
        await asyncio.sleep(0)
    world.gates["install go"].set()
    ends = [(await all_events(world, live))[-1].ended.exited for live in (first, second)]
    assert ends == [3, 3]
    fingerprint = second.journal.record.fingerprint
    assert await world.store.present_lock(world.sandbox_id, "python", fingerprint)
    assert f".qila/env/python/{fingerprint}/.complete" in world.sandbox.files


async def test_cancel_between_the_projects_leaves_nothing_half_installed(world: World) -> None:
    world.close_gate("install node")
    live = await world.conductor.start(program(world, install_all=True))
    await world.at("install node")
    await world.conductor.cancel(world.sandbox_id, live.exec_id)
    assert (await all_events(world, live))[-1].ended.HasField("cancelled")
    assert not [path for path in world.sandbox.files if path.startswith((".qila/env/node", ".qila/stage"))]
    assert not world.sandbox.install_open


async def old_environments(world: World, count: int) -> None:
    for number in range(count):
        fingerprint = f"old{number}"
        await world.store.save_environment(
            EnvironmentRecord(
                sandbox_id=world.sandbox_id,
                ecosystem="python",
                fingerprint=fingerprint,
                lock=b"{}",
                native_lock=fingerprint.encode(),
                native_lock_name="l",
                create_time_ns=number + 1,
            )
        )
        world.sandbox.files[f".qila/env/python/{fingerprint}/.complete"] = b""


def environments(world: World) -> set[tuple[str, str]]:
    paths = [path.split("/") for path in world.sandbox.files if path.startswith(".qila/env/")]
    return {(parts[2], parts[3]) for parts in paths}


async def test_environments_of_a_running_exec_are_not_collected_even_after_a_restart(world: World) -> None:
    world.sandbox.files["worker2/requirements.txt"] = b"celery"
    world.close_gate("run")
    live = await world.conductor.start(program(world, install_all=True))
    await world.at("run")
    used = {(item.ecosystem, item.fingerprint) for item in plans(await seen(world, live.exec_id))}
    await world.conductor.close()
    conductor = world.restarted()
    await conductor.adopt()
    await conductor.recover()
    for number in range(3):
        world.sandbox.files["requirements.txt"] = f"other{number}".encode()
        other = await conductor.start(program(world))
        while other.journal.record.phase != pb.PHASE_RUN:  # noqa: ASYNC110  # no event tells it
            await asyncio.sleep(0)
    assert used <= environments(world)
    world.gates["run"].set()
    assert (await all_events(world, await conductor.find(world.sandbox_id, live.exec_id)))[-1].ended.exited == 3


async def seen(world: World, exec_id: str) -> list[pb.ExecEvent]:
    stored = await world.store.events(world.sandbox_id, exec_id, 0, 1000)
    return [pb.ExecEvent.FromString(item.payload) for item in stored]


async def test_current_environments_of_other_languages_are_not_collected(world: World) -> None:
    del world.sandbox.files["worker/requirements.txt"]
    events = await events_of(world, program(world, install_all=True))
    others = {(item.ecosystem, item.fingerprint) for item in plans(events)[1:]}
    for number in range(5):
        world.sandbox.files["requirements.txt"] = f"other{number}".encode()
        await events_of(world, program(world))
    assert others <= environments(world)
    python = [name for name, _ in environments(world) if name == "python"]
    assert len(python) == 3


async def test_locks_sbom_and_comparison_hold_all_projects(world: World) -> None:
    documents = Documents(world.store, world.resolver)
    live = await world.conductor.start(program(world, install_all=True))
    await all_events(world, live)
    answer = await documents.lock(world.sandbox_id, "")
    assert answer.exec_id == live.exec_id
    assert [(item.project, item.ecosystem) for item in answer.projects] == [
        (".", "python"),
        ("go", "go"),
        ("node", "node"),
        ("worker", "python"),
    ]
    assert (answer.native_lock, answer.native_lock_name) == (
        answer.projects[0].native_lock,
        answer.projects[0].native_lock_name,
    )
    document = json.loads(answer.lock)
    assert [item["project"] for item in document["locks"]] == [".", "go", "node", "worker"]
    assert document["locks"][2]["packages"] == json.loads(answer.projects[2].lock)["packages"]
    chunks = [chunk async for chunk in documents.sbom(world.sandbox_id, live.exec_id, pb.SBOM_FORMAT_UNSPECIFIED)]
    sbom = b"".join(chunks).decode()
    assert all(f'"{name}"' in sbom for name in ("pyyaml", "express", "uuid", "redis"))
    reference = pb.LockReference(exec=pb.ExecReference(sandbox_id=world.sandbox_id, exec_id=live.exec_id))
    compared = await documents.diff(pb.DiffLocksRequest(before=reference, after=reference))
    assert len(compared.changes) == 2 * 4


async def test_lock_of_several_projects_is_the_same_whichever_program_asked(world: World) -> None:
    documents = Documents(world.store, world.resolver)
    first = await world.conductor.start(program(world, install_all=True))
    await all_events(world, first)
    await events_of(world, program(world))
    again = await world.conductor.start(program(world, install_all=True))
    await all_events(world, again)
    locks = [(await documents.lock(world.sandbox_id, live.exec_id)).lock for live in (first, again)]
    assert locks[0] == locks[1]


async def test_program_that_needs_nothing_leaves_the_locks_of_the_others(world: World) -> None:
    world.sandbox.files["requirements.txt"] = b""
    live = await world.conductor.start(program(world, install_all=True))
    await all_events(world, live)
    answer = await Documents(world.store, world.resolver).lock(world.sandbox_id, "")
    assert answer.exec_id == live.exec_id
    assert [item.project for item in answer.projects] == ["go", "node", "worker"]
    assert answer.native_lock == b""
    # Its own project has no environment, and another one of the same language does not take that place.
    assert ".qila/current/python" not in world.sandbox.links


async def test_project_that_needs_nothing_leaves_its_place_to_another(world: World) -> None:
    world.sandbox.files["a/node/requirements.txt"] = b""
    made = plans(await events_of(world, program(world, install_all=True)))
    assert [(item.project, item.ecosystem) for item in made][1:4] == [
        ("a/node", "node"),
        ("go", "go"),
        ("node", "node"),
    ]
    assert world.sandbox.links[".qila/current/node"] == f"../env/node/{made[3].fingerprint}"


async def test_exec_without_any_lock_has_none(world: World) -> None:
    for path in [path for path in world.sandbox.files if path.endswith("requirements.txt")]:
        del world.sandbox.files[path]
    await events_of(world, program(world, install_all=True))
    with pytest.raises(QilaError, match="nothing was installed"):
        await Documents(world.store, world.resolver).lock(world.sandbox_id, "")


async def test_joined_lock_is_what_the_resolver_reads() -> None:
    from services.gateway.joined import joined_lock  # noqa: PLC0415  # beside what reads it

    single = {"ecosystem": "node", "format": 1, "packages": [], "toolchain": {"node": "24.1.0"}}
    locks = [
        pb.ProjectLock(project=project, ecosystem="node", lock=json.dumps(single).encode()) for project in ("web", ".")
    ]
    parts = parts_of(Lockfile(name="qila.lock.json", content=joined_lock(locks)))
    assert [json.loads(part.content) for part in parts] == [{**single, "project": name} for name in (".", "web")]


async def test_given_lock_goes_with_the_plans_of_all(world: World) -> None:
    box = await world.executor.create_sandbox(executor.CreateSandboxRequest())
    lock = GivenLock(name="qila.lock.json", content=b"of all")
    record = SandboxRecord(
        sandbox_id=box.id, language="", create_time_ns=1, cpu_millis=0, memory_bytes=0, pids=0, lock_digest=lock.digest
    )
    await world.store.add_sandbox(record, lock)
    files = dict(world.sandbox.files)
    world.sandbox_id = box.id
    world.sandbox.files.update(files)
    await events_of(world, program(world, install_all=True))
    assert world.resolver.headers[-1].given_lock.content == b"of all"


async def test_command_cannot_install_projects(world: World) -> None:
    with pytest.raises(QilaError, match="install_all: is for programs"):
        await world.conductor.start(command(world, "true", install_all=True))


async def test_language_of_a_program_goes_before_the_sandboxs(world: World) -> None:
    request = program(world)
    request.program.language = "java"
    await events_of(world, request)
    assert world.resolver.headers[-1].target.required_language == "java"
    request.program.language = "Java!"
    with pytest.raises(QilaError, match=r"program\.language"):
        await world.conductor.start(request)
