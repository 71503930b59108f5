"""What every store must do, whatever is behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.importable import Importable, InstalledProject
from services.gateway.store.memory import MemoryStore
from services.gateway.store.port import (
    MAX_ANSWERS,
    MAX_INVENTORY_BYTES,
    CurrentLock,
    EnvironmentRecord,
    ExecOutline,
    ExecRecord,
    GivenLock,
    InventoryKey,
    LockRecord,
    SandboxMissingError,
    SandboxRecord,
    Store,
    StoredEvent,
)
from services.gateway.store.schema import METADATA
from services.gateway.store.sql import open_store, upgrade

Reopen = Callable[[Store], Awaitable[Store]]
SANDBOX = SandboxRecord(
    sandbox_id="sb_a",
    language="python",
    create_time_ns=5,
    cpu_millis=1000,
    memory_bytes=2 << 30,
    pids=512,
    disk_bytes=7,
    image="go1.26",
)
EXEC = ExecRecord(
    sandbox_id="sb_a", exec_id="ex_a", request=b"r", digest="d", create_time_ns=10, phase=1, last_sequence=1
)
ENVIRONMENT = EnvironmentRecord(
    sandbox_id="sb_a",
    ecosystem="python",
    fingerprint="f1",
    lock=b"lock",
    native_lock=b"native",
    native_lock_name="pylock",
    create_time_ns=20,
)
EVENT = StoredEvent(sequence=1, payload=b"created")


@pytest.fixture(params=["memory", "sqlite"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reopen]:
    """Gives the same store again, as a process does that was killed and started anew."""
    opened: list[Store] = []

    async def again(store: Store) -> Store:
        if request.param == "memory":
            return store
        upgrade(tmp_path / "state" / "gateway.db")
        opened.append(open_store(tmp_path / "state" / "gateway.db"))
        return opened[-1]

    yield again
    for store in opened:
        await store.close()


@pytest.fixture
async def store(reopen: Reopen) -> Store:
    made = await reopen(MemoryStore())
    await made.add_sandbox(SANDBOX)
    return made


async def test_what_was_written_is_there_after_reopening(store: Store, reopen: Reopen) -> None:
    assert await store.add_exec(EXEC, [EVENT]) is None
    await store.save_plan("sb_a", "key", b"plan")
    await store.save_environment(ENVIRONMENT)
    again = await reopen(store)
    assert await again.sandbox("sb_a") == replace(SANDBOX, plan_key="key", plan=b"plan")
    assert await again.exec("sb_a", "ex_a") == EXEC
    assert await again.events("sb_a", "ex_a", 0, 10) == [EVENT]
    assert await again.environment("sb_a", "python", "f1") == ENVIRONMENT


async def test_answers_are_kept_and_the_oldest_go(store: Store, reopen: Reopen) -> None:
    for number in range(MAX_ANSWERS + 1):
        await store.save_answer("sb_a", "java", f"f{number}", b"%d" % number)
    await store.save_answer("sb_a", "java", "f1", b"again")
    await store.save_answer("sb_x", "java", "f1", b"of no sandbox")
    await store.add_sandbox(replace(SANDBOX, sandbox_id="sb_b"))
    await store.save_answer("sb_b", "java", "f1", b"other")
    store = await reopen(store)
    assert await store.answer("sb_a", "java", "f0") is None
    assert await store.answer("sb_a", "java", "f1") == b"again"
    assert await store.answer("sb_a", "go", "f1") is None
    assert await store.answer("sb_x", "java", "f1") is None
    # It became the newest when it was kept again: now the oldest of the others goes.
    await store.save_answer("sb_a", "java", "more", b"")
    assert await store.answer("sb_a", "java", "f1") == b"again"
    assert await store.answer("sb_a", "java", "f2") is None
    assert await store.answer("sb_b", "java", "f1") == b"other"
    await store.remove_sandbox("sb_b")
    assert await store.answer("sb_b", "java", "f1") is None


async def test_sandboxes_are_listed_newest_first(store: Store) -> None:
    newer = replace(SANDBOX, sandbox_id="sb_b", create_time_ns=6)
    await store.add_sandbox(newer)
    assert list(await store.sandboxes()) == [newer, SANDBOX]


async def test_taken_exec_id_gives_the_exec_that_has_it(store: Store) -> None:
    await store.add_exec(EXEC, [EVENT])
    assert await store.add_exec(replace(EXEC, digest="other"), [EVENT]) == EXEC
    assert len(await store.events("sb_a", "ex_a", 0, 10)) == 1


async def test_removed_exec_leaves_its_id_and_no_events(store: Store) -> None:
    await store.add_exec(EXEC, [EVENT])
    await store.remove_exec("sb_a", "ex_a")
    await store.remove_exec("sb_a", "ex_a")
    assert await store.exec("sb_a", "ex_a") is None
    assert await store.add_exec(EXEC, []) is None
    assert not await store.events("sb_a", "ex_a", 0, 10)


async def test_exec_of_no_sandbox_is_refused(store: Store) -> None:
    with pytest.raises(SandboxMissingError):
        await store.add_exec(replace(EXEC, sandbox_id="sb_x"), [EVENT])


async def test_events_come_in_pages(store: Store) -> None:
    await store.add_exec(EXEC, [EVENT])
    more = [StoredEvent(sequence=number, payload=b"%d" % number) for number in range(2, 6)]
    await store.save_exec(replace(EXEC, last_sequence=5), more)
    assert await store.events("sb_a", "ex_a", 2, 2) == more[1:3]
    assert await store.events("sb_a", "ex_a", 5, 2) == []


async def test_execs_are_listed_in_pages_newest_first(store: Store) -> None:
    await store.add_sandbox(replace(SANDBOX, sandbox_id="sb_b"))
    await store.add_exec(replace(EXEC, sandbox_id="sb_b"), [EVENT])
    # Two of one moment are in the order of their ids.
    for exec_id, time in (("ex_a", 10), ("ex_b", 11), ("ex_c", 11), ("ex_d", 12)):
        await store.add_exec(replace(EXEC, exec_id=exec_id, create_time_ns=time), [EVENT])
    done = replace(EXEC, exec_id="ex_b", create_time_ns=11, end_time_ns=20, ended=b"end", phase=3, fingerprint="f")
    await store.save_exec(done, [])

    async def page(*, before: tuple[int, str] | None = None, limit: int = 10, running: bool = False) -> list[str]:
        rows = await store.list_execs("sb_a", before=before, limit=limit, running_only=running)
        return [row.exec_id for row in rows]

    assert await page(limit=3) == ["ex_d", "ex_c", "ex_b"]
    assert await page(before=(11, "ex_b")) == ["ex_a"]
    assert await page(before=(11, "ex_c"), limit=1) == ["ex_b"]
    assert await page(running=True) == ["ex_d", "ex_c", "ex_a"]
    [outline] = await store.list_execs("sb_a", before=(11, "ex_c"), limit=1, running_only=False)
    expected = ExecOutline(
        sandbox_id="sb_a",
        exec_id="ex_b",
        create_time_ns=11,
        phase=3,
        end_time_ns=20,
        ended=b"end",
        fingerprint="f",
    )
    assert outline == expected


async def test_ended_exec_is_no_longer_unended(store: Store) -> None:
    later = replace(EXEC, exec_id="ex_b", create_time_ns=11)
    await store.add_exec(later, [EVENT])
    await store.add_exec(EXEC, [EVENT])
    assert list(await store.unended_execs()) == [EXEC, later]
    ended = replace(EXEC, end_time_ns=99, ended=b"e", failure=b"f", phase=3, fingerprint="f1", plan=b"p", attempt=2)
    ended = replace(ended, run=1, added='["x"]', last_end=b"l", importable="{}")
    await store.save_exec(ended, [])
    assert list(await store.unended_execs()) == [later]
    assert await store.exec("sb_a", "ex_a") == ended


async def test_removed_sandbox_takes_everything_with_it(store: Store) -> None:
    await store.add_exec(EXEC, [EVENT])
    await store.save_environment(ENVIRONMENT)
    await store.remove_sandbox("sb_a")
    await store.remove_sandbox("sb_a")
    assert await store.sandbox("sb_a") is None
    assert await store.exec("sb_a", "ex_a") is None
    assert await store.events("sb_a", "ex_a", 0, 10) == []
    assert await store.environment("sb_a", "python", "f1") is None
    # A task that ends late writes into nothing.
    await store.save_exec(EXEC, [StoredEvent(sequence=2, payload=b"late")])
    await store.save_environment(ENVIRONMENT)
    await store.save_plan("sb_a", "key", b"plan")
    assert await store.environment("sb_a", "python", "f1") is None


async def test_collected_environment_keeps_its_lock(store: Store) -> None:
    newer = replace(ENVIRONMENT, fingerprint="f2", create_time_ns=30)
    await store.save_environment(ENVIRONMENT)
    await store.save_environment(newer)
    assert list(await store.present_environments("sb_a")) == [newer, ENVIRONMENT]
    await store.mark_collected("sb_a", "python", "f1")
    assert list(await store.present_environments("sb_a")) == [newer]
    assert await store.environment("sb_a", "python", "f1") == replace(ENVIRONMENT, present=False)
    await store.save_environment(ENVIRONMENT)
    assert await store.environment("sb_a", "python", "f1") == ENVIRONMENT


async def test_newest_locked_exec_is_the_newest_with_an_environment(store: Store) -> None:
    assert await store.newest_locked_exec("sb_a") is None
    locked = replace(EXEC, ecosystem="python", fingerprint="f1", phase=pb.PHASE_RUN)
    await store.save_environment(ENVIRONMENT)
    await store.add_exec(locked, [EVENT])
    await store.add_exec(replace(EXEC, exec_id="ex_b", create_time_ns=12), [EVENT])
    await store.add_exec(replace(locked, exec_id="ex_c", create_time_ns=13, phase=pb.PHASE_INSTALL), [EVENT])
    assert await store.newest_locked_exec("sb_a") == locked


async def test_exec_whose_other_projects_have_locks_is_a_locked_one(store: Store) -> None:
    project = InstalledProject(project="web", ecosystem="node", fingerprint="f9", digest="d")
    ran = replace(EXEC, ecosystem="python", phase=pb.PHASE_RUN)
    beside = replace(ran, importable=Importable(projects=(project,), locks=("d",)).to_text())
    await store.add_exec(beside, [EVENT])
    nothing = Importable(locks=("d",)).to_text()
    await store.add_exec(replace(ran, exec_id="ex_b", create_time_ns=12, importable=nothing), [EVENT])
    assert await store.newest_locked_exec("sb_a") == beside


async def test_lock_of_an_earlier_install_of_the_same_fingerprint_stays(store: Store) -> None:
    later = replace(ENVIRONMENT, lock=b"newer versions", create_time_ns=30)
    await store.save_environment(ENVIRONMENT)
    await store.save_environment(later)
    assert await store.environment("sb_a", "python", "f1") == later
    assert await store.present_lock("sb_a", "python", "f1") == later.lock_digest
    old = await store.lock("sb_a", ENVIRONMENT.lock_digest)
    assert old == LockRecord(lock=b"lock", native_lock=b"native", native_lock_name="pylock")
    await store.mark_collected("sb_a", "python", "f1")
    assert await store.present_lock("sb_a", "python", "f1") == ""
    await store.remove_sandbox("sb_a")
    assert await store.lock("sb_a", ENVIRONMENT.lock_digest) is None


async def test_locks_are_bounded_and_those_of_present_environments_stay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("memory", "pruning"):
        monkeypatch.setattr(f"services.gateway.store.{module}.MAX_LOCK_BYTES", 100)
    await store.add_sandbox(replace(SANDBOX, sandbox_id="sb_b"))
    await store.save_environment(replace(ENVIRONMENT, sandbox_id="sb_b", lock=b"o" * 90))
    made = [replace(ENVIRONMENT, fingerprint=name, lock=name.encode() * 30, native_lock=b"") for name in "abcd"]
    for record in made[:3]:
        await store.save_environment(record)
    for name in "bc":
        await store.mark_collected("sb_a", "python", name)
    await store.save_environment(made[3])
    kept = [await store.lock("sb_a", record.lock_digest) is not None for record in made]
    assert kept == [True, False, True, True]
    assert await store.environment("sb_a", "python", "b") is None
    # Present ones stay even where they alone are beyond the bound.
    await store.save_environment(replace(made[3], fingerprint="e", lock=b"e" * 90))
    assert await store.present_lock("sb_a", "python", "a") == made[0].lock_digest
    kept = [await store.lock("sb_a", record.lock_digest) is not None for record in made]
    assert kept == [True, False, False, True]
    assert len(await store.present_environments("sb_b")) == 1


async def test_current_lock_is_that_of_the_last_switch(store: Store) -> None:
    newer = replace(ENVIRONMENT, fingerprint="f2", lock=b"other", create_time_ns=30)
    await store.save_environment(ENVIRONMENT)
    await store.save_environment(newer)
    assert (await store.current_locks("sb_a"))["python"].digest == newer.lock_digest
    await store.mark_current("sb_a", "python", "f1", 40)
    current = CurrentLock(fingerprint="f1", digest=ENVIRONMENT.lock_digest)
    assert dict(await store.current_locks("sb_a")) == {"python": current}


async def test_given_lock_and_inventories_go_with_the_sandbox(store: Store) -> None:
    given = GivenLock(name="pylock.toml", content=b"content")
    key = InventoryKey(ecosystem="python", path="/sandbox/deps", digest="d")
    await store.add_sandbox(replace(SANDBOX, sandbox_id="sb_b", lock_digest=given.digest), given)
    assert await store.add_inventory("sb_b", key, b"first")
    assert await store.add_inventory("sb_b", key, b"second")
    assert (await store.given_lock("sb_b"), await store.given_lock("sb_a")) == (given, None)
    assert await store.has_inventory("sb_b", key)
    assert await store.inventory("sb_b", key) == b"first"
    await store.remove_sandbox("sb_b")
    assert not await store.add_inventory("sb_b", key, b"late")
    assert await store.given_lock("sb_b") is None
    assert not await store.has_inventory("sb_b", key)


async def test_inventories_of_a_sandbox_are_bounded_and_none_is_dropped(store: Store) -> None:
    await store.add_sandbox(replace(SANDBOX, sandbox_id="sb_b"))
    keys = [InventoryKey(ecosystem="python", path="/sandbox/deps", digest=digest) for digest in "abc"]
    assert await store.add_inventory("sb_a", keys[0], b"x" * (MAX_INVENTORY_BYTES - 1))
    assert not await store.add_inventory("sb_a", keys[1], b"xy")
    assert await store.add_inventory("sb_a", keys[2], b"z")
    assert await store.add_inventory("sb_a", keys[2], b"longer, and not kept: the first one stays")
    assert [await store.has_inventory("sb_a", key) for key in keys] == [True, False, True]
    assert await store.add_inventory("sb_b", keys[1], b"of another sandbox")


async def test_additions_are_of_one_program_and_go_with_the_sandbox(store: Store, reopen: Reopen) -> None:
    assert await store.additions("sb_a", "p") == ""
    await store.save_additions("sb_a", "p", '["x"]')
    await store.save_additions("sb_a", "q", '["y"]')
    await store.save_additions("sb_a", "q", "")
    again = await reopen(store)
    assert [await again.additions("sb_a", program) for program in "pq"] == ['["x"]', ""]
    await again.remove_sandbox("sb_a")
    await again.save_additions("sb_a", "p", '["late"]')
    assert await again.additions("sb_a", "p") == ""


async def test_newest_run_exec_has_begun_its_run(store: Store) -> None:
    assert await store.newest_run_exec("sb_a") is None
    ran = replace(EXEC, phase=pb.PHASE_RUN)
    await store.add_exec(ran, [EVENT])
    await store.add_exec(replace(EXEC, exec_id="ex_b", create_time_ns=12), [EVENT])
    assert await store.newest_run_exec("sb_a") == ran
    again = replace(EXEC, exec_id="ex_c", create_time_ns=13, importable="{}", run=1)
    await store.add_exec(again, [EVENT])
    assert await store.newest_run_exec("sb_a") == again


async def test_locks_of_an_older_database_are_moved(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    upgrade(path, "0002_disk_limit")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO sandboxes VALUES ('sb_a', '', 1, 1, 1, 1, '', x'', 1)"))
        connection.execute(
            text(
                "INSERT INTO environments VALUES ('sb_a', 'python', 'f1', x'6c6f636b', x'6e6174697665',"
                " 'pylock', 20, 1)"
            )
        )
    engine.dispose()
    upgrade(path)
    store = open_store(path)
    assert await store.environment("sb_a", "python", "f1") == ENVIRONMENT
    assert await store.present_lock("sb_a", "python", "f1") == ENVIRONMENT.lock_digest
    (sandbox,) = await store.sandboxes()
    assert sandbox.image == "default"
    await store.close()


def test_revisions_make_the_tables_that_the_code_queries(tmp_path: Path) -> None:
    upgrade(tmp_path / "gateway.db")
    engine = create_engine(f"sqlite:///{tmp_path / 'gateway.db'}")
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), METADATA)
    engine.dispose()
    assert difference == []
