"""The answers to preliminary plans, as statements."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Executable, Select, and_, delete, insert, literal_column, select

from services.gateway.store.port import MAX_ANSWERS
from services.gateway.store.schema import ANSWERS


def find_answer(sandbox_id: str, ecosystem: str, fingerprint: str) -> Select[Any]:
    """One answer's content."""
    return select(ANSWERS.c.content).where(_of(sandbox_id, ecosystem, fingerprint))


def keep_answer(sandbox_id: str, ecosystem: str, fingerprint: str, content: bytes) -> tuple[Executable, ...]:
    """Puts an answer in the place of an earlier one, and drops the oldest beyond MAX_ANSWERS."""
    # SQLite numbers rows as they come.
    order: ColumnElement[int] = literal_column("rowid")
    of_sandbox = ANSWERS.c.sandbox_id == sandbox_id
    beyond = select(order).select_from(ANSWERS).where(of_sandbox).order_by(order.desc()).offset(MAX_ANSWERS).limit(-1)
    row = {"sandbox_id": sandbox_id, "ecosystem": ecosystem, "fingerprint": fingerprint, "content": content}
    return (
        delete(ANSWERS).where(_of(sandbox_id, ecosystem, fingerprint)),
        insert(ANSWERS).values(row),
        delete(ANSWERS).where(order.in_(beyond)),
    )


def _of(sandbox_id: str, ecosystem: str, fingerprint: str) -> ColumnElement[bool]:
    table = ANSWERS.c
    return and_(table.sandbox_id == sandbox_id, table.ecosystem == ecosystem, table.fingerprint == fingerprint)
