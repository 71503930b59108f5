"""Follows what an installer prints: live progress of packages, and the reason of a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.convert import InstallFailedError, package_event, stage_event
from services.gateway.ports import ResolverPort
from services.rpc.errors import QilaError

_LOG: Final = structlog.get_logger("services.gateway")
_PAUSE_SECONDS: Final = 0.1
_MAX_OUTPUT_BYTES: Final = 1 << 20
_MAX_DETAIL_BYTES: Final = 8 << 10
_MAX_LINES: Final = 20
# Another reason, as a full disk, is no fault of what the lock says.
_ABOUT_PACKAGES: Final = frozenset(
    {
        resolver.INSTALL_FAILURE_REASON_NOT_FOUND,
        resolver.INSTALL_FAILURE_REASON_NO_SOLUTION,
        resolver.INSTALL_FAILURE_REASON_BUILD_FAILED,
        resolver.INSTALL_FAILURE_REASON_POLICY_DENIED,
    }
)


class StepExplainer:
    """Feeds whole lines of one step to the resolver, at most every 100 ms."""

    def __init__(
        self,
        resolver_port: ResolverPort,
        plan: resolver.Plan,
        step: resolver.StepKind.ValueType,
        emit: Callable[[pb.ExecEvent], None],
    ) -> None:
        self._resolver = resolver_port
        self._ecosystem = plan.ecosystem
        self._lock_lines = plan.lock_lines
        self._step = step
        self._emit = emit
        self._partial: dict[int, bytes] = {}
        self._lines = b""
        self._all = b""
        self._more = asyncio.Event()

    def feed(self, output: executor.Output) -> None:
        """Takes output as it comes."""
        data = self._partial.get(output.stream, b"") + output.data
        whole, newline, rest = data.rpartition(b"\n")
        # A line without an end is no line that anybody can explain.
        self._partial[output.stream] = rest[-_MAX_DETAIL_BYTES:]
        self._lines = (self._lines + whole + newline)[-_MAX_OUTPUT_BYTES:]
        self._all = (self._all + whole + newline)[-_MAX_OUTPUT_BYTES:]
        if newline:
            self._more.set()

    async def follow(self) -> None:
        """Explains what comes, until it is cancelled."""
        while True:
            await self._more.wait()
            await self.explain()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def explain(self) -> None:
        """Explains the lines that are new. Progress is a courtesy: without the resolver the install goes on."""
        self._more.clear()
        lines, self._lines = self._lines, b""
        if not lines:
            return
        request = resolver.ExplainInstallRequest(ecosystem=self._ecosystem, step=self._step, output=lines)
        try:
            response = await self._resolver.explain_install(request)
        except QilaError as error:
            _LOG.warning("explain_failed", reason=error.reason, message=error.message)
            return
        except asyncio.CancelledError:
            # Whoever explains what is left explains these too.
            self._lines = lines + self._lines
            raise
        for package in response.packages:
            self._emit(package_event(package))
        for stage in response.stages:
            self._emit(stage_event(stage))

    async def failure(self, exit_code: int) -> InstallFailedError:
        """Why the step failed, in the installer's own words."""
        output = b"".join([self._all, *(rest + b"\n" for rest in self._partial.values() if rest)])
        request = resolver.ExplainInstallRequest(
            ecosystem=self._ecosystem,
            step=self._step,
            output=output[-_MAX_OUTPUT_BYTES:],
            failed=True,
            exit_code=exit_code,
        )
        try:
            found = (await self._resolver.explain_install(request)).failure
        except QilaError as error:
            _LOG.warning("explain_failed", reason=error.reason, message=error.message)
            words = output[-_MAX_DETAIL_BYTES:].decode(errors="replace")
            return InstallFailedError(pb.INSTALL_FAILURE_REASON_UNSPECIFIED, words)
        # The two enumerations have the same numbers.
        hints = [*lines_not_honoured(self._lock_lines, found), *found.hints]
        return InstallFailedError(pb.InstallFailureReason.ValueType(found.reason), found.detail, hints)


def lines_not_honoured(lines: Iterable[resolver.LockLine], failure: resolver.InstallFailure) -> list[str]:
    """A sentence for each line of the lock about a package that the failure names; none if the lock has no part in it.

    Where a lock has several versions of a package, those count that the installer speaks of.
    """
    if failure.reason not in _ABOUT_PACKAGES:
        return []
    named = [line for line in lines if line.package in failure.packages]
    spoken_of = {line.package for line in named if line.version in failure.detail}
    meant = [line for line in named if line.package not in spoken_of or line.version in failure.detail]
    return [
        f"{line.path}{f':{line.line}' if line.line else ''}: "
        f"{line.package} {line.version} could not be installed as the lock says"
        for line in meant[:_MAX_LINES]
    ]
