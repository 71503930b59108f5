"""Has the environments of an exec installed: its program's, and where all are wanted those of the other projects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.board import InstallBoard, Turn
from services.gateway.convert import InstallFailedError
from services.gateway.importable import CurrentLocks, InstalledProject
from services.gateway.installing import InstallPorts
from services.gateway.links import is_current, switch
from services.gateway.live import LiveExec
from services.gateway.patience import patiently
from services.gateway.planning import Planner, Resolution
from services.gateway.store.port import CurrentLock


class Environments:
    """One environment after the other, so that a sandbox has one install at a time."""

    def __init__(self, ports: InstallPorts, board: InstallBoard, current: CurrentLocks, planner: Planner) -> None:
        self._ports = ports
        self._board = board
        self._current = current
        self._planner = planner

    async def ready(
        self, live: LiveExec, resolution: Resolution, facts: Mapping[str, Any]
    ) -> tuple[InstalledProject, ...]:
        """What is there when this returns, the program's first; its digest is empty if it needs nothing.

        The first project of an ecosystem has its current environment: the program's own, else the nearest to the root.

        Raises:
            InstallFailedError: one of them could not be installed.
            SandboxLostError: nobody knows.
        """
        live.environments = {other.plan.fingerprint for other in resolution.others}
        found: list[InstalledProject] = []
        led: set[str] = set()
        for number, item in enumerate((resolution, *resolution.others)):
            plan = item.plan
            leads = plan.ecosystem not in led
            # The place of a program that needs nothing stays empty.
            if plan.fingerprint or number == 0:
                led.add(plan.ecosystem)
            live.installing = plan.project
            try:
                digest = await self._ready(live, item, facts, leads=leads, stale=number > 0)
            except InstallFailedError as error:
                raise error.of_project(plan, beside=number > 0) from error
            finally:
                live.installing = ""
            found.append(
                InstalledProject(
                    project=plan.project, ecosystem=plan.ecosystem, fingerprint=plan.fingerprint, digest=digest
                )
            )
        return tuple(found)

    async def answer(self, live: LiveExec, resolution: Resolution) -> None:
        """Has the questions answered on which plans depend; what another exec asked meanwhile is not asked again.

        Raises:
            InstallFailedError: one could not be answered.
            SandboxLostError: nobody knows.
        """
        for number, plan in enumerate(resolution.questions):
            live.installing = plan.project
            try:
                await self._answer(live, plan, resolution)
            except InstallFailedError as error:
                raise error.of_project(plan, beside=number > 0 or not resolution.plan.preliminary) from error
            finally:
                live.installing = ""

    async def _answer(self, live: LiveExec, plan: resolver.Plan, resolution: Resolution) -> None:
        turn = Turn.WAITED
        while turn is Turn.WAITED:
            if await self._ports.store.answer(live.sandbox_id, plan.ecosystem, plan.fingerprint) is not None:
                return
            await live.begin(pb.PHASE_INSTALL)
            turn = await self._board.install(live, plan, resolution.survey.summary, leads=False)

    async def _ready(
        self, live: LiveExec, resolution: Resolution, facts: Mapping[str, Any], *, leads: bool, stale: bool
    ) -> str:
        """The lock's digest. `stale`: much time may have passed since the sandbox was looked at."""
        plan = resolution.plan
        if stale and not resolution.installed:
            resolution = await self._again(live, plan)
        turn: Turn | None = None
        while not resolution.installed and turn in {None, Turn.WAITED}:
            await live.begin(pb.PHASE_INSTALL, **facts)
            turn = await self._board.install(live, plan, resolution.survey.summary, leads=leads)
            if turn is Turn.WAITED:
                resolution = await self._again(live, plan)
        if not plan.fingerprint:
            return ""
        summary = resolution.survey.summary
        digest = resolution.lock_digest
        if not resolution.installed:
            digest = await self._ports.store.present_lock(live.sandbox_id, plan.ecosystem, plan.fingerprint)
        if leads and turn is not Turn.INSTALLED and not is_current(plan, summary):
            own = summary.own_directories
            await switch(self._ports.executor, live.sandbox_id, plan, own, patience=self._ports.patience)
        if leads and digest:
            lock = CurrentLock(fingerprint=plan.fingerprint, digest=digest)
            await self._current.note(live.sandbox_id, plan.ecosystem, lock)
        return digest

    async def _again(self, live: LiveExec, plan: resolver.Plan) -> Resolution:
        survey = await patiently(lambda: self._ports.executor.survey(live.sandbox_id), self._ports.patience)
        return await self._planner.standing(live.sandbox_id, plan, survey)
