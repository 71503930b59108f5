# ruff: noqa: D102  # the proto and the port specify the calls
"""The store over SQLite.

WAL with synchronous=NORMAL: what a commit wrote survives the death of the process (it is in the kernel's cache), which
is what is promised; only a power cut may take the last commits, never the database's consistency, and FULL would cost
an fsync, 5 to 20 ms, before each exec starts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

import alembic.command
import alembic.config
from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    and_,
    bindparam,
    create_engine,
    delete,
    event,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.store.answers import find_answer, keep_answer
from services.gateway.store.listing import exec_page
from services.gateway.store.port import (
    MAX_INVENTORY_BYTES,
    PROJECTS_MARK,
    CurrentLock,
    EnvironmentRecord,
    ExecOutline,
    ExecRecord,
    GivenLock,
    InventoryKey,
    LockRecord,
    SandboxMissingError,
    SandboxRecord,
    StoredEvent,
)
from services.gateway.store.pruning import drop_locks
from services.gateway.store.schema import (
    ADDITIONS,
    ENVIRONMENTS,
    EXEC_EVENTS,
    EXECS,
    GIVEN_LOCKS,
    INVENTORIES,
    LOCKS,
    SANDBOXES,
)

Result = TypeVar("Result")

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=5000",
)
_EXEC_CHANGES: Final = frozenset(
    {
        "phase",
        "last_sequence",
        "end_time_ns",
        "ended",
        "failure",
        "ecosystem",
        "fingerprint",
        "plan",
        "attempt",
        "run",
        "added",
        "last_end",
        "importable",
    }
)
# Between two runs the phase is an earlier one again; of before revision 3, the phase alone tells.
_RAN: Final = or_(EXECS.c.phase == pb.PHASE_RUN, EXECS.c.importable != "")
_LOCK_COLUMNS: Final = ("lock", "native_lock", "native_lock_name")


def _compiled(statement: ClauseElement) -> str:
    return str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))


# What every exec needs is built and compiled once, and given to the driver as text: both cost several times what the
# execution does, and they are most of what a warm exec does in the gateway.
_HAS_EXEC: Final = _compiled(
    select(
        exists().where(and_(EXECS.c.sandbox_id == bindparam("of_sandbox"), EXECS.c.exec_id == bindparam("of_exec")))
    ).where(SANDBOXES.c.sandbox_id == bindparam("of_sandbox"))
)
_HAS_SANDBOX: Final = _compiled(select(SANDBOXES.c.sandbox_id).where(SANDBOXES.c.sandbox_id == bindparam("of_sandbox")))
_SANDBOX: Final = _compiled(select(SANDBOXES).where(SANDBOXES.c.sandbox_id == bindparam("of_sandbox")))
_SANDBOX_COLUMNS: Final = [column.name for column in SANDBOXES.c]
_ADD_EXEC: Final = _compiled(upsert(EXECS).on_conflict_do_nothing())
_ADD_EVENT: Final = _compiled(insert(EXEC_EVENTS))
_PRESENT_LOCK: Final = _compiled(
    select(ENVIRONMENTS.c.lock_digest).where(
        and_(
            ENVIRONMENTS.c.sandbox_id == bindparam("of_sandbox"),
            ENVIRONMENTS.c.ecosystem == bindparam("of_ecosystem"),
            ENVIRONMENTS.c.fingerprint == bindparam("of_fingerprint"),
            ENVIRONMENTS.c.present == bindparam("there"),
        )
    )
)
_SAVE_EXEC: Final = _compiled(
    update(EXECS)
    .where(and_(EXECS.c.sandbox_id == bindparam("of_sandbox"), EXECS.c.exec_id == bindparam("of_exec")))
    .values({name: bindparam(name) for name in sorted(_EXEC_CHANGES)})
)


def upgrade(path: Path, revision: str = "head") -> None:
    """Makes the database's directory and file if needed, and brings the schema to the revision. Blocks."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.begin() as connection:
            config = alembic.config.Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, revision)
    finally:
        engine.dispose()


def open_store(path: Path) -> SqlStore:
    """Opens the database that `upgrade` has made ready."""
    # SQLite has one writer, and the calls here are short: one connection for those of every exec, one for all others.
    engine = create_engine(f"sqlite:///{path}", pool_size=2, max_overflow=0)
    event.listen(engine, "connect", _set_pragmas)
    return SqlStore(engine)


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


