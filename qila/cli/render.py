"""What a person sees of an exec: its output as exact bytes, everything else on stderr."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Final

from google.protobuf.json_format import MessageToJson
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.message import Message

_PHASES: Final = {pb.PHASE_RESOLVE: "RESOLVE", pb.PHASE_INSTALL: "INSTALL", pb.PHASE_RUN: "RUN"}
_ACTIONS: Final = {
    pb.PACKAGE_ACTION_DOWNLOADING: "downloading",
    pb.PACKAGE_ACTION_BUILDING: "building",
    pb.PACKAGE_ACTION_INSTALLED: "installed",
}
_STAGES: Final = {
    pb.INSTALL_STAGE_RESOLVING: "resolving",
    pb.INSTALL_STAGE_DOWNLOADING: "downloading",
    pb.INSTALL_STAGE_BUILDING: "building",
    pb.INSTALL_STAGE_INSTALLING: "installing",
}


def printable(text: str) -> str:
    """Without control characters: what a stranger wrote must not steer the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)


def one_line(text: str) -> str:
    """Printable text that cannot look like a line of ours: what would begin another line or column is written out."""
    return printable(text.replace("\n", "\\n").replace("\t", "\\t"))


def as_line(message: Message) -> str:
    """A message as one line of JSON."""
    return MessageToJson(message, indent=None, preserving_proto_field_name=True)


def write_document(content: bytes) -> None:
    """A document on stdout: its exact bytes for a file or a pipe, printable text for a terminal."""
    if sys.stdout.isatty():
        text = content.decode("utf-8", "replace").replace("\r\n", "\n")
        # Tabs, with which documents are indented, steer nothing.
        content = "\t".join(printable(part) for part in text.split("\t")).encode()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


class Renderer:
    """Shows events; `quiet` leaves only the program's output and how it failed.

    With `as_json` the events are shown by others, and what is said beside them is JSON.
    """

    def __init__(self, *, quiet: bool, as_json: bool = False) -> None:
        self._quiet = quiet or as_json
        self._as_json = as_json
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._phase: tuple[str, datetime] | None = None
        self._progress: tuple[Progress, TaskID] | None = None
        self._unchecked: list[pb.MissingImport] = []
        self._project = ""

    def say(self, text: str, style: str = "") -> None:
        """One line on stderr, unless quiet."""
        if not self._quiet:
            self.warn(one_line(text), style)

    def warn(self, text: str, style: str = "bold red") -> None:
        """Lines on stderr, quiet or not."""
        if self._as_json:
            sys.stderr.write(json.dumps({"warning": {"message": text}}, ensure_ascii=False) + "\n")
            return
        self._console.print(Text(printable(text), style=style))

    def show(self, event: pb.ExecEvent) -> None:
        """Shows one event."""
        self._enter(event)
        match event.WhichOneof("event"):
            case "output":
                self._output(event.output)
            case "phase_started":
                self._begin(_phase_name(event.phase_started), event.time.ToDatetime())
            case "plan_made":
                self._plan(event.plan_made)
            case "package":
                package = event.package
                self.say(f"  {_ACTIONS.get(package.action, '?')} {package.name} {package.version}".rstrip(), "cyan")
            case "stage":
                self._stage(event.stage)
            case "imports_checked":
                self._imports(event.imports_checked)
            case "notice":
                self.say(f"  {_place(event.notice)}{event.notice.message}", "yellow")
            case "ended":
                self._finish(event.time.ToDatetime())
                self._ended(event.ended)

    def _enter(self, event: pb.ExecEvent) -> None:
        """Says which project the following lines are about, where all of a workspace are installed."""
        project = event.plan_made.project or event.project
        if project and project != self._project:
            self.say(f"  project {project}", "bold")
        self._project = project or self._project

    def _output(self, output: pb.Output) -> None:
        if output.phase != pb.PHASE_RUN:
            return
        self._end_progress()
        stream = sys.stderr.buffer if output.stream == pb.STREAM_STDERR else sys.stdout.buffer
        stream.write(output.data)
        stream.flush()

    def _begin(self, name: str, time: datetime) -> None:
        self._finish(time)
        self._phase = (name, time)
        self.say(name, "bold green")

    def _stage(self, stage: pb.StageProgress) -> None:
        """A bar that moves, for a person who waits; a file keeps nothing of it."""
        if self._quiet or not self._console.is_terminal:
            return
        if self._progress is None:
            self._progress = _bar(self._console)
            self._progress[0].start()
        progress, task = self._progress
        name = _STAGES.get(stage.stage, "?")
        # Without a total the bar pulses.
        progress.update(
            task, description=f"{name:11}", completed=stage.done, total=stage.total or None, counts=_counts(stage)
        )

    def _end_progress(self) -> None:
        if self._progress is not None:
            self._progress[0].stop()
            self._progress = None

    def close(self) -> None:
        """Leaves the terminal as it was."""
        self._end_progress()

    def _imports(self, checked: pb.ImportsChecked) -> None:
        self._unchecked = []
        for missing in [*checked.missing, *checked.transitive]:
            self.say(f"  {describe_missing(missing)}", "yellow")

    def _finish(self, time: datetime) -> None:
        self._end_progress()
        if self._phase is not None:
            name, begin = self._phase
            self.say(f"{name} took {max((time - begin).total_seconds(), 0):.2f} s", "dim")
            self._phase = None

    def _plan(self, plan: pb.PlanMade) -> None:
        for requirement in plan.requirements:
            origins = f"  ({', '.join(requirement.origins[:2])})" if requirement.origins else ""
            self.say(f"  needs {requirement.specifier}{origins}")
        # Told before the run, when it is known what is installed; or at the end, if it comes to no run.
        findings = [*plan.undeclared, *plan.unknown]
        if plan.project and not plan.launch_argv:
            # Of a project beside the program's nobody asks again.
            for missing in findings:
                self.say(f"  {describe_missing(missing)}", "yellow")
        else:
            self._unchecked = findings
        if plan.installed:
            self.say("  already installed" if plan.fingerprint else "  needs nothing but what the image has")

    def _ended(self, ended: pb.ExecEnded) -> None:
        if ended.HasField("install_failed"):
            for missing in self._unchecked:
                self.say(f"  {describe_missing(missing)}", "yellow")
        for missing in ended.missing_imports:
            self.warn(one_line(f"qila: not found: {describe_missing(missing)}"), "yellow")
        if ended.dropped_bytes:
            self.warn(f"qila: {ended.dropped_bytes} bytes of output beyond the limit were dropped", "yellow")
        reason = describe_end(ended)
        if reason:
            self.warn(f"qila: {reason}")


