"""An index by which a sandbox's execs are listed, newest first."""

from __future__ import annotations

from alembic import op

revision = "0004_exec_list"
down_revision = "0003_locks_and_runs"


def upgrade() -> None:
    """Adds the index."""
    op.create_index("ix_execs_create_time", "execs", ["sandbox_id", "create_time_ns", "exec_id"])