class SqlStore:
    """The store's port over an SQLAlchemy engine.

    Transactions run in the event loop: each takes some 0.2 ms, and a hop to a thread and back costs several times that
    (a warm exec makes three). An asynchronous driver makes a hop of every statement, cursor and commit.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Kept: to take it from the pool and give it back is a third of such a transaction.
        self._pooled = engine.raw_connection()

    async def add_sandbox(self, record: SandboxRecord, lock: GivenLock | None = None) -> None:
        def work(connection: Connection) -> None:
            connection.execute(insert(SANDBOXES).values(asdict(record)))
            if lock is not None:
                connection.execute(insert(GIVEN_LOCKS).values(sandbox_id=record.sandbox_id, **asdict(lock)))

        await self._run(work)

    async def given_lock(self, sandbox_id: str) -> GivenLock | None:
        table = GIVEN_LOCKS.c
        row = await self._one(select(table.name, table.content).where(table.sandbox_id == sandbox_id))
        return None if row is None else GivenLock(**row)

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        wanted = {"of_sandbox": sandbox_id}
        row = await self._run_driver(lambda driver: driver.execute(_SANDBOX, wanted).fetchone())
        return None if row is None else SandboxRecord(**dict(zip(_SANDBOX_COLUMNS, row, strict=True)))

    async def sandboxes(self) -> Sequence[SandboxRecord]:
        rows = await self._all(select(SANDBOXES).order_by(SANDBOXES.c.create_time_ns.desc()))
        return [SandboxRecord(**row) for row in rows]

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._execute(delete(SANDBOXES).where(SANDBOXES.c.sandbox_id == sandbox_id))

    async def save_plan(self, sandbox_id: str, plan_key: str, plan: bytes) -> None:
        statement = update(SANDBOXES).where(SANDBOXES.c.sandbox_id == sandbox_id)
        await self._execute(statement.values(plan_key=plan_key, plan=plan))

    async def save_additions(self, sandbox_id: str, program: str, added: str) -> None:
        row = {"sandbox_id": sandbox_id, "program": program, "added": added}
        await self._add_to(sandbox_id, upsert(ADDITIONS).values(row).on_conflict_do_update(set_=row))

    async def additions(self, sandbox_id: str, program: str) -> str:
        of_program = and_(ADDITIONS.c.sandbox_id == sandbox_id, ADDITIONS.c.program == program)
        row = await self._one(select(ADDITIONS.c.added).where(of_program))
        return "" if row is None else row["added"]

    async def save_answer(self, sandbox_id: str, ecosystem: str, fingerprint: str, content: bytes) -> None:
        await self._add_to(sandbox_id, *keep_answer(sandbox_id, ecosystem, fingerprint, content))

    async def answer(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> bytes | None:
        row = await self._one(find_answer(sandbox_id, ecosystem, fingerprint))
        return None if row is None else row["content"]

    async def has_room_for(self, sandbox_id: str, exec_id: str) -> bool:
        wanted = {"of_sandbox": sandbox_id, "of_exec": exec_id}
        row = await self._run_driver(lambda driver: driver.execute(_HAS_EXEC, wanted).fetchone())
        if row is None:
            raise SandboxMissingError
        return not row[0]

    async def add_exec(self, record: ExecRecord, events: Sequence[StoredEvent]) -> ExecRecord | None:
        def work(driver: sqlite3.Connection) -> bool:
            if driver.execute(_HAS_SANDBOX, {"of_sandbox": record.sandbox_id}).fetchone() is None:
                raise SandboxMissingError
            if driver.execute(_ADD_EXEC, vars(record)).rowcount != 1:
                return False
            driver.executemany(_ADD_EVENT, _event_rows(record, events))
            return True

        return None if await self._run_driver(work) else await self.exec(record.sandbox_id, record.exec_id)

    async def remove_exec(self, sandbox_id: str, exec_id: str) -> None:
        await self._execute(delete(EXECS).where(_of_exec(sandbox_id, exec_id)))

    async def exec(self, sandbox_id: str, exec_id: str) -> ExecRecord | None:
        row = await self._one(select(EXECS).where(_of_exec(sandbox_id, exec_id)))
        return None if row is None else ExecRecord(**row)

    async def list_execs(
        self, sandbox_id: str, *, before: tuple[int, str] | None, limit: int, running_only: bool
    ) -> Sequence[ExecOutline]:
        return [ExecOutline(**row) for row in await self._all(exec_page(sandbox_id, before, limit, running_only))]

    async def unended_execs(self) -> Sequence[ExecRecord]:
        rows = await self._all(select(EXECS).where(EXECS.c.end_time_ns == 0).order_by(EXECS.c.create_time_ns))
        return [ExecRecord(**row) for row in rows]

    async def save_exec(self, record: ExecRecord, events: Sequence[StoredEvent]) -> None:
        changes = {name: value for name, value in vars(record).items() if name in _EXEC_CHANGES}
        changes |= {"of_sandbox": record.sandbox_id, "of_exec": record.exec_id}

        def work(driver: sqlite3.Connection) -> None:
            if driver.execute(_SAVE_EXEC, changes).rowcount == 1 and events:
                driver.executemany(_ADD_EVENT, _event_rows(record, events))

        await self._run_driver(work)

    async def events(self, sandbox_id: str, exec_id: str, after: int, limit: int) -> Sequence[StoredEvent]:
        table = EXEC_EVENTS.c
        statement = (
            select(table.sequence, table.payload)
            .where(and_(table.sandbox_id == sandbox_id, table.exec_id == exec_id, table.sequence > after))
            .order_by(table.sequence)
            .limit(limit)
        )
        return [StoredEvent(**row) for row in await self._all(statement)]

    async def save_environment(self, record: EnvironmentRecord) -> None:
        row = asdict(record)
        lock = {name: row.pop(name) for name in _LOCK_COLUMNS}
        lock |= {"sandbox_id": record.sandbox_id, "digest": record.lock_digest}
        row["lock_digest"] = record.lock_digest
        add_lock = upsert(LOCKS).values(lock).on_conflict_do_nothing()
        add_environment = upsert(ENVIRONMENTS).values(row).on_conflict_do_update(set_=row)
        await self._add_to(record.sandbox_id, add_lock, add_environment, drop_locks(record.sandbox_id))

    async def environment(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> EnvironmentRecord | None:
        row = await self._one(_environments().where(_of_environment(sandbox_id, ecosystem, fingerprint)))
        return None if row is None else EnvironmentRecord(**row)

    async def present_lock(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> str:
        wanted = {"of_sandbox": sandbox_id, "of_ecosystem": ecosystem, "of_fingerprint": fingerprint, "there": True}
        row = await self._run_driver(lambda driver: driver.execute(_PRESENT_LOCK, wanted).fetchone())
        return row[0] if row else ""

    async def lock(self, sandbox_id: str, digest: str) -> LockRecord | None:
        columns = [LOCKS.c[name] for name in _LOCK_COLUMNS]
        of_digest = and_(LOCKS.c.sandbox_id == sandbox_id, LOCKS.c.digest == digest)
        row = await self._one(select(*columns).where(of_digest))
        return None if row is None else LockRecord(**row)

    async def mark_current(self, sandbox_id: str, ecosystem: str, fingerprint: str, time_ns: int) -> None:
        statement = update(ENVIRONMENTS).where(_of_environment(sandbox_id, ecosystem, fingerprint))
        await self._execute(statement.values(switch_time_ns=time_ns))

    async def current_locks(self, sandbox_id: str) -> Mapping[str, CurrentLock]:
        table = ENVIRONMENTS.c
        statement = select(table.ecosystem, table.fingerprint, table.lock_digest)
        statement = statement.where(and_(table.sandbox_id == sandbox_id, table.present.is_(True)))
        rows = await self._all(statement.order_by(table.switch_time_ns, table.create_time_ns))
        return {
            row["ecosystem"]: CurrentLock(fingerprint=row["fingerprint"], digest=row["lock_digest"]) for row in rows
        }

    async def add_inventory(self, sandbox_id: str, key: InventoryKey, content: bytes) -> bool:
        table = INVENTORIES.c
        size = func.coalesce(func.sum(func.length(table.content)), 0).label("size")
        [kept] = await self._all(select(size).where(table.sandbox_id == sandbox_id))
        if kept["size"] + len(content) <= MAX_INVENTORY_BYTES:
            row = {"sandbox_id": sandbox_id, "content": content, **asdict(key)}
            await self._add_to(sandbox_id, upsert(INVENTORIES).values(row).on_conflict_do_nothing())
        return await self.has_inventory(sandbox_id, key)

    async def inventory(self, sandbox_id: str, key: InventoryKey) -> bytes | None:
        row = await self._one(select(INVENTORIES.c.content).where(_of_inventory(sandbox_id, key)))
        return None if row is None else row["content"]

    async def has_inventory(self, sandbox_id: str, key: InventoryKey) -> bool:
        return await self._one(select(INVENTORIES.c.digest).where(_of_inventory(sandbox_id, key))) is not None

    async def present_environments(self, sandbox_id: str) -> Sequence[EnvironmentRecord]:
        table = ENVIRONMENTS.c
        statement = _environments().where(and_(table.sandbox_id == sandbox_id, table.present.is_(True)))
        rows = await self._all(statement.order_by(table.create_time_ns.desc()))
        return [EnvironmentRecord(**row) for row in rows]

    async def mark_collected(self, sandbox_id: str, ecosystem: str, fingerprint: str) -> None:
        statement = update(ENVIRONMENTS).where(_of_environment(sandbox_id, ecosystem, fingerprint))
        await self._execute(statement.values(present=False))

    async def newest_locked_exec(self, sandbox_id: str) -> ExecRecord | None:
        same = and_(
            EXECS.c.sandbox_id == ENVIRONMENTS.c.sandbox_id,
            EXECS.c.ecosystem == ENVIRONMENTS.c.ecosystem,
            EXECS.c.fingerprint == ENVIRONMENTS.c.fingerprint,
        )
        locked = or_(ENVIRONMENTS.c.fingerprint.is_not(None), EXECS.c.importable.contains(PROJECTS_MARK))
        begun = and_(EXECS.c.sandbox_id == sandbox_id, _RAN, locked)
        statement = select(EXECS).join(ENVIRONMENTS, same, isouter=True).where(begun)
        row = await self._one(statement.order_by(EXECS.c.create_time_ns.desc()).limit(1))
        return None if row is None else ExecRecord(**row)

    async def newest_run_exec(self, sandbox_id: str) -> ExecRecord | None:
        begun = and_(EXECS.c.sandbox_id == sandbox_id, _RAN)
        row = await self._one(select(EXECS).where(begun).order_by(EXECS.c.create_time_ns.desc()).limit(1))
        return None if row is None else ExecRecord(**row)

    async def close(self) -> None:
        """Closes the connections."""
        self._pooled.close()
        self._engine.dispose()

    async def _run(self, work: Callable[[Connection], Result]) -> Result:
        """One transaction, which is whole when this returns."""
        with self._engine.begin() as connection:
            return work(connection)

    async def _run_driver(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """One transaction of compiled statements, on the driver's own connection; whole when this returns."""
        driver = self._pooled.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        try:
            # Commits, or rolls back if `work` raises.
            with driver:
                return work(driver)
        except sqlite3.Error as error:
            # The store's errors are SQLAlchemy's, however a statement got to the database.
            raise DBAPIError.instance(None, None, error, sqlite3.Error) from error

    async def _add_to(self, sandbox_id: str, *statements: Executable) -> None:
        """Writes records of a sandbox; nothing if it is gone."""
        of_sandbox = select(SANDBOXES.c.sandbox_id).where(SANDBOXES.c.sandbox_id == sandbox_id)

        def work(connection: Connection) -> None:
            if connection.execute(of_sandbox).first() is not None:
                for statement in statements:
                    connection.execute(statement)

        await self._run(work)

    async def _execute(self, statement: Executable) -> None:
        def work(connection: Connection) -> None:
            connection.execute(statement)

        await self._run(work)

    async def _one(self, statement: Executable) -> dict[str, Any] | None:
        rows = await self._all(statement)
        return rows[0] if rows else None

    async def _all(self, statement: Executable) -> list[dict[str, Any]]:
        return await self._run(lambda connection: [dict(row) for row in connection.execute(statement).mappings()])


