"""The RESOLVE phase: survey, and a plan for what the workspace holds now."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
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
# What is kept of a plan: a PlanResponse. Earlier versions of Qila kept a Plan.
_KEPT_FORMAT: Final = b"2"
_RECENT_PLANS: Final = 512
_MAX_RECENT_PLAN_BYTES: Final = 128 << 10


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """A plan, and how the sandbox stands to it. `lock_digest` is empty if nothing is installed for it.

    `others` are those of the workspace's other projects, where all are to be installed.
    """

    plan: resolver.Plan
    survey: Survey
    installed: bool
    lock_digest: str
    others: tuple[Resolution, ...] = ()

    @property
    def all_installed(self) -> bool:
        """Whether there is nothing to install for any project."""
        return self.installed and all(other.installed for other in self.others)

    @property
    def questions(self) -> tuple[resolver.Plan, ...]:
        """The plans that cannot be made before their steps have left an answer."""
        return tuple(item.plan for item in (self, *self.others) if item.plan.preliminary)


class RecentPlans:
    """Serialised plans, in memory: a sandbox's record has the last one alone, and programs are run in turn."""

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def of(self, sandbox_id: str, key: str) -> bytes | None:
        """The plan that was made for this key."""
        plan = self._plans.get((sandbox_id, key))
        if plan is not None:
            self._plans.move_to_end((sandbox_id, key))
        return plan

    def keep(self, sandbox_id: str, key: str, plan: bytes) -> None:
        """Keeps a plan, unless it is large, and forgets the one that was not asked for the longest time."""
        if len(plan) > _MAX_RECENT_PLAN_BYTES:
            return
        self._plans[sandbox_id, key] = plan
        if len(self._plans) > _RECENT_PLANS:
            self._plans.popitem(last=False)


