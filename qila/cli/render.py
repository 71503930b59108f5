"""What a person sees of an exec: its output as exact bytes, everything else on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from datetime import datetime

_PHASES: Final = {pb.PHASE_RESOLVE: "RESOLVE", pb.PHASE_INSTALL: "INSTALL", pb.PHASE_RUN: "RUN"}
_ACTIONS: Final = {
    pb.PACKAGE_ACTION_DOWNLOADING: "downloading",
    pb.PACKAGE_ACTION_BUILDING: "building",
    pb.PACKAGE_ACTION_INSTALLED: "installed",
}


def printable(text: str) -> str:
    """Without control characters: what a stranger wrote must not steer the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)


class Renderer:
    """Shows events; `quiet` leaves only the program's output and how it failed."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._phase: tuple[str, datetime] | None = None

    def say(self, text: str, style: str = "") -> None:
        """One line on stderr, unless quiet."""
        if not self._quiet:
            self.warn(text, style)

    def warn(self, text: str, style: str = "bold red") -> None:
        """One line on stderr, quiet or not."""
        self._console.print(Text(printable(text), style=style))

    def show(self, event: pb.ExecEvent) -> None:
        """Shows one event."""
        match event.WhichOneof("event"):
            case "output":
                self._output(event.output)
            case "phase_started":
                self._begin(_PHASES.get(event.phase_started.phase, "?"), event.time.ToDatetime())
            case "plan_made":
                self._plan(event.plan_made)
            case "package":
                package = event.package
                self.say(f"  {_ACTIONS.get(package.action, '?')} {package.name} {package.version}".rstrip(), "cyan")
            case "notice":
                self.say(f"  {_place(event.notice)}{event.notice.message}", "yellow")
            case "ended":
                self._finish(event.time.ToDatetime())
                self._ended(event.ended)

    def _output(self, output: pb.Output) -> None:
        if output.phase != pb.PHASE_RUN:
            return
        stream = sys.stdout.buffer if output.stream == pb.STREAM_STDOUT else sys.stderr.buffer
        stream.write(output.data)
        stream.flush()

    def _begin(self, name: str, time: datetime) -> None:
        self._finish(time)
        self._phase = (name, time)
        self.say(name, "bold green")

    def _finish(self, time: datetime) -> None:
        if self._phase is not None:
            name, begin = self._phase
            self.say(f"{name} took {max((time - begin).total_seconds(), 0):.2f} s", "dim")
            self._phase = None

    def _plan(self, plan: pb.PlanMade) -> None:
        for requirement in plan.requirements:
            origins = f"  ({', '.join(requirement.origins[:2])})" if requirement.origins else ""
            self.say(f"  needs {requirement.specifier}{origins}")
        for missing in plan.undeclared:
            self.say(f"  {missing.path}:{missing.line} imports {missing.module}, which the manifest lacks", "yellow")
        for missing in plan.unknown:
            self.say(f"  {missing.path}:{missing.line} imports {missing.module}: no known package", "yellow")
        if plan.installed:
            self.say("  already installed" if plan.fingerprint else "  needs nothing but what the image has")

    def _ended(self, ended: pb.ExecEnded) -> None:
        if ended.dropped_bytes:
            self.warn(f"qila: {ended.dropped_bytes} bytes of output beyond the limit were dropped", "yellow")
        reason = describe_end(ended)
        if reason:
            self.warn(f"qila: {reason}")


def describe_end(ended: pb.ExecEnded) -> str:  # noqa: PLR0911 - one for each way to end
    """How an exec ended, in words; empty if it exited by itself."""
    match ended.WhichOneof("end"):
        case "exited":
            return ""
        case "signaled":
            return f"killed by signal {ended.signaled}"
        case "timed_out":
            return f"timed out in {_PHASES.get(ended.timed_out.phase, 'RUN')}"
        case "oom_killed":
            return "killed: out of memory"
        case "output_limit":
            return "killed: its output reached the limit"
        case "cancelled":
            return "cancelled"
        case "install_failed":
            failure = ended.install_failed
            name = pb.InstallFailureReason.Name(failure.reason).removeprefix("INSTALL_FAILURE_REASON_").lower()
            return f"install failed: {name}\n{failure.detail}".rstrip()
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
