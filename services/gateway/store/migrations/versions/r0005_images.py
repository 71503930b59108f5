"""The name of the image that a sandbox was made from; "default" of those that are there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_images"
down_revision = "0004_exec_list"


def upgrade() -> None:
    """Adds the column."""
    op.add_column("sandboxes", sa.Column("image", sa.Text, nullable=False, server_default="default"))
