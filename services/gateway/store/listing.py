"""The statement that lists execs in pages."""

from __future__ import annotations

from dataclasses import fields

from sqlalchemy import Select, select, tuple_

from services.gateway.store.port import ExecOutline
from services.gateway.store.schema import EXECS


def exec_page(
    sandbox_id: str,
    before: tuple[int, str] | None,
    limit: int,
    running_only: bool,  # noqa: FBT001  # as the port's
) -> Select[tuple[object, ...]]:
    """A sandbox's execs, newest first, from behind a time and an id on."""
    order = (EXECS.c.create_time_ns, EXECS.c.exec_id)
    statement = select(*[EXECS.c[field.name] for field in fields(ExecOutline)]).where(EXECS.c.sandbox_id == sandbox_id)
    if running_only:
        statement = statement.where(EXECS.c.end_time_ns == 0)
    if before is not None:
        statement = statement.where(tuple_(*order) < before)
    return statement.order_by(*[column.desc() for column in order]).limit(limit)
