"""Sandboxes, execs with their events, and environments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the first tables."""
    op.create_table(
        "sandboxes",
        sa.Column("sandbox_id", sa.Text, primary_key=True),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("create_time_ns", sa.BigInteger, nullable=False),
        sa.Column("cpu_millis", sa.BigInteger, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("pids", sa.BigInteger, nullable=False),
        sa.Column("plan_key", sa.Text, nullable=False),
        sa.Column("plan", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "execs",
        sa.Column("sandbox_id", sa.Text, primary_key=True),
        sa.Column("exec_id", sa.Text, primary_key=True),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("create_time_ns", sa.BigInteger, nullable=False),
        sa.Column("phase", sa.Integer, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("end_time_ns", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.LargeBinary, nullable=False),
        sa.Column("failure", sa.LargeBinary, nullable=False),
        sa.Column("ecosystem", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("plan", sa.LargeBinary, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(["sandbox_id"], ["sandboxes.sandbox_id"], name="fk_execs_sandbox", ondelete="CASCADE"),
    )
    op.create_index("ix_execs_end_time", "execs", ["end_time_ns"])
    op.create_table(
        "exec_events",
        sa.Column("sandbox_id", sa.Text, primary_key=True),
        sa.Column("exec_id", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id", "exec_id"],
            ["execs.sandbox_id", "execs.exec_id"],
            name="fk_exec_events_exec",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "environments",
        sa.Column("sandbox_id", sa.Text, primary_key=True),
        sa.Column("ecosystem", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("lock", sa.LargeBinary, nullable=False),
        sa.Column("native_lock", sa.LargeBinary, nullable=False),
        sa.Column("native_lock_name", sa.Text, nullable=False),
        sa.Column("create_time_ns", sa.BigInteger, nullable=False),
        sa.Column("present", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.sandbox_id"], name="fk_environments_sandbox", ondelete="CASCADE"
        ),
    )
