"""The RESOLVE phase: survey, and a plan for what the workspace holds now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.ports import ExecutorPort, ResolverPort, Survey
from services.gateway.store.port import SandboxRecord, Store
from services.rpc.errors import ErrorCode, QilaError

_MAX_FILE_BYTES: Final = 2 << 20
_MAX_TOTAL_BYTES: Final = 64 << 20
_MAX_PREVIOUS_LOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """A plan, and how the sandbox stands to it."""

    plan: resolver.Plan
    survey: Survey
    installed: bool


class Planner:
    """Makes plans; an unchanged workspace gets its last one without the resolver's help."""

    def __init__(self, executor_port: ExecutorPort, resolver_port: ResolverPort, store: Store) -> None:
        self._executor = executor_port
        self._resolver = resolver_port
        self._store = store

    async def resolve(self, sandbox: SandboxRecord, program: pb.Program) -> Resolution:
        """Surveys the workspace and plans the program.

        Raises:
            QilaError: as the executor and the resolver said; the program was not started.
        """
        survey = await self._executor.survey(sandbox.sandbox_id)
        # Arguments go to the program alone: they decide nothing about the plan.
        target = resolver.Target(file=program.file, language=sandbox.language)
        key = _plan_key(survey.summary, target)
        if key == sandbox.plan_key:
            plan = resolver.Plan.FromString(sandbox.plan)
            if await self.is_installed(sandbox.sandbox_id, plan, survey):
                return Resolution(plan=plan, survey=survey, installed=True)
        plan = await self._plan(sandbox, target, survey)
        await self._store.save_plan(sandbox.sandbox_id, key, without_staged(plan).SerializeToString())
        installed = await self.is_installed(sandbox.sandbox_id, plan, survey)
        return Resolution(plan=plan, survey=survey, installed=installed)

    async def is_installed(self, sandbox_id: str, plan: resolver.Plan, survey: Survey) -> bool:
        """Whether there is nothing to install: an unrecorded marker is void, a record without its marker too."""
        if not plan.fingerprint:
            return True
        marked = {(item.ecosystem, item.fingerprint) for item in survey.summary.environments}
        if (plan.ecosystem, plan.fingerprint) not in marked:
            return False
        record = await self._store.environment(sandbox_id, plan.ecosystem, plan.fingerprint)
        return record is not None and record.present

    async def _plan(self, sandbox: SandboxRecord, target: resolver.Target, survey: Survey) -> resolver.Plan:
        files = [resolver.WorkspaceFile(path=entry.path, size=entry.size) for entry in survey.entries]
        selected = await self._resolver.select_files(target, files)
        header = resolver.PlanHeader(
            target=target,
            workspace_paths=[file.path for file in files],
            toolchains=survey.summary.toolchains,
            package_policy=survey.summary.package_policy,
            previous_locks=await self._previous_locks(sandbox.sandbox_id),
            registry_urls=survey.summary.registry_urls,
        )
        plan = await self._resolver.plan(header, self._contents(sandbox.sandbox_id, list(selected.paths)))
        plan.notices.extend(selected.notices)
        return plan

    async def _contents(self, sandbox_id: str, paths: list[str]) -> AsyncIterator[resolver.FileStart | bytes]:
        """The selected files; one that cannot be read is left out, as if it were not there."""
        if not paths:
            return
        request = executor.ReadFilesRequest(
            sandbox_id=sandbox_id,
            paths=paths,
            max_file_bytes=_MAX_FILE_BYTES,
            max_total_bytes=_MAX_TOTAL_BYTES,
            user=executor.USER_PROGRAM,
        )
        begun = -1
        async with aclosing(self._executor.read_files(request)) as responses:
            async for response in responses:
                if response.HasField("error"):
                    if begun == response.index:
                        message = f"{paths[response.index]}: it changed while it was read; repeat the call"
                        raise QilaError(ErrorCode.ABORTED, "WORKSPACE_CHANGED", message)
                    continue
                if begun != response.index:
                    begun = response.index
                    yield resolver.FileStart(path=paths[begun])
                if response.chunk:
                    yield response.chunk

    async def _previous_locks(self, sandbox_id: str) -> dict[str, bytes]:
        """The newest native lock of each ecosystem."""
        environments = await self._store.present_environments(sandbox_id)
        newest = {environment.ecosystem: environment.native_lock for environment in reversed(environments)}
        return {name: lock for name, lock in newest.items() if lock and len(lock) <= _MAX_PREVIOUS_LOCK_BYTES}


def without_staged(plan: resolver.Plan) -> resolver.Plan:
    """The plan as it is kept: what an install alone needs is left out."""
    kept = resolver.Plan()
    kept.CopyFrom(plan)
    del kept.staged[:]
    return kept


def _plan_key(summary: executor.SurveySummary, target: resolver.Target) -> str:
    toolchains = sorted(summary.toolchains.items())
    parts = [summary.digest, target.file, target.language, toolchains, summary.package_policy]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
