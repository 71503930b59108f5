"""What the steps of preliminary plans left."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_answers"
down_revision = "0005_images"


def upgrade() -> None:
    """Adds the table."""
    op.create_table(
        "answers",
        sa.Column("sandbox_id", sa.Text, primary_key=True),
        sa.Column("ecosystem", sa.Text, primary_key=True),
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.sandbox_id"], name="fk_answers_sandbox", ondelete="CASCADE"
        ),
    )
