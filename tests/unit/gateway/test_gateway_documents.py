"""Locks, comparisons and SBOMs of what execs ran with."""

from __future__ import annotations

import pytest

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.documents import Documents
from services.gateway.executor_fake import FakeProcess
from services.gateway.store.port import MAX_INVENTORY_BYTES, EnvironmentRecord, InventoryKey
from services.rpc.errors import ErrorCode, QilaError

from .gateway_world import World, all_events, command, program

SITE = "/sandbox/.local/site"


@pytest.fixture
def documents(world: World) -> Documents:
    return Documents(world.store, world.resolver)


async def ran(world: World, request: pb.ExecRequest) -> str:
    live = await world.conductor.start(request)
    await all_events(world, live)
    return live.exec_id


async def sbom(documents: Documents, world: World, exec_id: str = "") -> list[str]:
    form = pb.SBOM_FORMAT_UNSPECIFIED
    chunks = [chunk async for chunk in documents.sbom(world.sandbox_id, exec_id, form)]
    return b"".join(chunks).decode().splitlines()


async def test_sbom_is_of_what_was_there_when_the_exec_ran(world: World, documents: Documents) -> None:
    first = await ran(world, program(world))
    before = await sbom(documents, world, first)
    assert before[0] == f"{first} {pb.SBOM_FORMAT_CYCLONEDX_1_6} program main.py a False"
    assert before[1].startswith("lock ")
    assert '"pyyaml"' in before[1]
    # The same fingerprint, installed anew, may hold other versions.
    for path in [path for path in world.sandbox.files if path.startswith(".qila/")]:
        del world.sandbox.files[path]

    async def solve(process: FakeProcess) -> int:
        directory = process.spec.working_directory.removeprefix("/sandbox/")
        process.sandbox.files[f"{directory}/{process.spec.argv[1]}"] = b"newer"
        return 0

    world.executor.programs["solve"] = solve
    second = await ran(world, program(world))
    assert '"newer"' in (await sbom(documents, world, second))[1]
    assert await sbom(documents, world, first) == before
    assert b'"newer"' not in (await documents.lock(world.sandbox_id, first)).lock
    answer = await documents.lock(world.sandbox_id, "")
    assert (answer.exec_id, answer.native_lock) == (second, b"newer in public")


