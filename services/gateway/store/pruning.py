"""Which locks a sandbox's records can do without."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Executable, and_, case, delete, func, literal_column, select

from services.gateway.store.port import MAX_LOCK_BYTES
from services.gateway.store.schema import ENVIRONMENTS, LOCKS


def drop_locks(sandbox_id: str) -> Executable:
    """Of the locks that no present environment has, leaves the newest, as many as MAX_LOCK_BYTES have room for."""
    present = and_(ENVIRONMENTS.c.sandbox_id == sandbox_id, ENVIRONMENTS.c.present.is_(True))
    needed = LOCKS.c.digest.in_(select(ENVIRONMENTS.c.lock_digest).where(present))
    # SQLite numbers rows as they come.
    order: ColumnElement[int] = literal_column("rowid")
    newest_first = (case((needed, 0), else_=1), order.desc())
    size = func.length(LOCKS.c.lock) + func.length(LOCKS.c.native_lock)
    so_far = func.sum(size).over(order_by=newest_first).label("so_far")
    ranked = select(LOCKS.c.digest, needed.label("needed"), so_far).where(LOCKS.c.sandbox_id == sandbox_id).subquery()
    beyond = select(ranked.c.digest).where(and_(ranked.c.so_far > MAX_LOCK_BYTES, ranked.c.needed.is_(False)))
    return delete(LOCKS).where(and_(LOCKS.c.sandbox_id == sandbox_id, LOCKS.c.digest.in_(beyond)))
