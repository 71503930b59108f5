"""Which install runs in which sandbox: one at a time, shared by the execs that need the same environment."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Final

import structlog

from qila.executor.v1 import executor_pb2 as executor
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.installing import Install, InstallPorts
from services.gateway.live import LiveExec

_LOG: Final = structlog.get_logger("services.gateway")


class Turn(Enum):
    """How an exec came by an environment."""

    INSTALLED = 1
    # By an install that another exec had begun.
    JOINED = 2
    # Not at all: another environment was being installed first, and much may have changed.
    WAITED = 3


class InstallBoard:
    """Which install runs in which sandbox."""

    def __init__(self, ports: InstallPorts) -> None:
        self._ports = ports
        self._installs: dict[str, Install] = {}
        self._compiling: set[asyncio.Task[None]] = set()

    async def wait_for_other(self, sandbox_id: str, plan: resolver.Plan) -> bool:
        """Waits for an install of another environment; whether there was one to wait for."""
        install = self._installs.get(sandbox_id)
        if install is None or install.key == (plan.ecosystem, plan.fingerprint):
            return False
        await asyncio.wait([install.task])
        return True

    async def install(
        self, live: LiveExec, plan: resolver.Plan, summary: executor.SurveySummary, *, leads: bool
    ) -> Turn:
        """Joins the install of this very environment, or starts it; waits for another one's end.

        An environment that `leads` becomes its ecosystem's current one, if this starts the install.

        Raises:
            InstallFailedError: it did not succeed; the environment before it stays.
            SandboxLostError: nobody knows.
        """
        if await self.wait_for_other(live.sandbox_id, plan):
            return Turn.WAITED
        install = self._installs.get(live.sandbox_id)
        turn = Turn.INSTALLED if install is None else Turn.JOINED
        if install is None:
            install = Install(self._ports, live, plan, summary, self._compiling, leads=leads)
            self._installs[live.sandbox_id] = install
            install.task.add_done_callback(lambda task: self._done(live.sandbox_id, task))
        install.join(live)
        try:
            await asyncio.shield(install.task)
        except asyncio.CancelledError:
            if live.cancel_requested:
                await install.leave(live)
            raise
        return turn

    async def close(self) -> None:
        """Stops what runs here, without touching what runs in the sandboxes."""
        tasks = [install.task for install in self._installs.values()] + list(self._compiling)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, sandbox_id: str, task: asyncio.Task[None]) -> None:
        del self._installs[sandbox_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.info("install_failed", sandbox_id=sandbox_id, error=repr(error)[:500])
