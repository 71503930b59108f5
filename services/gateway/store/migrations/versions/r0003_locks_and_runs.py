"""Locks apart from environments, given locks, inventories of what programs install by themselves, and runs.

`additions` holds what earlier runs of a program showed to be missing.
"""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003_locks_and_runs"
down_revision = "0002_disk_limit"
_LOCK_COLUMNS = ("lock", "native_lock", "native_lock_name")


def upgrade() -> None:
    """Adds the tables and columns, and moves the locks of environments into their own table."""
    op.add_column("sandboxes", sa.Column("lock_digest", sa.Text, nullable=False, server_default=""))
    op.add_column("execs", sa.Column("run", sa.Integer, nullable=False, server_default="0"))
    op.add_column("execs", sa.Column("added", sa.Text, nullable=False, server_default=""))
    op.add_column("execs", sa.Column("last_end", sa.LargeBinary, nullable=False, server_default=sa.text("x''")))
    op.add_column("execs", sa.Column("importable", sa.Text, nullable=False, server_default=""))
    op.add_column("environments", sa.Column("lock_digest", sa.Text, nullable=False, server_default=""))
    op.add_column("environments", sa.Column("switch_time_ns", sa.BigInteger, nullable=False, server_default="0"))
    _make_table("given_locks", [], [sa.Column("name", sa.Text, nullable=False), _bytes("content")])
    _make_table("inventories", ["ecosystem", "path", "digest"], [_bytes("content")])
    _make_table("additions", ["program"], [sa.Column("added", sa.Text, nullable=False)])
    names = [_bytes("lock"), _bytes("native_lock"), sa.Column("native_lock_name", sa.Text, nullable=False)]
    _make_table("locks", ["digest"], names)
    _move_locks()
    for name in _LOCK_COLUMNS:
        op.drop_column("environments", name)


def _bytes(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _make_table(name: str, keys: list[str], columns: list[sa.Column[Any]]) -> None:
    op.create_table(
        name,
        *[sa.Column(key, sa.Text, primary_key=True) for key in ["sandbox_id", *keys]],
        *columns,
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.sandbox_id"], name=f"fk_{name}_sandbox", ondelete="CASCADE"
        ),
    )


def _move_locks() -> None:
    connection = op.get_bind()
    row_ids = connection.execute(sa.text("SELECT rowid FROM environments")).scalars().all()
    for row_id in row_ids:
        of_row = {"row": row_id}
        read = "SELECT sandbox_id, lock, native_lock, native_lock_name FROM environments WHERE rowid = :row"
        found = dict(connection.execute(sa.text(read), of_row).mappings().one())
        digest = hashlib.sha256(found["lock"] + b"\0" + found["native_lock"]).hexdigest()
        write = "INSERT OR IGNORE INTO locks VALUES (:sandbox_id, :digest, :lock, :native_lock, :native_lock_name)"
        connection.execute(sa.text(write), {**found, "digest": digest})
        name = "UPDATE environments SET lock_digest = :digest WHERE rowid = :row"
        connection.execute(sa.text(name), {**of_row, "digest": digest})
