"""One exec while it is conducted: its request, its journal, its output."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.convert import phase_started
from services.gateway.journal import Bell, Journal, OutputRing
from services.gateway.store.port import ExecRecord, Store
from services.rpc.errors import QilaError

_MAX_INSTALL_EVENTS: Final = 20_000


class LiveExec:
    """The state that the conductor's tasks and the watchers share."""

    def __init__(self, store: Store, record: ExecRecord, events: tuple[pb.ExecEvent, ...] = ()) -> None:
        self.bell = Bell()
        self.journal = Journal(store, record, self.bell, events)
        self.ring = OutputRing(self.bell)
        self.request = pb.ExecRequest.FromString(record.request)
        self.admitted = asyncio.Event()
        self.refusal: Exception | None = None
        self.failure: QilaError | None = None
        self.cancel_requested = False
        self.process_started = False
        self.task: asyncio.Task[None] | None = None
        self.preparing: asyncio.Task[Any] | None = None
        self._install_length = {pb.STREAM_STDOUT: 0, pb.STREAM_STDERR: 0}
        self._install_events = 0

    @property
    def sandbox_id(self) -> str:
        """Of the sandbox it runs in."""
        return self.journal.record.sandbox_id

    @property
    def exec_id(self) -> str:
        """Unique within the sandbox."""
        return self.journal.record.exec_id

    @property
    def recovered(self) -> bool:
        """Whether an earlier process of the gateway began it."""
        return self.journal.record.attempt > 0

    def recount(self, event: pb.ExecEvent) -> None:
        """Takes a stored event into account: install output goes on where it was."""
        if event.HasField("output"):
            self._install_length[event.output.stream] += len(event.output.data)
        if event.HasField("output") or event.HasField("package"):
            self._install_events += 1

    async def begin(self, phase: pb.Phase.ValueType, **changes: Any) -> None:
        """Begins a phase, durably; a phase that was begun before a restart is not begun twice."""
        events = (phase_started(phase),) if phase > self.journal.record.phase else ()
        await self.journal.flush(*events, phase=max(phase, self.journal.record.phase), **changes)

    def add_install_event(self, event: pb.ExecEvent) -> None:
        """Adds progress or output of the install, within bounds."""
        self._install_events += 1
        if self._install_events > _MAX_INSTALL_EVENTS:
            if self._install_events == _MAX_INSTALL_EVENTS + 1:
                message = f"the installer said more than {_MAX_INSTALL_EVENTS} things; the rest is not kept"
                self.journal.append(pb.ExecEvent(notice=pb.Notice(code="INSTALL_OUTPUT_CUT", message=message)))
            return
        if event.HasField("output"):
            output = event.output
            placed = pb.Output(
                phase=pb.PHASE_INSTALL,
                stream=output.stream,
                offset=self._install_length[output.stream],
                data=output.data,
            )
            self._install_length[output.stream] += len(output.data)
            event = pb.ExecEvent(output=placed)
        self.journal.append(event)

    def process_spec(self, argv: list[str], env: dict[str, str], directory: str) -> executor.ProcessSpec:
        """What the run phase starts."""
        request = self.request
        return executor.ProcessSpec(
            argv=argv,
            env={**env, **request.env},
            working_directory=directory,
            user=executor.USER_PROGRAM,
            timeout=request.run_timeout,
            output_limit_bytes=request.output_limit_bytes,
            end_at_output_limit=request.end_at_output_limit,
        )
