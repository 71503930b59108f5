"""Bytes of a sandbox's workspace; 0 for those of before, which nothing bounds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_disk_limit"
down_revision = "0001"


def upgrade() -> None:
    """Adds the limit."""
    op.add_column("sandboxes", sa.Column("disk_bytes", sa.BigInteger, nullable=False, server_default="0"))