async def test_lock_that_is_no_longer_kept_is_told(
    world: World, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await ran(world, program(world))
    record = await world.store.exec(world.sandbox_id, first)
    assert record is not None
    await world.store.mark_collected(world.sandbox_id, "python", record.fingerprint)
    monkeypatch.setattr("services.gateway.store.memory.MAX_LOCK_BYTES", 100)
    later = EnvironmentRecord(
        sandbox_id=world.sandbox_id, ecosystem="python", fingerprint="f", lock=bytes(99), native_lock=b"",
        native_lock_name="n", create_time_ns=1,
    )  # fmt: skip
    await world.store.save_environment(later)
    own = pb.LockReference(exec=pb.ExecReference(sandbox_id=world.sandbox_id, exec_id=first))
    for call in (
        documents.lock(world.sandbox_id, first),
        documents.diff(pb.DiffLocksRequest(before=own, after=own)),
        sbom(documents, world, first),
    ):
        with pytest.raises(QilaError, match="no longer kept") as raised:
            await call
        assert raised.value.reason == "NO_LOCK"


async def test_sbom_of_a_program_without_dependencies_has_no_parts(world: World, documents: Documents) -> None:
    world.sandbox.files["requirements.txt"] = b""
    exec_id = await ran(world, program(world))
    assert await sbom(documents, world) == [f"{exec_id} {pb.SBOM_FORMAT_CYCLONEDX_1_6} program main.py a False"]
    diff = pb.DiffLocksRequest(
        before=pb.LockReference(exec=pb.ExecReference(sandbox_id=world.sandbox_id, exec_id=exec_id)),
        after=pb.LockReference(lock=pb.Lockfile(name="qila.lock.json", content=b"some")),
    )
    assert [change.after.name for change in (await documents.diff(diff)).changes] == ["some"]


async def test_command_has_the_current_locks_and_says_what_nobody_looked_for(
    world: World, documents: Documents
) -> None:
    await ran(world, program(world))
    exec_id = await ran(world, command(world, "true", "x y"))
    lines = await sbom(documents, world)
    assert lines[0] == f"{exec_id} {pb.SBOM_FORMAT_CYCLONEDX_1_6} true 'x y' True"
    assert lines[1].startswith("lock ")


async def test_what_programs_installed_is_listed_once_for_each_state(world: World, documents: Documents) -> None:
    listed: list[str] = []

    async def list_site(process: FakeProcess) -> int:
        listed.append(process.process_id)
        process.write(b"inventory %d" % len(listed))
        return 0

    world.executor.programs["list-site"] = list_site
    world.sandbox.unmanaged = {SITE: "one", "/sandbox/elsewhere": "x"}
    execs = [await ran(world, program(world)) for _ in range(2)]
    assert len(listed) == 1
    world.sandbox.unmanaged = {SITE: "two"}
    execs.append(await ran(world, program(world)))
    found = [(await sbom(documents, world, exec_id))[-1] for exec_id in execs]
    assert found == [f"unmanaged_ecosystem inventory {number}" for number in (1, 1, 2)]


async def test_directory_that_cannot_be_listed_keeps_nothing_from_running(world: World, documents: Documents) -> None:
    async def fail(_process: FakeProcess) -> int:
        return 1

    world.executor.programs["list-site"] = fail
    world.sandbox.unmanaged = {SITE: "one"}
    exec_id = await ran(world, program(world))
    assert (await sbom(documents, world, exec_id))[0].endswith(" True")


async def test_inventory_beyond_what_is_kept_leaves_it_unknown(world: World, documents: Documents) -> None:
    async def list_site(process: FakeProcess) -> int:
        process.write(b"inventory")
        return 0

    world.executor.programs["list-site"] = list_site
    full = InventoryKey(ecosystem="python", path=SITE, digest="zero")
    await world.store.add_inventory(world.sandbox_id, full, bytes(MAX_INVENTORY_BYTES))
    world.sandbox.unmanaged = {SITE: "one"}
    assert (await sbom(documents, world, await ran(world, program(world))))[0].endswith(" True")


async def test_plan_that_can_list_nothing_leaves_it_unknown(world: World, documents: Documents) -> None:
    world.resolver.lists_unmanaged = False
    assert (await sbom(documents, world, await ran(world, program(world))))[0].endswith(" False")
    world.sandbox.unmanaged = {SITE: "one"}
    assert (await sbom(documents, world, await ran(world, program(world))))[0].endswith(" True")


async def test_sbom_is_not_ready_before_the_run(world: World, documents: Documents) -> None:
    with pytest.raises(QilaError) as caught:
        await sbom(documents, world)
    assert (caught.value.code, caught.value.reason) == (ErrorCode.FAILED_PRECONDITION, "SBOM_NOT_READY")
    world.close_gate("install")
    live = await world.conductor.start(program(world))
    await world.at("install")
    with pytest.raises(QilaError, match=live.exec_id) as caught:
        await sbom(documents, world, live.exec_id)
    assert caught.value.reason == "SBOM_NOT_READY"


async def test_references_that_lead_nowhere_are_told(world: World, documents: Documents) -> None:
    reference = pb.LockReference(exec=pb.ExecReference(sandbox_id=world.sandbox_id))
    lock = pb.LockReference(lock=pb.Lockfile(name="a.json", content=b"x"))
    for before, reason in ((reference, "NO_LOCK"), (pb.LockReference(), "FIELD_INVALID")):
        with pytest.raises(QilaError) as caught:
            await documents.diff(pb.DiffLocksRequest(before=before, after=lock))
        assert caught.value.reason == reason
    lock.lock.content = b"broken"
    with pytest.raises(QilaError, match=r"a\.json:1") as caught:
        await documents.diff(pb.DiffLocksRequest(before=lock, after=lock))
    assert caught.value.reason == "LOCK_INVALID"
    with pytest.raises(QilaError) as caught:
        await documents.check_given(pb.Lockfile(name="../x", content=b""))
    assert caught.value.reason == "FIELD_INVALID"
    with pytest.raises(QilaError) as caught:
        await documents.check_given(pb.Lockfile(name="x", content=b" " * ((16 << 20) + 1)))
    assert caught.value.reason == "FIELD_INVALID"
