"""Runs an exec for a tool: progress while it runs, a bounded report at its end."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import Final, Protocol

import anyio

from qila.cli.render import describe_end, describe_missing, printable
from qila.client import AsyncExec, ExecResult
from qila.gateway.v1 import gateway_pb2 as pb

# What a model can be asked to read.
MAX_RESULT_BYTES: Final = 100_000
MAX_PROGRESS_BYTES: Final = 256 << 10
_CANCEL_SECONDS: Final = 10
_PHASES: Final = {pb.PHASE_RESOLVE: "resolving", pb.PHASE_INSTALL: "installing", pb.PHASE_RUN: "running"}
_ACTIONS: Final = {
    pb.PACKAGE_ACTION_DOWNLOADING: "downloading",
    pb.PACKAGE_ACTION_BUILDING: "building",
    pb.PACKAGE_ACTION_INSTALLED: "installed",
}


class Report(Protocol):
    """How progress is told: `mcp`'s Context.report_progress."""

    async def __call__(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Tells one step; the number rises."""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """How an exec ended and what it wrote; text that is no UTF-8 has replacement characters.

    `end` is "exited", "signaled", "timed_out", "oom_killed", "output_limit", "cancelled", "install_failed",
    "start_failed", "plan_failed" or "sandbox_lost"; `exit_code` is there for "exited" alone, `detail` says more of the
    others.
    """

    sandbox_id: str
    exec_id: str
    end: str
    exit_code: int | None
    stdout: str
    stderr: str
    detail: str = ""
    truncated_bytes: int = 0
    requirements: list[str] = field(default_factory=list)
    installed: list[str] = field(default_factory=list)
    missing_imports: list[str] = field(default_factory=list)


class _Progress:
    """Tells events in words; of the output its first MAX_PROGRESS_BYTES."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._count = 0
        self._left = MAX_PROGRESS_BYTES
        # A character may lie in two chunks.
        self._decoders = {
            stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in (pb.STREAM_STDOUT, pb.STREAM_STDERR)
        }

    async def show(self, event: pb.ExecEvent) -> None:
        message = self._words(event)
        if message:
            self._count += 1
            await self._report(self._count, None, message)

    def _words(self, event: pb.ExecEvent) -> str:
        match event.WhichOneof("event"):
            case "phase_started":
                return _PHASES.get(event.phase_started.phase, "")
            case "package":
                package = event.package
                words = f"{_ACTIONS.get(package.action, '')} {package.name} {package.version}"
                return printable(words.strip())
            case "stage" if event.stage.total:
                return f"{event.stage.done} of {event.stage.total} packages"
            case "output" if event.output.phase == pb.PHASE_RUN:
                return self._output(event.output)
            case _:
                return ""

    def _output(self, output: pb.Output) -> str:
        data = output.data[: self._left]
        if len(data) < len(output.data) and self._left:
            self._left = 0
            return "further output is in the result"
        self._left -= len(data)
        decoder = self._decoders.get(output.stream)
        return decoder.decode(data) if decoder else ""


async def run(execution: AsyncExec, report: Report, *, stdin: bytes = b"") -> RunReport:
    """Runs it to its end. When the caller is cancelled, so is the exec. QilaError."""
    progress, findings = _Progress(report), _Findings()

    async def seen(event: pb.ExecEvent) -> None:
        findings.take(event)
        await progress.show(event)

    async with execution:
        try:
            result = await execution.communicate(stdin, max_bytes=MAX_RESULT_BYTES, on_event=seen)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(_CANCEL_SECONDS, shield=True):
                await execution.cancel()
            raise
    return findings.report(result)


class _Findings:
    """What the events said besides the output."""

    def __init__(self) -> None:
        self._requirements: list[str] = []
        self._installed: list[str] = []

    def take(self, event: pb.ExecEvent) -> None:
        if event.HasField("plan_made"):
            self._requirements = [requirement.specifier for requirement in event.plan_made.requirements]
        if event.package.action == pb.PACKAGE_ACTION_INSTALLED:
            self._installed.append(f"{event.package.name} {event.package.version}".rstrip())

    def report(self, result: ExecResult) -> RunReport:
        return RunReport(
            sandbox_id=result.sandbox_id,
            exec_id=result.exec_id,
            end=result.ended.WhichOneof("end") or "sandbox_lost",
            exit_code=result.exit_code,
            stdout=result.stdout.decode("utf-8", "replace"),
            stderr=result.stderr.decode("utf-8", "replace"),
            detail=printable(describe_end(result.ended)),
            truncated_bytes=result.truncated_bytes + result.ended.dropped_bytes,
            requirements=self._requirements,
            installed=self._installed,
            missing_imports=[printable(describe_missing(missing)) for missing in result.ended.missing_imports],
        )
