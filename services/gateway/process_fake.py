"""A process of the executor in memory: what it writes stays, what it is sent waits until it reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from qila.executor.v1 import executor_pb2 as executor
from services.gateway.journal import Bell
from services.gateway.patience import OFFSET_FIELDS
from services.gateway.ports import StdinPart
from services.rpc.errors import ErrorCode, QilaError, failed_precondition, out_of_range

if TYPE_CHECKING:
    from services.gateway.executor_fake import FakeSandbox

_WAITING_BYTES: Final = 1 << 20


@dataclass(eq=False, kw_only=True)
class FakeProcess:
    """A process whose behaviour a test scripts; what it writes stays, as in the spool."""

    sandbox: FakeSandbox
    process_id: str
    spec: executor.ProcessSpec
    outputs: list[executor.Output] = field(default_factory=list)
    ended: executor.ProcessEnded | None = None
    bell: Bell = field(default_factory=Bell)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    length: executor.Offsets = field(default_factory=executor.Offsets)
    task: asyncio.Task[None] | None = None
    signals: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    waiting: bytearray = field(default_factory=bytearray)
    accepted: int = 0
    input_ended: bool = False
    _writer: object = None

    def write(self, data: bytes, stream: executor.Stream.ValueType = executor.STREAM_STDOUT) -> None:
        """Writes output."""
        name = OFFSET_FIELDS[stream]
        offset = getattr(self.length, name)
        self.outputs.append(executor.Output(stream=stream, offset=offset, data=data))
        setattr(self.length, name, offset + len(data))
        self.bell.ring()

    def end(self, ended: executor.ProcessEnded) -> None:
        """Ends."""
        ended.length.CopyFrom(self.length)
        self.ended = ended
        self.bell.ring()

    async def read(self) -> bytes:
        """What waits of its input, as soon as there is any; empty at its end."""
        while not self.waiting and not self.input_ended:
            await self.bell.wait()
        data = bytes(self.waiting)
        self.waiting.clear()
        self.bell.ring()
        return data

    def check_running(self) -> None:
        """FAILED_PRECONDITION once it has ended."""
        if self.ended is not None:
            raise failed_precondition("PROCESS_ENDED", f"{self.process_id} has ended")

    async def follow(
        self, position: executor.Offsets, check: Callable[[], None]
    ) -> AsyncGenerator[executor.ProcessEvent, None]:
        """Its events, each output from the position on. `check` raises where the executor is gone."""
        yield executor.ProcessEvent(started=executor.ProcessStarted())
        index = 0
        while True:
            check()
            for output in self.outputs[index:]:
                index += 1
                skipped = max(getattr(position, OFFSET_FIELDS[output.stream]) - output.offset, 0)
                if skipped < len(output.data):
                    rest = executor.Output(
                        stream=output.stream, offset=output.offset + skipped, data=output.data[skipped:]
                    )
                    yield executor.ProcessEvent(output=rest)
            if index < len(self.outputs):
                continue
            if self.ended is not None:
                yield executor.ProcessEvent(ended=self.ended)
                return
            await self.bell.wait()

    async def take_input(self, parts: AsyncIterator[StdinPart], check: Callable[[], None]) -> AsyncGenerator[int, None]:
        """How much of its input is accepted. `check` raises where the executor is gone."""
        if not self.spec.stdin and not self.spec.HasField("terminal"):
            raise failed_precondition("STDIN_NOT_OPEN", f"{self.process_id} was started without an input")
        self.check_running()
        self._writer = writer = object()
        self.bell.ring()
        feeding = asyncio.create_task(self._feed(writer, parts))
        feeding.add_done_callback(lambda _: self.bell.ring())
        told = -1
        try:
            while True:
                check()
                if self._writer is not writer:
                    raise QilaError(ErrorCode.ABORTED, "STDIN_TAKEN_OVER", "another stream writes this input now")
                if self.accepted > told:
                    told = self.accepted
                    yield told
                elif feeding.done():
                    feeding.result()
                    return
                else:
                    self.check_running()
                    await self.bell.wait()
        finally:
            feeding.cancel()

    async def _feed(self, writer: object, parts: AsyncIterator[StdinPart]) -> None:
        async for part in parts:
            while len(self.waiting) >= _WAITING_BYTES:
                await self.bell.wait()
            if self._writer is not writer:
                return
            if part.offset > self.accepted:
                message = f"the next byte of the input has the offset {self.accepted}"
                raise out_of_range("STDIN_GAP", message, expected=str(self.accepted))
            if isinstance(part, executor.StdinEnd):
                self.input_ended = not self.spec.HasField("terminal")
                self.bell.ring()
                return
            data = part.data[self.accepted - part.offset :]
            if data and self.input_ended:
                raise failed_precondition("STDIN_ENDED", "the input has ended")
            self.waiting += data
            self.accepted += len(data)
            self.bell.ring()


async def echo(process: FakeProcess) -> int:
    """Writes what it reads, piece by piece."""
    stream = executor.STREAM_TERMINAL if process.spec.HasField("terminal") else executor.STREAM_STDOUT
    while data := await process.read():
        process.write(data, stream)
    return 0


async def count(process: FakeProcess) -> int:
    """Reads to the end, then writes how many bytes there were."""
    total = 0
    while data := await process.read():
        total += len(data)
    process.write(b"%d" % total)
    return 0


async def ignore(process: FakeProcess) -> int:
    """Reads nothing; ends when it gets a signal."""
    while not process.signals:
        await process.bell.wait()
    return 128 + process.signals[0]
