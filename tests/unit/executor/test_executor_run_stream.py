"""Runs over one stream: how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from qila.executor.v1 import executor_pb2 as pb
from services.executor.run_stream import RunStreams


async def test_a_server_that_stops_ends_a_stream_once_its_runs_have_ended() -> None:
    gate = asyncio.Event()
    told: list[pb.RunProcessesResponse] = []
    begun = asyncio.Event()

    async def run(_request: pb.RunProcessRequest) -> AsyncGenerator[pb.ProcessEvent, None]:
        yield pb.ProcessEvent(started=pb.ProcessStarted())
        begun.set()
        await gate.wait()
        yield pb.ProcessEvent(ended=pb.ProcessEnded(exited=3))

    async def requests() -> AsyncIterator[pb.RunProcessesRequest]:
        yield pb.RunProcessesRequest(number=7, run=pb.RunProcessRequest(sandbox_id="s", process_id="p"))
        await asyncio.Event().wait()

    async def write(response: pb.RunProcessesResponse) -> None:
        told.append(response)

    streams = RunStreams(run)
    serving = asyncio.create_task(streams.serve(requests(), write))
    await begun.wait()
    await streams.stop(1.0)
    await asyncio.sleep(0)
    assert not serving.done()
    gate.set()
    async with asyncio.timeout(5):
        await serving
    assert [(answer.number, answer.event.ended.exited) for answer in told[1:]] == [(7, 3)]


async def test_a_fault_is_told_without_its_words() -> None:
    told: list[pb.RunProcessesResponse] = []

    async def run(_request: pb.RunProcessRequest) -> AsyncGenerator[pb.ProcessEvent, None]:
        raise RuntimeError("a secret")
        yield pb.ProcessEvent()

    async def requests() -> AsyncIterator[pb.RunProcessesRequest]:
        yield pb.RunProcessesRequest(number=1, run=pb.RunProcessRequest())

    async def write(response: pb.RunProcessesResponse) -> None:
        told.append(response)

    await RunStreams(run).serve(requests(), write)
    assert [answer.WhichOneof("answer") for answer in told] == ["failure"]
    assert b"secret" not in told[0].failure