class Planner:
    """Makes plans; an unchanged workspace gets its last ones without the resolver's help."""

    def __init__(
        self, executor_port: ExecutorPort, resolver_port: ResolverPort, store: Store, *, install_scripts: bool
    ) -> None:
        self._executor = executor_port
        self._resolver = resolver_port
        self._store = store
        self._install_scripts = install_scripts
        self._recent = RecentPlans()

    async def resolve(self, sandbox: SandboxRecord, request: pb.ExecRequest, added: Sequence[str] = ()) -> Resolution:
        """Surveys the workspace and plans the program.

        Args:
            sandbox: the one that it runs in.
            request: names the program and what is wanted beside it.
            added: requirements that earlier runs of it showed to be missing.

        Raises:
            QilaError: as the executor and the resolver said; the program was not started.
        """
        survey = await self._executor.survey(sandbox.sandbox_id, _surveyed(sandbox.plan_key))
        header = self._header(sandbox, request, added, survey.summary)
        key = _plan_key(header, survey.summary.digest, sandbox.lock_digest)
        kept = sandbox.plan if key == sandbox.plan_key else self._recent.of(sandbox.sandbox_id, key)
        if kept is not None:
            plans = resolver.PlanResponse.FromString(kept)
            found = await self._standing_of_all(sandbox.sandbox_id, plans, survey)
            if found.all_installed:
                return found
        if survey.summary.unchanged:
            # Something else is asked of the same files, or what they need is gone: now the entries are wanted.
            survey = await self._executor.survey(sandbox.sandbox_id)
            header = self._header(sandbox, request, added, survey.summary)
            key = _plan_key(header, survey.summary.digest, sandbox.lock_digest)
        made = await self._plan(sandbox, header, survey)
        if _preliminary(made):
            return await self._standing_of_all(sandbox.sandbox_id, made, survey)
        kept = resolver.PlanResponse(
            plan=without_staged(made.plan), projects=[without_staged(item) for item in made.projects]
        ).SerializeToString()
        await self._store.save_plan(sandbox.sandbox_id, key, kept)
        self._recent.keep(sandbox.sandbox_id, key, kept)
        return await self._standing_of_all(sandbox.sandbox_id, made, survey)

    async def _standing_of_all(self, sandbox_id: str, plans: resolver.PlanResponse, survey: Survey) -> Resolution:
        found = await self.standing(sandbox_id, plans.plan, survey)
        others = [await self.standing(sandbox_id, item, survey) for item in plans.projects]
        return replace(found, others=tuple(others))

    async def standing(self, sandbox_id: str, plan: resolver.Plan, survey: Survey) -> Resolution:
        """Whether there is nothing to install: an unrecorded marker is void, a record without its marker too."""
        marked = {(item.ecosystem, item.fingerprint) for item in survey.summary.environments}
        digest = ""
        if plan.fingerprint and (plan.ecosystem, plan.fingerprint) in marked:
            digest = await self._store.present_lock(sandbox_id, plan.ecosystem, plan.fingerprint)
        installed = bool(digest) or not plan.fingerprint
        return Resolution(plan=plan, survey=survey, installed=installed, lock_digest=digest)

    def program_key(self, request: pb.ExecRequest) -> str:
        """Names a program and what is wanted beside it, whatever the workspace holds."""
        header = resolver.PlanHeader(target=_target(request.program, ""), options=self._options(request, ()))
        return hashlib.sha256(header.SerializeToString(deterministic=True)).hexdigest()

    def _header(
        self, sandbox: SandboxRecord, request: pb.ExecRequest, added: Sequence[str], summary: executor.SurveySummary
    ) -> resolver.PlanHeader:
        return resolver.PlanHeader(
            target=_target(request.program, sandbox.language),
            toolchains=summary.toolchains,
            package_policy=summary.package_policy,
            registry_urls=summary.registry_urls,
            options=self._options(request, added),
            all_projects=request.install_all,
        )

    def _options(self, request: pb.ExecRequest, added: Sequence[str]) -> resolver.PlanOptions:
        return resolver.PlanOptions(
            install_missing=request.install_missing,
            no_detection=request.no_detection,
            added=added,
            extras=request.extras,
            groups=request.groups,
            no_install_scripts=not self._install_scripts,
        )

    async def _plan(self, sandbox: SandboxRecord, header: resolver.PlanHeader, survey: Survey) -> resolver.PlanResponse:
        files = [resolver.WorkspaceFile(path=entry.path, size=entry.size) for entry in survey.entries]
        selected = await self._resolver.select_files(header.target, files)
        header.workspace_paths.extend(file.path for file in files)
        header.images.extend(
            resolver.Image(name=image.name, toolchains=image.toolchains) for image in await self._executor.list_images()
        )
        for ecosystem, lock in (await self._previous_locks(sandbox.sandbox_id)).items():
            header.previous_locks[ecosystem] = lock
        given = await self._store.given_lock(sandbox.sandbox_id) if sandbox.lock_digest else None
        if given is not None:
            header.given_lock.name, header.given_lock.content = given.name, given.content
        made = await self._made(sandbox.sandbox_id, header, selected.paths)
        while await self._add_answers(sandbox.sandbox_id, header, made):
            made = await self._made(sandbox.sandbox_id, header, selected.paths)
        made.plan.notices.extend(selected.notices)
        return made

    async def _made(self, sandbox_id: str, header: resolver.PlanHeader, paths: Sequence[str]) -> resolver.PlanResponse:
        contents = self._contents(sandbox_id, list(paths))
        if header.all_projects:
            return await self._resolver.plan_all(header, contents)
        return resolver.PlanResponse(plan=await self._resolver.plan(header, contents))

    async def _add_answers(self, sandbox_id: str, header: resolver.PlanHeader, made: resolver.PlanResponse) -> bool:
        """Puts what is known of preliminary plans' questions into the header; whether there was something new."""
        begin = len(header.answers)
        for plan in _preliminary(made):
            content = await self._store.answer(sandbox_id, plan.ecosystem, plan.fingerprint)
            if content is not None:
                header.answers[plan.fingerprint] = content
        return len(header.answers) > begin

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


def _preliminary(made: resolver.PlanResponse) -> list[resolver.Plan]:
    return [plan for plan in (made.plan, *made.projects) if plan.preliminary]


def without_staged(plan: resolver.Plan) -> resolver.Plan:
    """The plan as it is kept: what an install alone needs is left out."""
    kept = resolver.Plan()
    kept.CopyFrom(plan)
    del kept.staged[:]
    del kept.lock_lines[:]
    return kept


def _target(program: pb.Program, language: str) -> resolver.Target:
    """Without the arguments: they go to the program alone and decide nothing about the plan."""
    return resolver.Target(
        file=program.file,
        module=program.module,
        script=program.script,
        command=program.command,
        language=language,
        required_language=program.language,
    )


def _plan_key(header: resolver.PlanHeader, survey_digest: str, lock_digest: str) -> str:
    """Of all that a plan is made from; begins with the survey's digest, which `_surveyed` finds in it."""
    parts = [_KEPT_FORMAT, lock_digest.encode(), header.SerializeToString(deterministic=True)]
    return survey_digest + ":" + hashlib.sha256(b"\0".join(parts)).hexdigest()


def _surveyed(plan_key: str) -> str:
    """The digest of the survey that the plan was made from; empty if the key does not tell it."""
    digest, _, rest = plan_key.partition(":")
    return digest if rest else ""
