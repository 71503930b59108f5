"""What a watcher of an exec is sent: control events by sequence, the run's output between its phase and the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from google.rpc import status_pb2

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.convert import run_output
from services.gateway.live import LiveExec, process_id_of
from services.gateway.patience import Events, advance, unbroken
from services.gateway.ports import ExecutorPort
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
    journal = live.journal
    if after > journal.record.last_sequence:
        last = journal.record.last_sequence
        raise out_of_range("SEQUENCE_BEYOND_END", f"after_sequence: the last event is {last}", last_sequence=str(last))
    if run > live.run:
        raise out_of_range("RUN_BEYOND_END", f"from.run: the last run is {live.run}", last_run=str(live.run))
    begun = await journal.at(after)
    while True:
        if begun is not None and begun.phase_started.phase == pb.PHASE_RUN and begun.phase_started.run >= run:
            number = begun.phase_started.run
            start = position if number == run else None
            async with aclosing(_output(executor_port, live, number, start or executor.Offsets(), patience)) as outputs:
                async for output in outputs:
                    yield run_output(output, number)
        begun = None
        for event in await journal.after(after):
            after = event.sequence
            _refuse(live, event, as_status=as_status)
            yield event
            if event.phase_started.phase == pb.PHASE_RUN:
                begun = event
                break
        else:
            if journal.ended and after >= journal.record.last_sequence:
                return
            if after >= journal.record.last_sequence:
                await live.bell.wait()


async def _output(
    executor_port: ExecutorPort, live: LiveExec, run: int, position: executor.Offsets, patience: float
) -> AsyncGenerator[executor.Output, None]:
    # Kept: a run that begins later has another one.
    ring = live.ring if run == live.run else None
    index = 0
    while ring is not None and (not (position.stdout or position.stderr) or index):
        outputs = ring.since(index)
        if outputs is None:
            # Too slow for the ring: from here on the spool is read, at this watcher's own pace.
            break
        for output in outputs:
            index += 1
            advance(position, output)
            yield output
        if not outputs:
            if ring.closed:
                return
            await live.bell.wait()
    async with aclosing(_spooled(executor_port, live, run, position, patience)) as spooled:
        async for output in spooled:
            yield output


async def _spooled(
    executor_port: ExecutorPort, live: LiveExec, run: int, position: executor.Offsets, patience: float
) -> AsyncGenerator[executor.Output, None]:
    while run == live.run and run not in live.started and not live.ring.closed:
        await live.bell.wait()

    def open_events(offsets: executor.Offsets) -> Events:
        request = executor.AttachProcessRequest(sandbox_id=live.sandbox_id, process_id=process_id_of(live.exec_id, run))
        getattr(request, "from").CopyFrom(offsets)
        return executor_port.attach_process(request)

    try:
        async with aclosing(unbroken(open_events, position, patience, begun=True)) as events:
            async for event in events:
                if event.HasField("output"):
                    yield event.output
    except QilaError as error:
        # An exec that never started, or whose sandbox is lost, has no output: its end says so.
        if error.code is not ErrorCode.NOT_FOUND or not _may_lack_output(live):
            raise


def _may_lack_output(live: LiveExec) -> bool:
    ended = pb.ExecEnded.FromString(live.journal.record.ended)
    return ended.WhichOneof("end") in {"sandbox_lost", "plan_failed", "cancelled"} or not live.journal.ended


def _refuse(live: LiveExec, event: pb.ExecEvent, *, as_status: bool) -> None:
    if as_status and event.ended.HasField("plan_failed"):
        raise from_status(status_pb2.Status.FromString(live.journal.record.failure))