def describe_missing(missing: pb.MissingImport) -> str:
    """An import that nothing declares, and what to do about it."""
    place = f"{missing.path}:{missing.line} imports" if missing.line else f"{missing.path} imports".lstrip()
    if missing.transitive_version:
        why = f"of which {missing.transitive_version} is there only because another package requires it"
    else:
        why = "which is not declared"
    advice = ""
    if missing.declaration:
        advice = f": add `{missing.declaration}` to {missing.manifest}"
    elif missing.suggestion:
        advice = f": {missing.suggestion} provides it"
    elif not missing.transitive_version:
        why = "for which no package is known"
    note = f" ({missing.note})" if missing.note else ""
    return f"{place} {missing.module}, {why}{advice}{note}"


def _bar(console: Console) -> tuple[Progress, TaskID]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", style="cyan", markup=False),
        BarColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
        TimeElapsedColumn(),
    )
    # The program's own output passes by it, byte for byte.
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    return progress, progress.add_task("", total=None, counts="")


def _phase_name(begun: pb.PhaseStarted) -> str:
    name = _PHASES.get(begun.phase, "?")
    return f"{name} (run {begun.run + 1})" if begun.run else name


def _counts(stage: pb.StageProgress) -> str:
    if stage.total:
        return f"{stage.done}/{stage.total}"
    return str(stage.done) if stage.done else ""


def describe_end(ended: pb.ExecEnded) -> str:  # noqa: PLR0911 - one for each way to end
    """How an exec ended, in words; empty if it exited by itself."""
    match ended.WhichOneof("end"):
        case "exited":
            return ""
        case "signaled":
            return f"killed by signal {ended.signaled}"
        case "timed_out":
            idle = ": it was idle for too long" if ended.timed_out.idle else ""
            return f"timed out in {_PHASES.get(ended.timed_out.phase, 'RUN')}{idle}"
        case "oom_killed":
            return "killed: out of memory"
        case "output_limit":
            return "killed: its output reached the limit"
        case "cancelled":
            return "cancelled"
        case "install_failed":
            failure = ended.install_failed
            name = pb.InstallFailureReason.Name(failure.reason).removeprefix("INSTALL_FAILURE_REASON_").lower()
            return "\n".join([f"install failed: {name}", failure.detail.rstrip(), *failure.hints]).rstrip()
        case "start_failed":
            return f"cannot start: {ended.start_failed.error} {ended.start_failed.detail}".rstrip()
        case "plan_failed":
            return f"cannot plan: {ended.plan_failed.reason} {ended.plan_failed.detail}".rstrip()
        case _:
            return f"the sandbox was lost: {ended.sandbox_lost.detail}".rstrip(": ")


def _place(notice: pb.Notice) -> str:
    if not notice.path:
        return ""
    return f"{notice.path}:{notice.line}: " if notice.line else f"{notice.path}: "
