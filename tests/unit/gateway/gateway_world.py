"""A conductor over fakes, whose programs pause at gates that a test opens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.conductor import Conductor
from services.gateway.config import ConductorConfig
from services.gateway.executor_fake import FakeExecutor, FakeProcess, FakeSandbox
from services.gateway.live import LiveExec
from services.gateway.resolver_fake import ANSWER, ASK, LOCK, FakeResolver
from services.gateway.store.memory import MemoryStore
from services.gateway.watching import watch
from services.rpc.channel import translated
from services.rpc.errors import QilaError

PATIENCE = 5.0
LOST = "sb_" + "z" * 26


class World:
    """A conductor over fakes; programs pause at gates that a test opens."""

    def __init__(self) -> None:
        self.executor = FakeExecutor()
        self.resolver = FakeResolver()
        self.store = MemoryStore()
        self.gates: dict[str, asyncio.Event] = {}
        self.reached: dict[str, asyncio.Event] = {}
        self.conductor = self.restarted()
        self.sandbox_id = ""
        self.executor.programs.update(
            program=self._program,
            solve=_solve,
            install=self._install,
            inventory=_inventory,
            compile=_quiet,
            spin=_spin,
            ask=self._ask,
        )

    def restarted(self) -> Conductor:
        self.conductor = Conductor(
            executor_port=self.executor,
            resolver_port=self.resolver,
            store=self.store,
            config=ConductorConfig(patience=PATIENCE),
        )
        return self.conductor

    @property
    def sandbox(self) -> FakeSandbox:
        return self.executor.sandboxes[self.sandbox_id]

    def close_gate(self, name: str) -> None:
        self.gates[name] = asyncio.Event()
        self.reached[name] = asyncio.Event()

    async def pass_gate(self, name: str) -> None:
        if name in self.gates:
            self.reached[name].set()
            await self.gates[name].wait()

    async def at(self, name: str) -> None:
        await asyncio.wait_for(self.reached[name].wait(), 5)

    async def _program(self, process: FakeProcess) -> int:
        process.write(b"first ")
        await self.pass_gate("run")
        process.write(b"second")
        process.write(b"bad", executor.STREAM_STDERR)
        return 3

    async def _ask(self, process: FakeProcess) -> int:
        assert process.sandbox.install_open
        stage = process.spec.working_directory.removeprefix("/sandbox/")
        question = process.sandbox.files[f"{stage}/in.txt"].removeprefix(ASK)
        process.write(b"asked\n")
        await self.pass_gate("ask")
        if question == b"broken":
            process.write(b"no such build\n", executor.STREAM_STDERR)
            return 1
        if question != b"silent":
            process.sandbox.files[f"{stage}/{ANSWER}"] = question
        return 0

    async def _install(self, process: FakeProcess) -> int:
        assert process.sandbox.install_open
        process.write(b"+ yaml==6.0\n")
        await self.pass_gate("install")
        environment = process.spec.argv[1].removeprefix("/sandbox/")
        await self.pass_gate(f"install {environment.split('/')[2]}")
        stage = process.spec.working_directory.removeprefix("/sandbox/")
        if b"broken" in process.sandbox.files[f"{stage}/in.txt"]:
            process.write(b"no such package\n", executor.STREAM_STDERR)
            return 1
        process.sandbox.files[f"{environment}/lib/yaml.py"] = b""
        return 0


async def _solve(process: FakeProcess) -> int:
    directory = process.spec.working_directory.removeprefix("/sandbox/")
    assert f"{directory}/in.txt" in process.sandbox.files
    process.sandbox.files[f"{directory}/{LOCK}"] = b"locked"
    return 0


async def _inventory(process: FakeProcess) -> int:
    assert not process.sandbox.install_open
    process.write(b"inventory")
    return 0


async def _quiet(_process: FakeProcess) -> int:
    return 0


async def _spin(process: FakeProcess) -> int:
    for _ in range(100):
        process.write(b"x" * 65536)
    return 0


def program(world: World, **fields: Any) -> pb.ExecRequest:
    return pb.ExecRequest(sandbox_id=world.sandbox_id, program=pb.Program(file="main.py", args=["a"]), **fields)


def command(world: World, *argv: str, **fields: Any) -> pb.ExecRequest:
    return pb.ExecRequest(sandbox_id=world.sandbox_id, command=pb.Command(argv=argv), **fields)


async def all_events(world: World, live: LiveExec, **options: Any) -> list[pb.ExecEvent]:
    async with asyncio.timeout(10), aclosing(watch(world.executor, live, patience=PATIENCE, **options)) as events:
        return [event async for event in events]


async def until(world: World, live: LiveExec, holds: Callable[[pb.ExecEvent], bool]) -> pb.ExecEvent:
    async with asyncio.timeout(10), aclosing(watch(world.executor, live, patience=PATIENCE)) as events:
        async for event in events:
            if holds(event):
                return event
    raise AssertionError


def kinds(events: list[pb.ExecEvent]) -> list[str]:
    names: list[str] = []
    for event in events:
        kind: str = event.WhichOneof("event") or ""
        if kind == "phase_started":
            kind = pb.Phase.Name(event.phase_started.phase)
        names.append(kind)
    return names


def run_bytes(events: list[pb.ExecEvent], stream: pb.Stream.ValueType = pb.STREAM_STDOUT) -> bytes:
    outputs = [event.output for event in events if event.output.phase == pb.PHASE_RUN]
    return b"".join(output.data for output in outputs if output.stream == stream)


async def refused(call: Any) -> QilaError:
    """What a call over the wire is refused with."""
    with pytest.raises(QilaError) as caught, translated("gateway"):
        await call
    return caught.value
