"""Messages of the wire to the core's words and back, and the core's errors to the wire's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qila.resolver.v1 import resolver_pb2 as pb
from services.resolver import errors
from services.resolver.model import (
    FailureReason,
    InstallReport,
    InstallStage,
    Notice,
    NoticeKind,
    Options,
    Plan,
    SelectionProblem,
    Source,
    StepKind,
    Target,
)
from services.resolver.workers import WorkerCrashedError, WorkerTimeoutError
from services.rpc.errors import (
    QilaError,
    deadline_exceeded,
    failed_precondition,
    internal,
    invalid_argument,
    resource_exhausted,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.resolver.model import ImportFinding

SOURCES = {
    Source.LOCK: pb.PLAN_SOURCE_LOCK,
    Source.MANIFEST: pb.PLAN_SOURCE_MANIFEST,
    Source.DETECTED: pb.PLAN_SOURCE_DETECTED,
    Source.NONE: pb.PLAN_SOURCE_NONE,
}
STEP_KINDS = {StepKind.SOLVE: pb.STEP_KIND_SOLVE, StepKind.INSTALL: pb.STEP_KIND_INSTALL}
STEPS_OF_WIRE = {number: kind for kind, number in STEP_KINDS.items()}
STAGES = {
    InstallStage.RESOLVING: pb.INSTALL_STAGE_RESOLVING,
    InstallStage.DOWNLOADING: pb.INSTALL_STAGE_DOWNLOADING,
    InstallStage.BUILDING: pb.INSTALL_STAGE_BUILDING,
    InstallStage.INSTALLING: pb.INSTALL_STAGE_INSTALLING,
}
ACTIONS = {
    "downloading": pb.PACKAGE_ACTION_DOWNLOADING,
    "building": pb.PACKAGE_ACTION_BUILDING,
    "installed": pb.PACKAGE_ACTION_INSTALLED,
}
REASONS = {
    FailureReason.NOT_FOUND: pb.INSTALL_FAILURE_REASON_NOT_FOUND,
    FailureReason.NO_SOLUTION: pb.INSTALL_FAILURE_REASON_NO_SOLUTION,
    FailureReason.BUILD_FAILED: pb.INSTALL_FAILURE_REASON_BUILD_FAILED,
    FailureReason.NETWORK_DENIED: pb.INSTALL_FAILURE_REASON_NETWORK_DENIED,
    FailureReason.POLICY_DENIED: pb.INSTALL_FAILURE_REASON_POLICY_DENIED,
    FailureReason.TIMED_OUT: pb.INSTALL_FAILURE_REASON_TIMED_OUT,
    FailureReason.OUT_OF_SPACE: pb.INSTALL_FAILURE_REASON_OUT_OF_SPACE,
}
INVALID: Mapping[type[Exception], str] = {
    errors.ManifestError: "MANIFEST_INVALID",
    errors.ManifestTooLargeError: "MANIFEST_TOO_LARGE",
    errors.TargetNotFoundError: "TARGET_NOT_FOUND",
    errors.TargetAmbiguousError: "TARGET_AMBIGUOUS",
    errors.TargetUnsupportedError: "TARGET_UNSUPPORTED",
    errors.UnknownEcosystemError: "ECOSYSTEM_UNKNOWN",
    errors.UnknownLanguageError: "LANGUAGE_UNKNOWN",
    errors.ToolchainMissingError: "TOOLCHAIN_MISSING",
    errors.InventoryError: "INVENTORY_INVALID",
    errors.LockError: "LOCK_INVALID",
}
WORDING = {
    NoticeKind.BROKEN_FILE: "{subject} {detail}; the rest of it was read",
    NoticeKind.ALIAS_USED: "{subject} is provided by {detail}",
    NoticeKind.NOT_ON_THIS_PLATFORM: "{subject} ({detail}) does not exist on Linux; it was not installed",
    NoticeKind.PYTHON_2_MODULE: "{subject} is a module of Python 2",
    NoticeKind.REMOVED_MODULE: "{subject} left the standard library in Python {detail}",
    NoticeKind.MANIFEST_IGNORED: "{subject} was not used: {detail}",
    NoticeKind.DYNAMIC_DEPENDENCIES: "{subject}: {detail}",
    NoticeKind.LOCK_DRIFT: "{subject} does not fit its manifest: {detail}",
    NoticeKind.LOCK_NOT_HONOURED: "{subject} of the given lock: {detail}",
    NoticeKind.SETTING_IGNORED: "{subject} was not obeyed: {detail}",
    NoticeKind.INSTALL_HINT: "the source says that {subject} is to be installed: {detail}",
    NoticeKind.UNUSED_REQUIREMENT: "{subject} is declared, and nothing that was read imports it",
    NoticeKind.NAME_CONFUSED: "{subject} is probably not what is meant: {detail}",
    NoticeKind.NAME_GENERIC: "{subject} is a name for one's own module, not of a package: {detail}",
    NoticeKind.NAME_UNKNOWN: "no package is known by the name {subject}: {detail}",
    NoticeKind.INSTALL_SCRIPTS_SKIPPED: "{subject} has install scripts, which the operator does not allow: {detail}",
    NoticeKind.PROJECTS_LEFT_OUT: "{subject} was not installed: {detail}",
}


def target_of(message: pb.Target) -> Target:
    """The target of a request."""
    return Target(
        program=message.file,
        args=tuple(message.args),
        language=message.language,
        module=message.module,
        script=message.script,
        command=tuple(message.command),
        required_language=message.required_language,
    )


def options_of(message: pb.PlanOptions) -> Options:
    """The options of a request."""
    return Options(
        install_missing=message.install_missing,
        detect=not message.no_detection,
        added=tuple(message.added),
        extras=tuple(message.extras),
        groups=tuple(message.groups),
        scripts=not message.no_install_scripts,
    )


def plan_message(plan: Plan) -> pb.Plan:
    """A plan for the wire."""
    return pb.Plan(
        ecosystem=plan.ecosystem,
        source=SOURCES[plan.source],
        manifests=plan.manifests,
        requirements=[
            pb.Requirement(
                specifier=requirement.specifier,
                origins=[
                    pb.Origin(path=origin.path, line=origin.line, module=origin.module, note=origin.note)
                    for origin in requirement.origins
                ],
            )
            for requirement in plan.requirements
        ],
        undeclared=missing_messages(plan.undeclared),
        unknown=missing_messages(plan.unknown),
        notices=[
            *(notice_message(notice) for notice in plan.notices),
            *(optional_message(finding) for finding in plan.optional_skipped),
        ],
        fingerprint=plan.fingerprint,
        staged=[pb.StagedFile(path=file.path, content=file.content) for file in plan.staged],
        steps=[pb.InstallStep(kind=STEP_KINDS[step.kind], argv=step.argv, env=dict(step.env)) for step in plan.steps],
        launch=pb.Launch(
            argv=plan.launch.argv, env=dict(plan.launch.env), working_directory=plan.launch.working_directory
        ),
        environment_path=plan.environment,
        native_lock_name=plan.native_lock,
        inventory_argv=plan.inventory_argv,
        compile_argv=plan.compile_argv,
        links=[pb.Link(path=link.path, directory=link.directory) for link in plan.links],
        unmanaged=[pb.UnmanagedInventory(path=item.path, argv=item.argv) for item in plan.unmanaged],
        native_lock_staged=plan.native_lock_staged,
        preliminary=plan.preliminary,
        lock_lines=[
            pb.LockLine(package=item.name, version=item.version, path=item.path, line=item.line)
            for item in plan.lock_lines
        ],
        project=plan.project,
    )


def missing_messages(findings: Sequence[ImportFinding]) -> list[pb.MissingImport]:
    """Imports that are not installed."""
    return [
        pb.MissingImport(
            module=item.module,
            path=item.path,
            line=item.line,
            suggestion=item.suggestion,
            package=item.package,
            manifest=item.manifest,
            declaration=item.declaration,
            note=item.note,
        )
        for item in findings
    ]


def notice_message(notice: Notice) -> pb.Notice:
    """A notice in words."""
    message = WORDING[notice.kind].format(subject=notice.subject, detail=notice.detail)
    if notice.kind is NoticeKind.PYTHON_2_MODULE and notice.detail:
        message += f"; in Python 3 use {notice.detail}"
    return pb.Notice(
        code=notice.kind.value.upper(), path=notice.path, line=notice.line, message=message, subject=notice.subject
    )


def optional_message(finding: ImportFinding) -> pb.Notice:
    """An import that the program can do without."""
    message = f"{finding.module} ({finding.suggestion}) is optional and was not installed"
    return pb.Notice(code="OPTIONAL_IMPORT_SKIPPED", path=finding.path, line=finding.line, message=message)


def problem_message(problem: SelectionProblem) -> pb.Notice:
    """Files that were left out."""
    others = f" and {problem.count - 1} more" if problem.count > 1 else ""
    unit = "files" if problem.kind.value == "too_many_files" else "bytes"
    message = f"{problem.path}{others} not read: the limit is {problem.limit} {unit}"
    return pb.Notice(code=problem.kind.value.upper(), path=problem.path, message=message)


def report_message(report: InstallReport) -> pb.ExplainInstallResponse:
    """What an installer's output tells; actions that the wire does not name are left out."""
    failure = report.failure
    return pb.ExplainInstallResponse(
        packages=[
            pb.PackageEvent(action=ACTIONS[event.action], name=event.name, version=event.version)
            for event in report.packages
            if event.action in ACTIONS
        ],
        stages=[
            pb.StageProgress(stage=STAGES[event.stage], done=event.done, total=event.total) for event in report.stages
        ],
        failure=pb.InstallFailure(
            reason=REASONS[failure.reason], detail=failure.detail, hints=failure.hints, packages=failure.packages
        )
        if failure
        else None,
    )


