"""One exec while it is conducted: its request, its journal, its output."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.convert import phase_started
from services.gateway.importable import importable_of
from services.gateway.journal import Bell, Journal, OutputRing
from services.gateway.store.port import ExecRecord, Store
from services.rpc.errors import QilaError

_MAX_INSTALL_EVENTS: Final = 20_000


class LiveExec:
    """The state that the conductor's tasks and the watchers share."""

    def __init__(self, store: Store, record: ExecRecord) -> None:
        self.bell = Bell()
        self.journal = Journal(store, record, self.bell)
        # Of the run that it is in or before; what earlier runs wrote is with the executor's spool.
        self.ring = OutputRing(self.bell)
        self.request = pb.ExecRequest.FromString(record.request)
        self.admitted = asyncio.Event()
        self.refusal: Exception | None = None
        self.failure: QilaError | None = None
        # Whether the executor keeps how it ended: a later gateway learns it from there.
        self.end_is_kept = False
        self.cancel_requested = False
        self.started = set(range(record.run))
        self.task: asyncio.Task[None] | None = None
        self.preparing: asyncio.Task[Any] | None = None
        # Of the one that writes its input.
        self.writer: Bell | None = None
        # The project whose install it takes part in, where all are installed.
        self.installing = ""
        # Fingerprints of the environments that it has or will have beside the program's.
        self.environments: set[str] = set()
        if record.importable:
            self.environments.update(item.fingerprint for item in importable_of(record.importable).projects)
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

    @property
    def run(self) -> int:
        """Which of its runs it is in or before; 0 is the first."""
        return self.journal.record.run

    @property
    def process_id(self) -> str:
        """Of the process of its present run."""
        return process_id_of(self.exec_id, self.run)

    @property
    def suffix(self) -> str:
        """Ends the ids of processes of Qila's own.

        An id of an earlier attempt may stand for a process that was killed in the middle; each run has its own.
        """
        attempt = f"-{self.journal.record.attempt}" if self.recovered else ""
        return attempt + (f".{self.run}" if self.run else "")

    @property
    def added(self) -> list[str]:
        """The requirements that earlier runs showed to be missing."""
        return json.loads(self.journal.record.added) if self.journal.record.added else []

    def recount(self, event: pb.ExecEvent) -> None:
        """Takes a stored event into account: install output goes on where it was."""
        if event.phase_started.phase == pb.PHASE_RESOLVE:
            self._begin_install_output()
        if event.HasField("output"):
            self._install_length[event.output.stream] += len(event.output.data)
        if event.WhichOneof("event") in {"output", "package", "stage"}:
            self._install_events += 1

    async def begin(self, phase: pb.Phase.ValueType, **changes: Any) -> None:
        """Begins a phase, durably; a phase that was begun before a restart is not begun twice."""
        events = (phase_started(phase, self.run),) if phase > self.journal.record.phase else ()
        await self.journal.flush(*events, phase=max(phase, self.journal.record.phase), **changes)

    async def begin_run(self, added: list[str], last_end: pb.ExecEnded) -> None:
        """Begins the next run with its RESOLVE phase, durably. The run before it is over."""
        self.ring.close()
        run = self.run + 1
        # Before anybody hears of the run: its watchers look here for its output.
        self.ring = OutputRing(self.bell)
        self._begin_install_output()
        await self.journal.flush(
            phase_started(pb.PHASE_RESOLVE, run),
            run=run,
            phase=pb.PHASE_RESOLVE,
            added=json.dumps(added),
            last_end=last_end.SerializeToString(),
        )

    def add_install_event(self, event: pb.ExecEvent) -> None:
        """Adds progress or output of the install, within bounds."""
        self._install_events += 1
        if self._install_events > _MAX_INSTALL_EVENTS:
            if self._install_events == _MAX_INSTALL_EVENTS + 1:
                message = f"the installers said more than {_MAX_INSTALL_EVENTS} things; the rest is not kept"
                self.journal.append(pb.ExecEvent(notice=pb.Notice(code="INSTALL_OUTPUT_CUT", message=message)))
            return
        if event.HasField("output"):
            output = event.output
            placed = pb.Output(
                phase=pb.PHASE_INSTALL,
                stream=output.stream,
                offset=self._install_length[output.stream],
                data=output.data,
                run=self.run,
            )
            self._install_length[output.stream] += len(output.data)
            event = pb.ExecEvent(output=placed)
        if self.installing:
            event = copy_of(event)
            event.project = self.installing
        self.journal.append(event)

    def take_input_over(self, writer: Bell) -> None:
        """From now on the one with this bell writes the input; the former hears its own."""
        former, self.writer = self.writer, writer
        if former is not None:
            former.ring()
            self.bell.ring()

    def _begin_install_output(self) -> None:
        self._install_length = {pb.STREAM_STDOUT: 0, pb.STREAM_STDERR: 0}

    def process_spec(self, argv: list[str], env: dict[str, str], directory: str) -> executor.ProcessSpec:
        """What the run phase starts."""
        request = self.request
        spec = executor.ProcessSpec(
            argv=argv,
            env={**env, **request.env},
            working_directory=directory,
            user=executor.USER_PROGRAM,
            timeout=request.run_timeout,
            output_limit_bytes=request.output_limit_bytes,
            end_at_output_limit=request.end_at_output_limit,
            stdin=request.stdin,
            merge_output=request.merge_output,
        )
        # Set only where they are wanted: an exec of an earlier version joins its process by the very same words.
        if request.HasField("terminal"):
            spec.terminal.rows, spec.terminal.columns = request.terminal.rows, request.terminal.columns
        if request.HasField("idle_timeout"):
            spec.idle_timeout.CopyFrom(request.idle_timeout)
        return spec


def copy_of(event: pb.ExecEvent) -> pb.ExecEvent:
    """The same event again: it goes to other execs too, which have their own names for its project."""
    copy = pb.ExecEvent()
    copy.CopyFrom(event)
    return copy


def process_id_of(exec_id: str, run: int) -> str:
    """The executor's id of the process of a run: of the first one the exec's own."""
    return f"{exec_id}.run-{run}" if run else exec_id
