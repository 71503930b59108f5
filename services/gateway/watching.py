"""What a watcher of an exec is sent: control events by sequence, the run's output between its phase and the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from google.rpc import status_pb2

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.convert import run_output
from services.gateway.journal import now
from services.gateway.live import LiveExec, process_id_of
from services.gateway.patience import Events, advance, unbroken
from services.gateway.ports import ExecutorPort
from services.gateway.pulse import Pulse
from services.rpc.errors import ErrorCode, QilaError, from_status, out_of_range


async def watch(
    executor_port: ExecutorPort,
    live: LiveExec,
    *,
    after: int = 0,
    position: executor.Offsets | None = None,
    run: int = 0,
    patience: float,
    as_status: bool = False,
) -> AsyncGenerator[pb.ExecEvent, None]:
    """The events of an exec; a slow watcher slows only itself.

    Args:
        executor_port: has the run's output.
        live: the exec, running or ended.
        after: control events up to this sequence are not sent.
        position: the first byte wanted of each stream; from the first if None.
        run: that the position counts from; what earlier ones wrote is not sent.
        patience: seconds to wait for an executor that is restarted.
        as_status: raise what kept the program from starting, instead of telling of it in the end.

    Raises:
        QilaError: OUT_OF_RANGE for a position or a run beyond the end; with `as_status` what kept it from starting.
    """
    _check_place(live, after, run)
    journal = live.journal
    begun = await journal.at(after)
    pulse = Pulse()
    try:
        while True:
            if begun is not None and begun.phase_started.phase == pb.PHASE_RUN and begun.phase_started.run >= run:
                number = begun.phase_started.run
                start = position if number == run else None
                outputs = _RunOutput(executor_port, live, pulse, run=number, patience=patience)
                async with aclosing(outputs.after(start or executor.Offsets())) as pieces:
                    async for output in pieces:
                        yield _heartbeat(live) if output is None else run_output(output, number)
                        pulse.told()
                if outputs.is_gone:
                    yield _output_not_kept()
            begun = None
            for event in await journal.after(after):
                after = event.sequence
                _refuse(live, event, as_status=as_status)
                yield event
                pulse.told()
                if event.phase_started.phase == pb.PHASE_RUN:
                    begun = event
                    break
            else:
                if journal.ended and after >= journal.record.last_sequence:
                    return
                if after >= journal.record.last_sequence:
                    await pulse.wait(live.bell)
                    if pulse.is_due:
                        yield _heartbeat(live)
                        pulse.told()
    finally:
        pulse.close()


class _RunOutput:
    """What one run wrote, for one watcher; None among it whenever a heartbeat is due.

    Attributes:
        is_gone: the executor no longer keeps what is missing.
    """

    def __init__(self, executor_port: ExecutorPort, live: LiveExec, pulse: Pulse, *, run: int, patience: float) -> None:
        self._executor = executor_port
        self._live = live
        self._pulse = pulse
        self._run = run
        self._patience = patience
        self.is_gone = False

    async def after(self, position: executor.Offsets) -> AsyncGenerator[executor.Output | None, None]:
        """The output from the position on, which advances with it."""
        # Kept: a run that begins later has another one.
        ring = self._live.ring if self._run == self._live.run else None
        index = 0
        while ring is not None and (index or not (position.stdout or position.stderr or position.terminal)):
            if ring.has_lost(index):
                # Too slow for the ring: from here on the spool is read, at this watcher's own pace.
                break
            output = ring.at(index)
            if output is not None:
                index += 1
                advance(position, output)
                yield output
            elif ring.closed:
                return
            else:
                await self._pulse.wait(self._live.bell)
                if self._pulse.is_due:
                    yield None
        async with aclosing(self._spooled(position)) as spooled:
            async for output in spooled:
                yield output

    async def _spooled(self, position: executor.Offsets) -> AsyncGenerator[executor.Output | None, None]:
        live = self._live
        while self._run == live.run and self._run not in live.started and not live.ring.closed:
            await self._pulse.wait(live.bell)
            if self._pulse.is_due:
                yield None
        try:
            async with (
                aclosing(unbroken(self._attach, position, self._patience, begun=True)) as events,
                aclosing(self._pulse.items(events)) as items,
            ):
                async for event in items:
                    if event is None:
                        yield None
                    elif event.HasField("output"):
                        yield event.output
        except QilaError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            # An exec that never started, or whose sandbox is lost, has no output: its end says so.
            self.is_gone = not _may_lack_output(live)

    def _attach(self, offsets: executor.Offsets) -> Events:
        process_id = process_id_of(self._live.exec_id, self._run)
        request = executor.AttachProcessRequest(sandbox_id=self._live.sandbox_id, process_id=process_id)
        getattr(request, "from").CopyFrom(offsets)
        return self._executor.attach_process(request)


def _check_place(live: LiveExec, after: int, run: int) -> None:
    last = live.journal.record.last_sequence
    if after > last:
        raise out_of_range("SEQUENCE_BEYOND_END", f"after_sequence: the last event is {last}", last_sequence=str(last))
    if run > live.run:
        raise out_of_range("RUN_BEYOND_END", f"from.run: the last run is {live.run}", last_run=str(live.run))


def _heartbeat(live: LiveExec) -> pb.ExecEvent:
    return pb.ExecEvent(heartbeat=pb.Heartbeat(phase=pb.Phase.ValueType(live.journal.record.phase)), time=now())


def _output_not_kept() -> pb.ExecEvent:
    message = (
        "what this exec wrote is no longer kept; of a sandbox, the outputs of the last 256 processes are, up to 4 GiB"
    )
    return pb.ExecEvent(notice=pb.Notice(code="OUTPUT_NOT_KEPT", message=message), time=now())


def _may_lack_output(live: LiveExec) -> bool:
    ended = pb.ExecEnded.FromString(live.journal.record.ended)
    return ended.WhichOneof("end") in {"sandbox_lost", "plan_failed", "cancelled"} or not live.journal.ended


def _refuse(live: LiveExec, event: pb.ExecEvent, *, as_status: bool) -> None:
    if as_status and event.ended.HasField("plan_failed"):
        raise from_status(status_pb2.Status.FromString(live.journal.record.failure))
