"""From the executor's and the resolver's words to the client's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver

_SOURCES: Final = {
    resolver.PLAN_SOURCE_LOCK: "lock",
    resolver.PLAN_SOURCE_MANIFEST: "manifest",
    resolver.PLAN_SOURCE_DETECTED: "detected",
    resolver.PLAN_SOURCE_NONE: "none",
}


class InstallFailedError(Exception):
    """An install that did not succeed; `reason` is the gateway's InstallFailureReason.

    `project` is set where all projects are installed; `beside` tells that it is not the program's own.
    """

    def __init__(
        self,
        reason: pb.InstallFailureReason.ValueType,
        detail: str,
        hints: Sequence[str] = (),
        *,
        project: str = "",
        beside: bool = False,
    ) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.hints = hints
        self.project = project
        self.beside = beside

    def of_project(self, plan: resolver.Plan, *, beside: bool) -> InstallFailedError:
        """The same, which names the project of a plan if it has one."""
        if not plan.project:
            return self
        detail = f"project {plan.project} ({plan.ecosystem}): {self.detail}"
        return InstallFailedError(self.reason, detail, self.hints, project=plan.project, beside=beside)


class SandboxLostError(Exception):
    """Qila does not know how it ended."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def digest_of(request: pb.ExecRequest) -> str:
    """SHA-256 over all of a request but its exec id, and what concerns the caller's stream alone."""
    copy = pb.ExecRequest()
    copy.CopyFrom(request)
    copy.ClearField("exec_id")
    copy.ClearField("detach")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()


def phase_started(phase: pb.Phase.ValueType, run: int = 0) -> pb.ExecEvent:
    """The event of a phase's beginning."""
    return pb.ExecEvent(phase_started=pb.PhaseStarted(phase=phase, run=run))


def plan_made(plan: resolver.Plan, launch_argv: Iterable[str], *, installed: bool) -> pb.ExecEvent:
    """What the client is told of a plan."""
    return pb.ExecEvent(
        plan_made=pb.PlanMade(
            ecosystem=plan.ecosystem,
            source=_SOURCES.get(plan.source, "none"),
            manifests=plan.manifests,
            requirements=[
                pb.Requirement(specifier=item.specifier, origins=[_origin(origin) for origin in item.origins])
                for item in plan.requirements
            ],
            undeclared=[missing_import(item) for item in plan.undeclared],
            unknown=[missing_import(item) for item in plan.unknown],
            fingerprint=plan.fingerprint,
            installed=installed,
            launch_argv=launch_argv,
            project=plan.project,
        )
    )


def notices(plan: resolver.Plan) -> list[pb.ExecEvent]:
    """The plan's notices as events."""
    return [
        pb.ExecEvent(
            project=plan.project,
            notice=pb.Notice(
                code=item.code, path=item.path, line=item.line, message=item.message, subject=item.subject
            ),
        )
        for item in plan.notices
    ]


def run_output(output: executor.Output, run: int) -> pb.ExecEvent:
    """Output of the run phase: no sequence, its place is its offset."""
    return pb.ExecEvent(
        output=pb.Output(
            phase=pb.PHASE_RUN,
            # The two enumerations have the same numbers.
            stream=pb.Stream.ValueType(output.stream),
            offset=output.offset,
            data=output.data,
            run=run,
        )
    )


def stage_event(stage: resolver.StageProgress) -> pb.ExecEvent:
    """How far an install is."""
    # The two enumerations have the same numbers.
    kind = pb.InstallStage.ValueType(stage.stage)
    return pb.ExecEvent(stage=pb.StageProgress(stage=kind, done=stage.done, total=stage.total))


def package_event(package: resolver.PackageEvent) -> pb.ExecEvent:
    """Progress of one package."""
    action = pb.PackageAction.ValueType(package.action)
    return pb.ExecEvent(package=pb.PackageProgress(action=action, name=package.name, version=package.version))


def ended_by_process(ended: executor.ProcessEnded, run: int) -> pb.ExecEnded:
    """The end of a run as the end of the exec."""
    end = pb.ExecEnded(
        length=pb.OutputOffsets(
            stdout=ended.length.stdout, stderr=ended.length.stderr, terminal=ended.length.terminal, run=run
        ),
        dropped_bytes=ended.dropped_bytes,
        oom_kills=ended.oom_kills,
    )
    match ended.WhichOneof("end"):
        case "exited":
            end.exited = ended.exited
        case "signaled":
            end.signaled = ended.signaled
        case "timed_out":
            end.timed_out.phase = pb.PHASE_RUN
            end.timed_out.idle = ended.timed_out.idle
        case "oom_killed":
            end.oom_killed.SetInParent()
        case "output_limit":
            end.output_limit.SetInParent()
        case "cancelled":
            end.cancelled.SetInParent()
        case "start_failed":
            end.start_failed.error = ended.start_failed.error
            end.start_failed.detail = ended.start_failed.detail
        case _:
            end.sandbox_lost.detail = ended.sandbox_lost.detail
    return end


def _origin(origin: resolver.Origin) -> str:
    place = f"{origin.path}:{origin.line}" if origin.line else origin.path
    why = f"import {origin.module}" if origin.module else origin.note
    return f"{place} ({why})" if why else place


def missing_import(item: resolver.MissingImport, transitive_version: str = "") -> pb.MissingImport:
    """An import that nothing declares, with the version that is there because another package requires it."""
    return pb.MissingImport(
        module=item.module,
        path=item.path,
        line=item.line,
        suggestion=item.suggestion,
        manifest=item.manifest,
        declaration=item.declaration,
        note=item.note,
        transitive_version=transitive_version,
    )
