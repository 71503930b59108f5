"""Sandboxes that are stopped because nobody uses them."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from qila.executor.v1 import executor_pb2 as pb
from services.executor import sandboxes
from services.executor.runtime.fake import FakeRuntime
from services.executor.runtime.port import SandboxSpec

from .fake_sandboxd import FakeSandboxd
from .world import executor


async def test_an_exec_that_comes_while_its_idle_sandbox_is_stopped_runs_in_the_next_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandboxes, "IDLE_LOOK_S", 0.01)
    running: list[FakeSandboxd] = []
    stopping, asked = asyncio.Event(), asyncio.Event()

    async def start(spec: SandboxSpec) -> None:
        running.append(FakeSandboxd(spec))

    async def kill(_spec: SandboxSpec) -> None:
        stopping.set()
        # As an engine does, whose container is there for a while yet.
        await asked.wait()
        await running.pop().stop()

    runtime = FakeRuntime(images=["image"], on_start=start, on_kill=kill)
    with tempfile.TemporaryDirectory(prefix="qila-") as directory:
        async with executor(Path(directory), runtime, "image", idle_stop_s=0.05) as stub:
            sandbox = (await stub.CreateSandbox(pb.CreateSandboxRequest())).sandbox.id
            await asyncio.wait_for(stopping.wait(), 10)
            request = pb.RunProcessRequest(
                sandbox_id=sandbox, process_id="p", spec=pb.ProcessSpec(argv=["sleep", "1000"], user=pb.USER_PROGRAM)
            )
            events: Any = stub.RunProcess(request)
            first = asyncio.ensure_future(events.read())
            await asyncio.wait([first], timeout=0.2)
            asked.set()
            assert (await asyncio.wait_for(first, 10)).event.HasField("started")
            await stub.SignalProcess(pb.SignalProcessRequest(sandbox_id=sandbox, process_id="p", signal=15))
            assert (await events.read()).event.ended.signaled == 15
        for fake in running:
            await fake.stop()


async def test_a_watcher_that_does_not_read_what_has_ended_keeps_no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "IDLE_LOOK_S", 0.01)
    running: list[FakeSandboxd] = []
    stopped = asyncio.Event()

    async def start(spec: SandboxSpec) -> None:
        running.append(FakeSandboxd(spec))

    async def kill(_spec: SandboxSpec) -> None:
        await running.pop().stop()
        stopped.set()

    runtime = FakeRuntime(images=["image"], on_start=start, on_kill=kill)
    with tempfile.TemporaryDirectory(prefix="qila-") as directory:
        async with executor(Path(directory), runtime, "image", idle_stop_s=2) as stub:
            sandbox = (await stub.CreateSandbox(pb.CreateSandboxRequest())).sandbox.id
            spec = pb.ProcessSpec(argv=["cat"], user=pb.USER_PROGRAM, stdin=True)
            run: Any = stub.RunProcess(pb.RunProcessRequest(sandbox_id=sandbox, process_id="p", spec=spec))
            assert (await run.read()).event.HasField("started")
            await _feed(stub.WriteStdin(), sandbox, 128)
            events: Any = stub.AttachProcess(pb.AttachProcessRequest(sandbox_id=sandbox, process_id="p"))
            assert (await events.read()).event.HasField("started")
            await asyncio.wait_for(stopped.wait(), 20)


async def _feed(call: Any, sandbox: str, chunks: int) -> None:
    await call.write(pb.WriteStdinRequest(header=pb.WriteStdinHeader(sandbox_id=sandbox, process_id="p")))
    for number in range(chunks):
        await call.write(pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=number << 16, data=bytes(1 << 16))))
        await call.read()
    await call.write(pb.WriteStdinRequest(end=pb.StdinEnd(offset=chunks << 16)))
    while await call.read() is not grpc.aio.EOF:
        continue
