"""Waiting for a service that is being restarted, for an exec that has already begun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, TypeVar

from qila.executor.v1 import executor_pb2 as executor
from services.rpc.errors import ErrorCode, QilaError, unavailable

Result = TypeVar("Result")
Events = AsyncGenerator[executor.ProcessEvent, None]
PAUSE_SECONDS: Final = 0.1
OFFSET_FIELDS: Final = {
    executor.STREAM_STDOUT: "stdout",
    executor.STREAM_STDERR: "stderr",
    executor.STREAM_TERMINAL: "terminal",
}


async def patiently(call: Callable[[], Awaitable[Result]], patience: float) -> Result:
    """Makes a call that may be repeated, again and again for `patience` seconds while the service does not answer."""
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await call()
        except QilaError as error:
            if error.code is not ErrorCode.UNAVAILABLE or asyncio.get_running_loop().time() >= deadline:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


async def unbroken(
    open_events: Callable[[executor.Offsets], Events],
    position: executor.Offsets,
    patience: float,
    *,
    begun: bool = False,
    reconnect: Callable[[], Awaitable[None]] | None = None,
) -> Events:
    """The events of a process across restarts of the executor: each byte once, `started` once, `ended` last.

    Args:
        open_events: opens the stream at offsets; repeating it joins the same process.
        position: the first byte wanted of each stream; advanced as output comes.
        patience: seconds to wait for an executor that does not answer, once the process has started.
        begun: the process counts as started already.
        reconnect: done before the stream is opened again.
    """
    started = False
    deadline: float | None = None
    now = asyncio.get_running_loop().time
    while True:
        lost = unavailable("EXECUTOR_STREAM_BROKEN", "the executor broke off a stream of events; repeat the call")
        try:
            async with aclosing(open_events(position)) as events:
                async for event in events:
                    deadline = None
                    kind = event.WhichOneof("event")
                    if kind == "output":
                        advance(position, event.output)
                    if kind != "started" or not started:
                        yield event
                    started = True
                    if kind == "ended":
                        return
        except QilaError as error:
            if error.code is not ErrorCode.UNAVAILABLE:
                raise
            lost = error
        deadline = now() + patience if deadline is None else deadline
        if not (started or begun) or now() >= deadline:
            raise lost
        await asyncio.sleep(PAUSE_SECONDS)
        if reconnect is not None:
            await patiently(reconnect, patience)


def advance(position: executor.Offsets, output: executor.Output) -> None:
    """Moves the position behind the output."""
    following = output.offset + len(output.data)
    if output.stream == executor.STREAM_STDOUT:
        position.stdout = following
    elif output.stream == executor.STREAM_STDERR:
        position.stderr = following
    else:
        position.terminal = following
