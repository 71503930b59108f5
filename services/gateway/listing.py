"""Lists of execs, in pages that no message is too small for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.packing import pack_exec
from services.gateway.store.port import ExecRecord, Store
from services.rpc.errors import invalid_argument

# Ends may carry long words: a page is full when it has so many bytes, too.
_PAGE_BYTES: Final = 1 << 20
_ROWS_AT_ONCE: Final = 50


async def list_execs(
    store: Store, request: pb.ListExecsRequest, ended: Mapping[str, ExecRecord]
) -> pb.ListExecsResponse:
    """One page. A page's token is the id of its last exec.

    `ended` are those of whose end the store may not know yet, by id.

    Raises:
        QilaError: INVALID_ARGUMENT, the token names no exec of this sandbox.
    """
    wanted = checks.page_size_of(request.page_size)
    before = await _place_of(store, request.sandbox_id, request.page_token)
    response = pb.ListExecsResponse()
    size = 0
    while True:
        left = wanted - len(response.execs)
        # One more than asked for tells whether there is more.
        rows = await store.list_execs(
            request.sandbox_id, before=before, limit=min(left, _ROWS_AT_ONCE) + 1, running_only=request.running_only
        )
        for row in rows:
            newest = ended.get(row.exec_id, row)
            before = (row.create_time_ns, row.exec_id)
            if request.running_only and newest.end_time_ns:
                continue
            if len(response.execs) == wanted or size > _PAGE_BYTES:
                response.next_page_token = response.execs[-1].id
                return response
            response.execs.append(pack_exec(newest))
            size += len(newest.ended)
        if len(rows) <= min(left, _ROWS_AT_ONCE):
            return response


async def _place_of(store: Store, sandbox_id: str, token: str) -> tuple[int, str] | None:
    if not token:
        return None
    record = await store.exec(sandbox_id, token)
    if record is None:
        message = "page_token: must be the next_page_token of an answer about this sandbox"
        raise invalid_argument("FIELD_INVALID", message, field="page_token")
    return record.create_time_ns, record.exec_id