def wire_error(error: Exception) -> QilaError:
    """The wire's error for one of the core's or of the workers'."""
    if isinstance(error, WorkerTimeoutError):
        return deadline_exceeded("WORKER_TIMED_OUT", str(error))
    if isinstance(error, WorkerCrashedError) and error.resource:
        return resource_exhausted("WORKER_LIMIT", str(error), resource=error.resource)
    if isinstance(error, errors.InstallMismatchError):
        return failed_precondition("INSTALL_INCOMPLETE", str(error))
    if type(error) in INVALID:
        return invalid_argument(INVALID[type(error)], str(error), **_facts(error))
    return internal("WORKER_CRASHED", "the resolver failed on these files; its log says more")


def _facts(error: Exception) -> dict[str, str]:
    """What programs may want to know about an error beside its text."""
    if isinstance(error, errors.ManifestError):
        return {"path": error.path, "line": str(error.line), "column": str(error.column)}
    if isinstance(error, errors.LockError):
        return {"name": error.name, "line": str(error.line)}
    if isinstance(error, (errors.TargetNotFoundError, errors.TargetAmbiguousError)):
        return {"candidates": ",".join(error.candidates)}
    if isinstance(error, errors.UnknownLanguageError):
        return {"known": ",".join(error.known)}
    return {}
