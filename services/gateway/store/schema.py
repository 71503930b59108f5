"""The tables, as the code queries them. Alembic's revisions make them; a test keeps the two the same."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

METADATA = MetaData()

SANDBOXES = Table(
    "sandboxes",
    METADATA,
    Column("sandbox_id", Text, primary_key=True),
    Column("language", Text, nullable=False),
    Column("create_time_ns", BigInteger, nullable=False),
    Column("cpu_millis", BigInteger, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("pids", BigInteger, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("plan_key", Text, nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("lock_digest", Text, nullable=False),
    Column("image", Text, nullable=False),
)

GIVEN_LOCKS = Table(
    "given_locks",
    METADATA,
    Column("sandbox_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    ForeignKeyConstraint(["sandbox_id"], ["sandboxes.sandbox_id"], name="fk_given_locks_sandbox", ondelete="CASCADE"),
)

EXECS = Table(
    "execs",
    METADATA,
    Column("sandbox_id", Text, primary_key=True),
    Column("exec_id", Text, primary_key=True),
    Column("request", LargeBinary, nullable=False),
    Column("digest", Text, nullable=False),
    Column("create_time_ns", BigInteger, nullable=False),
    Column("phase", Integer, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("end_time_ns", BigInteger, nullable=False),
    Column("ended", LargeBinary, nullable=False),
    Column("failure", LargeBinary, nullable=False),
    Column("ecosystem", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("plan", LargeBinary, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("run", Integer, nullable=False),
    Column("added", Text, nullable=False),
    Column("last_end", LargeBinary, nullable=False),
    Column("importable", Text, nullable=False),
    ForeignKeyConstraint(["sandbox_id"], ["sandboxes.sandbox_id"], name="fk_execs_sandbox", ondelete="CASCADE"),
    Index("ix_execs_end_time", "end_time_ns"),
    Index("ix_execs_create_time", "sandbox_id", "create_time_ns", "exec_id"),
)

EXEC_EVENTS = Table(
    "exec_events",
    METADATA,
    Column("sandbox_id", Text, primary_key=True),
    Column("exec_id", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("payload", LargeBinary, nullable=False),
    ForeignKeyConstraint(
        ["sandbox_id", "exec_id"],
        ["execs.sandbox_id", "execs.exec_id"],
        name="fk_exec_events_exec",
        ondelete="CASCADE",
    ),
)

ENVIRONMENTS = Table(
    "environments",
    METADATA,
    Column("sandbox_id", Text, primary_key=True),
    Column("ecosystem", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("create_time_ns", BigInteger, nullable=False),
    Column("present", Boolean, nullable=False),
    Column("lock_digest", Text, nullable=False),
    Column("switch_time_ns", BigInteger, nullable=False),
    ForeignKeyConstraint(["sandbox_id"], ["sandboxes.sandbox_id"], name="fk_environments_sandbox", ondelete="CASCADE"),
)

ADDITIONS = Table(
    "additions",
    METADATA,
    Column("sandbox_id", Text, primary_key=True),
    Column("program", Text, primary_key=True),
    Column("added", Text, nullable=False),
    ForeignKeyConstraint(["sandbox_id"], ["sandboxes.sandbox_id"], name="fk_additions_sandbox", ondelete="CASCADE"),
)

ANSWERS = Table(
    "answers",
    METADATA,
    Column("sandbox_id", Text, primary_key=True),
    Column("ecosystem", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    ForeignKeyConstraint(["sandbox_id"], ["sandboxes.sandbox_id"], name="fk_answers_sandbox", ondelete="CASCADE"),
)

LOCKS = Table(
    "locks",
    METADATA,
    Column("sandbox_id", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("lock", LargeBinary, nullable=False),
    Column("native_lock", LargeBinary, nullable=False),
    Column("native_lock_name", Text, nullable=False),
    ForeignKeyConstraint(["sandbox_id"], ["sandboxes.sandbox_id"], name="fk_locks_sandbox", ondelete="CASCADE"),
)

INVENTORIES = Table(
    "inventories",
    METADATA,
    Column("sandbox_id", Text, primary_key=True),
    Column("ecosystem", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    ForeignKeyConstraint(["sandbox_id"], ["sandboxes.sandbox_id"], name="fk_inventories_sandbox", ondelete="CASCADE"),
)
