"""Inventories of what programs install by themselves: taken once for each state of a directory, before a run begins.

An earlier exec's SBOM stays what it was, so none is dropped: beyond a bound no more are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from google.protobuf.duration_pb2 import Duration

from qila.executor.v1 import executor_pb2 as executor
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.convert import SandboxLostError
from services.gateway.live import LiveExec
from services.gateway.ports import ExecutorPort
from services.gateway.stepping import run_to_end
from services.gateway.store.port import MAX_INVENTORY_BYTES, InventoryKey, Store
from services.rpc.errors import QilaError

_LOG: Final = structlog.get_logger("services.gateway")
_MAX_BYTES: Final = 16 << 20
_SECONDS: Final = 60


class UnmanagedInventories:
    """Takes inventories as the program's user, and keeps them."""

    def __init__(self, executor_port: ExecutorPort, store: Store, patience: float) -> None:
        self._executor = executor_port
        self._store = store
        self._patience = patience

    async def keys(
        self, live: LiveExec, plans: Sequence[resolver.Plan], directories: Sequence[executor.UnmanagedDirectory]
    ) -> tuple[tuple[InventoryKey, ...], bool]:
        """Keys of the inventories of those directories that the plans can list, and whether all could be taken."""
        ways = {item.path: (plan.ecosystem, list(item.argv)) for plan in plans for item in plan.unmanaged}
        keys: list[InventoryKey] = []
        # Plans that can list no such place at all leave it unknown what is there.
        complete = bool(ways) or not directories
        for number, directory in enumerate(item for item in directories if item.path in ways):
            ecosystem, argv = ways[directory.path]
            key = InventoryKey(ecosystem=ecosystem, path=directory.path, digest=directory.digest)
            if await self._store.has_inventory(live.sandbox_id, key) or await self._take(live, key, number, argv):
                keys.append(key)
            else:
                complete = False
        return tuple(keys), complete

    async def _take(self, live: LiveExec, key: InventoryKey, number: int, argv: list[str]) -> bool:
        """Whether it could be taken: a directory that cannot be listed keeps no program from running."""
        spec = executor.ProcessSpec(
            argv=argv,
            user=executor.USER_PROGRAM,
            timeout=Duration(seconds=_SECONDS),
            output_limit_bytes=_MAX_BYTES,
            end_at_output_limit=True,
        )
        process_id = f"{live.exec_id}.unmanaged-{number}{live.suffix}"
        request = executor.RunProcessRequest(sandbox_id=live.sandbox_id, process_id=process_id, spec=spec)
        content = bytearray()

        def take(output: executor.Output) -> None:
            if output.stream == executor.STREAM_STDOUT:
                content.extend(output.data)

        try:
            ended = await run_to_end(self._executor, request, take, patience=self._patience)
        except asyncio.CancelledError:
            if live.cancel_requested:
                await self._stop(live.sandbox_id, process_id)
            raise
        except (QilaError, SandboxLostError) as error:
            _LOG.warning("unmanaged_not_listed", sandbox_id=live.sandbox_id, path=key.path, error=str(error))
            return False
        if ended.WhichOneof("end") != "exited" or ended.exited:
            _LOG.warning("unmanaged_not_listed", sandbox_id=live.sandbox_id, path=key.path, end=str(ended)[:500])
            return False
        kept = await self._store.add_inventory(live.sandbox_id, key, bytes(content))
        if not kept:
            _LOG.warning("unmanaged_not_kept", sandbox_id=live.sandbox_id, path=key.path, limit=MAX_INVENTORY_BYTES)
        return kept

    async def _stop(self, sandbox_id: str, process_id: str) -> None:
        try:
            await self._executor.cancel_process(sandbox_id, process_id)
        except QilaError as error:
            _LOG.info("inventory_not_cancelled", process_id=process_id, error=str(error))
