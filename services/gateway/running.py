"""Takes one exec through its phases: plans it, has installed what it needs, runs it, and perhaps runs it again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

import structlog

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway import checks
from services.gateway.board import InstallBoard
from services.gateway.config import ConductorConfig
from services.gateway.convert import InstallFailedError, SandboxLostError, ended_by_process, notices, plan_made
from services.gateway.environments import Environments
from services.gateway.importable import CurrentLocks, Importable
from services.gateway.imports import ImportChecker, StderrTail, explain_run
from services.gateway.installing import InstallPorts
from services.gateway.live import LiveExec
from services.gateway.patience import Events, patiently, unbroken
from services.gateway.planning import Planner, Resolution, without_staged
from services.gateway.unmanaged import UnmanagedInventories
from services.rpc.errors import ErrorCode, QilaError

_LOG: Final = structlog.get_logger("services.gateway")
_MAX_RERUNS: Final = 3
_MAX_ADDED: Final = 64
_MAX_QUESTIONS: Final = 3


class NothingAddedError(Exception):
    """What a run showed to be missing changes nothing about the plan: to run again would be the same again."""


class Runner:
    """The phases of execs, whatever their outcome."""

    def __init__(
        self, ports: InstallPorts, board: InstallBoard, current: CurrentLocks, config: ConductorConfig
    ) -> None:
        self._executor = ports.executor
        self._resolver = ports.resolver
        self._store = ports.store
        self._config = config
        self._board = board
        self._planner = Planner(ports.executor, ports.resolver, ports.store, install_scripts=config.install_scripts)
        self._environments = Environments(ports, board, current, self._planner)
        self._checker = ImportChecker(ports.store)
        self._unmanaged = UnmanagedInventories(ports.executor, ports.store, config.patience)

    async def outcome(self, live: LiveExec) -> pb.ExecEnded:
        """How the exec ends, when it has."""
        try:
            return await self._runs(live)
        except asyncio.CancelledError:
            # The gateway's own end comes as a cancellation of this task, the client's as one of the preparation.
            if live.cancel_requested and live.preparing is not None and live.preparing.cancelled():
                live.preparing = None
                return pb.ExecEnded(cancelled=pb.Cancelled())
            raise
        except NothingAddedError:
            return _last_end(live)
        except (InstallFailedError, SandboxLostError, QilaError) as error:
            if isinstance(error, InstallFailedError) and not error.beside and live.added and not live.run:
                # What earlier execs lacked may be what cannot be installed any more.
                await self._remember(live, "")
            return _end_of_failure(live, error)

    async def _runs(self, live: LiveExec) -> pb.ExecEnded:
        while True:
            plan = await self._planned(live)
            if live.cancel_requested and not live.recovered:
                return pb.ExecEnded(cancelled=pb.Cancelled())
            tail = StderrTail(live.request)
            end = ended_by_process(await self._run(live, _spec(live, plan), tail), live.run)
            live.end_is_kept = True
            if plan is None:
                return end
            end.missing_imports.extend(await explain_run(self._resolver, plan, end, tail.data))
            added = _to_add(live, end)
            if not added:
                return end
            live.end_is_kept = False
            if live.cancel_requested:
                return pb.ExecEnded(cancelled=pb.Cancelled())
            await live.begin_run([*live.added, *added], end)

    async def _planned(self, live: LiveExec) -> resolver.Plan | None:
        """The plan of a program, after what it needs is installed; None for a command."""
        if live.request.HasField("command"):
            return None
        if live.journal.record.phase == pb.PHASE_RUN:
            return resolver.Plan.FromString(live.journal.record.plan)
        live.preparing = asyncio.create_task(self._prepare(live))
        plan: resolver.Plan = await live.preparing
        live.preparing = None
        return plan

    async def _prepare(self, live: LiveExec) -> resolver.Plan:
        if live.cancel_requested:
            raise asyncio.CancelledError
        resolution = await self._answered(live)
        plan = resolution.plan
        facts: dict[str, Any] = {
            "ecosystem": plan.ecosystem,
            "fingerprint": plan.fingerprint,
            "plan": without_staged(plan).SerializeToString(),
        }
        installed = await self._environments.ready(live, resolution, facts)
        plans = [plan, *(other.plan for other in resolution.others)]
        keys, complete = await self._unmanaged.keys(live, plans, resolution.survey.summary.unmanaged)
        locked = tuple(item for item in installed if item.digest)
        importable = Importable(
            projects=locked if live.request.install_all else (),
            locks=tuple(dict.fromkeys(item.digest for item in locked)),
            inventories=keys,
            unmanaged_unknown=not complete,
        )
        checked = await self._checker.check(live.sandbox_id, plan, installed[0].digest)
        if checked is not None:
            live.journal.append(checked)
        if live.run:
            await self._remember(live, live.journal.record.added)
        await live.begin(pb.PHASE_RUN, importable=importable.to_text(), **facts)
        return plan

    async def _answered(self, live: LiveExec) -> Resolution:
        """A plan that can be made whole, after what it depends on was found out in the sandbox."""
        for _ in range(_MAX_QUESTIONS):
            resolution = await self._resolve(live)
            if not resolution.questions:
                return resolution
            await self._environments.answer(live, resolution)
        resolution = await self._resolve(live)
        if resolution.questions:
            message = "what the build declares changed again and again while it was looked at; repeat the call"
            raise QilaError(ErrorCode.ABORTED, "WORKSPACE_CHANGED", message)
        return resolution

    async def _resolve(self, live: LiveExec) -> Resolution:
        """A plan, told; nobody installs another environment in the sandbox when this returns."""
        sandbox = await self._store.sandbox(live.sandbox_id)
        if sandbox is None:
            raise checks.no_such_sandbox(live.sandbox_id)
        if live.request.install_missing and not live.run:
            # So that no exec but the first has to fail to learn it.
            added = await self._store.additions(live.sandbox_id, self._planner.program_key(live.request))
            await live.journal.flush(added=added)
        patience = self._config.patience if live.recovered or live.run else 0
        resolution = await patiently(lambda: self._planner.resolve(sandbox, live.request, live.added), patience)
        plan, record = resolution.plan, live.journal.record
        if live.run and record.phase == pb.PHASE_RESOLVE and plan.fingerprint == record.fingerprint:
            raise NothingAddedError
        while not resolution.installed and await self._board.wait_for_other(live.sandbox_id, plan):
            survey = await patiently(lambda: self._executor.survey(live.sandbox_id), self._config.patience)
            found = await self._planner.standing(live.sandbox_id, plan, survey)
            resolution = replace(found, others=resolution.others)
        if not resolution.questions and (record.fingerprint != plan.fingerprint or not record.plan):
            _tell(live, resolution, _argv(live.request.program, plan))
            for other in resolution.others:
                _tell(live, other, ())
        return resolution

    async def _remember(self, live: LiveExec, added: str) -> None:
        await self._store.save_additions(live.sandbox_id, self._planner.program_key(live.request), added)

    async def _run(self, live: LiveExec, spec: executor.ProcessSpec, tail: StderrTail) -> executor.ProcessEnded:
        def open_events(position: executor.Offsets) -> Events:
            request = executor.RunProcessRequest(sandbox_id=live.sandbox_id, process_id=live.process_id, spec=spec)
            getattr(request, "from").CopyFrom(position)
            return self._executor.run_process(request)

        # The process of a further run is Qila's own to start again.
        begun = live.recovered or bool(live.run)
        events = unbroken(open_events, executor.Offsets(), self._config.patience, begun=begun)
        async with aclosing(events):
            async for event in events:
                match event.WhichOneof("event"):
                    case "output":
                        live.ring.append(event.output)
                        tail.take(event.output)
                    case "ended":
                        return event.ended
                    case _:
                        live.started.add(live.run)
                        live.bell.ring()
                        if live.cancel_requested:
                            await self._cancel(live)
        raise SandboxLostError("the executor ended the process without saying how")

    async def _cancel(self, live: LiveExec) -> None:
        """Carries out what the client was told already; an executor that does not answer now must not lose it."""
        await patiently(lambda: self._executor.cancel_process(live.sandbox_id, live.process_id), self._config.patience)


def _tell(live: LiveExec, resolution: Resolution, argv: Sequence[str]) -> None:
    live.journal.append(plan_made(resolution.plan, argv, installed=resolution.installed))
    for notice in notices(resolution.plan):
        live.journal.append(notice)


def _spec(live: LiveExec, plan: resolver.Plan | None) -> executor.ProcessSpec:
    command = live.request.command
    if plan is None:
        return live.process_spec(list(command.argv), {}, command.working_directory)
    program = live.request.program
    directory = program.working_directory or plan.launch.working_directory
    return live.process_spec(_argv(program, plan), dict(plan.launch.env), directory)


def _argv(program: pb.Program, plan: resolver.Plan) -> list[str]:
    """The command; in a directory of the client's choice the program's file is found by its full path."""
    argv = list(plan.launch.argv)
    if program.working_directory and program.file and not program.command:
        home = "/".join(filter(None, ("/sandbox", plan.launch.working_directory)))
        argv = [f"{home}/{word}" if word == program.file else word for word in argv]
    return [*argv, *program.args]


def _to_add(live: LiveExec, end: pb.ExecEnded) -> list[str]:
    """What the next run is to have in addition; empty if there is none."""
    if not live.request.install_missing or live.run >= _MAX_RERUNS:
        return []
    suggestions = dict.fromkeys(item.suggestion for item in end.missing_imports if item.suggestion)
    return [name for name in suggestions if name not in live.added][: _MAX_ADDED - len(live.added)]


def _last_end(live: LiveExec) -> pb.ExecEnded:
    """How the run before this one ended."""
    return pb.ExecEnded.FromString(live.journal.record.last_end)


def _end_of_failure(live: LiveExec, error: Exception) -> pb.ExecEnded:
    """How an exec ends that an error stopped; one that never began keeps the error for a status."""
    match error:
        case InstallFailedError():
            failed = pb.InstallFailed(
                reason=error.reason, detail=error.detail, hints=error.hints, project=error.project
            )
            last = _last_end(live)
            return pb.ExecEnded(
                install_failed=failed,
                length=last.length if live.run else None,
                missing_imports=last.missing_imports,
            )
        case QilaError() if not live.started and not (live.recovered and error.code is ErrorCode.NOT_FOUND):
            live.failure = error
            return pb.ExecEnded(plan_failed=pb.PlanFailed(reason=error.reason, detail=error.message))
        case QilaError() if _between_runs(live) and error.code is not ErrorCode.NOT_FOUND:
            notice = pb.Notice(code="NOT_RUN_AGAIN", message=f"what was missing could not be added: {error.message}")
            live.journal.append(pb.ExecEvent(notice=notice))
            return _last_end(live)
        case QilaError():
            return pb.ExecEnded(sandbox_lost=pb.SandboxLost(detail=error.message))
        case _:
            return pb.ExecEnded(sandbox_lost=pb.SandboxLost(detail=str(error)))


def _between_runs(live: LiveExec) -> bool:
    return live.run > 0 and live.journal.record.phase < pb.PHASE_RUN