def _event_rows(record: ExecRecord, events: Sequence[StoredEvent]) -> list[dict[str, object]]:
    return [{"sandbox_id": record.sandbox_id, "exec_id": record.exec_id, **vars(event)} for event in events]


def _of_exec(sandbox_id: str, exec_id: str) -> Any:
    return and_(EXECS.c.sandbox_id == sandbox_id, EXECS.c.exec_id == exec_id)


def _environments() -> Any:
    """Environments with their locks."""
    own = [column for column in ENVIRONMENTS.c if column.name != "lock_digest"]
    locks = [LOCKS.c[name] for name in _LOCK_COLUMNS]
    same = and_(LOCKS.c.sandbox_id == ENVIRONMENTS.c.sandbox_id, LOCKS.c.digest == ENVIRONMENTS.c.lock_digest)
    return select(*own, *locks).join(LOCKS, same)


def _of_inventory(sandbox_id: str, key: InventoryKey) -> Any:
    table = INVENTORIES.c
    return and_(
        table.sandbox_id == sandbox_id,
        table.ecosystem == key.ecosystem,
        table.path == key.path,
        table.digest == key.digest,
    )


def _of_environment(sandbox_id: str, ecosystem: str, fingerprint: str) -> Any:
    table = ENVIRONMENTS.c
    return and_(table.sandbox_id == sandbox_id, table.ecosystem == ecosystem, table.fingerprint == fingerprint)
