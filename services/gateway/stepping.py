"""Runs one process of Qila's own in a sandbox to its end, across restarts of the executor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from qila.executor.v1 import executor_pb2 as executor
from services.gateway.convert import SandboxLostError
from services.gateway.patience import unbroken
from services.gateway.ports import ExecutorPort


async def run_to_end(
    executor_port: ExecutorPort,
    request: executor.RunProcessRequest,
    take: Callable[[executor.Output], None],
    *,
    patience: float,
    reconnect: Callable[[], Awaitable[None]] | None = None,
) -> executor.ProcessEnded:
    """Starts the process, or joins it, and gives its output to `take`.

    Args:
        executor_port: runs it.
        request: what to run; its `from` is not looked at.
        take: gets each byte once.
        patience: seconds to wait for an executor that does not answer.
        reconnect: done before its events are followed again.

    Raises:
        SandboxLostError: the executor does not say how it ended.
        QilaError: as the executor said.
    """

    def open_events(position: executor.Offsets) -> AsyncIterator[executor.ProcessEvent]:
        again = executor.RunProcessRequest()
        again.CopyFrom(request)
        getattr(again, "from").CopyFrom(position)
        return executor_port.run_process(again)

    events = unbroken(
        open_events,  # type: ignore[arg-type]  # the ports' iterators are generators
        executor.Offsets(),
        patience,
        # Starting it is repeatable: its id is its own.
        begun=True,
        reconnect=reconnect,
    )
    async with aclosing(events):
        async for event in events:
            if event.HasField("output"):
                take(event.output)
            elif event.HasField("ended"):
                return event.ended
    raise SandboxLostError("the executor ended a process without saying how")
