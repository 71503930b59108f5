"""The wire side of processes: unpack and check, watch, pack. See protos/qila/executor/v1."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from qila.executor.v1 import executor_pb2 as pb
from services.executor.errors import InvalidFieldError
from services.executor.file_wire import USERS
from services.executor.process import Process, ProcessEnd, ProcessSpec, Started
from services.executor.processes import DEFAULT_OUTPUT_LIMIT_BYTES
from services.executor.sandboxes import Sandbox
from services.executor.spool import Chunk
from services.executor.stdin import StdinWriter

MAX_ARGUMENT_BYTES = 512 << 10
# Of the order that carries them to sandboxd, whose frames have headers of 1 MiB; the rest is for what else is in it.
MAX_ESCAPED_BYTES = 960 << 10
MAX_OUTPUT_LIMIT_BYTES = 1 << 30
MAX_INPUT_CHUNK_BYTES = 64 << 10
MAX_TERMINAL_SIZE = 4096
MAX_SIGNAL = 31
MAX_TIMEOUT_MS = 24 * 3600 * 1000

_STREAMS = {"stdout": pb.STREAM_STDOUT, "stderr": pb.STREAM_STDERR, "terminal": pb.STREAM_TERMINAL}


async def watch(sandbox: Sandbox, process: Process, offsets: pb.Offsets) -> AsyncGenerator[pb.ProcessEvent, None]:
    """Events of a process. What runs keeps the sandbox in use; who reads what has ended needs no container."""
    try:
        wanted = {"stdout": offsets.stdout, "stderr": offsets.stderr, "terminal": offsets.terminal}
        async with aclosing(sandbox.processes.watch(process, wanted)) as events:
            async for event in events:
                yield pack_event(event)
    finally:
        sandbox.touch()


def unpack_spec(spec: pb.ProcessSpec) -> ProcessSpec:
    """What to run. InvalidFieldError."""
    if not spec.argv or not spec.argv[0]:
        raise InvalidFieldError("spec.argv", "must have at least one, non-empty, word")
    words = [*spec.argv, *spec.env.keys(), *spec.env.values(), spec.working_directory]
    if any("\0" in word for word in words):
        raise InvalidFieldError("spec", "must not hold a NUL in an argument, variable or directory")
    if any(not name or "=" in name for name in spec.env):
        raise InvalidFieldError("spec.env", "must have names without '='")
    size = sum(len(word.encode()) + 1 for word in words)
    if size > MAX_ARGUMENT_BYTES:
        raise InvalidFieldError("spec.argv", f"must be, with the environment, at most {MAX_ARGUMENT_BYTES} bytes")
    # Few can be: a control character takes six bytes, a short word three bytes beside its own.
    if size * 6 > MAX_ESCAPED_BYTES and len(json.dumps(words, ensure_ascii=False).encode()) > MAX_ESCAPED_BYTES:
        rule = f"must be, with the environment, at most {MAX_ESCAPED_BYTES} bytes when written as JSON"
        raise InvalidFieldError("spec.argv", rule)
    if spec.output_limit_bytes > MAX_OUTPUT_LIMIT_BYTES:
        raise InvalidFieldError("spec.output_limit_bytes", f"must be at most {MAX_OUTPUT_LIMIT_BYTES}")
    return ProcessSpec(
        argv=tuple(spec.argv),
        env=dict(spec.env),
        cwd="/".join(filter(None, ("/sandbox", spec.working_directory)))
        if not spec.working_directory.startswith("/")
        else spec.working_directory,
        user=USERS[spec.user],
        timeout_ms=_milliseconds(spec.timeout, "spec.timeout"),
        output_limit_bytes=spec.output_limit_bytes or DEFAULT_OUTPUT_LIMIT_BYTES,
        end_at_output_limit=spec.end_at_output_limit,
        background=spec.background,
        stdin=spec.stdin,
        terminal=unpack_size(spec.terminal, "spec.terminal") if spec.HasField("terminal") else None,
        merge_output=spec.merge_output,
        idle_timeout_ms=_milliseconds(spec.idle_timeout, "spec.idle_timeout"),
    )


def unpack_size(terminal: pb.Terminal, field: str = "terminal") -> tuple[int, int]:
    """Rows and columns. InvalidFieldError."""
    if not 1 <= terminal.rows <= MAX_TERMINAL_SIZE or not 1 <= terminal.columns <= MAX_TERMINAL_SIZE:
        raise InvalidFieldError(field, f"must have 1 to {MAX_TERMINAL_SIZE:,} rows, and as many columns")
    return terminal.rows, terminal.columns


def unpack_signal(number: int) -> int:
    """A signal's number. InvalidFieldError."""
    if not 1 <= number <= MAX_SIGNAL:
        raise InvalidFieldError("signal", f"must be 1 to {MAX_SIGNAL}; 2 is SIGINT, 15 SIGTERM")
    return number


async def unpack_stdin_header(requests: AsyncIterator[pb.WriteStdinRequest]) -> pb.WriteStdinHeader:
    """The first message of a writer. InvalidFieldError."""
    first = await anext(requests, None)
    if first is None or first.WhichOneof("part") != "header":
        raise InvalidFieldError("header", "must come in the first message")
    return first.header


async def write_stdin(writer: StdinWriter, requests: AsyncIterator[pb.WriteStdinRequest]) -> AsyncGenerator[int, None]:
    """Has a writer write what comes, up to the end or to where the stream stops; yields how far the input came."""
    told = await writer.begin()
    yield told
    async with aclosing(_while_writing(writer, requests, told)) as parts:
        async for part in parts:
            if isinstance(part, int):
                yield part
                continue
            match part.WhichOneof("part"):
                case "chunk":
                    if len(part.chunk.data) > MAX_INPUT_CHUNK_BYTES:
                        raise InvalidFieldError("chunk.data", f"must be at most {MAX_INPUT_CHUNK_BYTES} bytes")
                    before = writer.following
                    await writer.write(part.chunk.offset, part.chunk.data)
                    if writer.following == before:
                        yield writer.accepted
                case "end":
                    yield await writer.end(part.end.offset)
                    return
                case "header":
                    raise InvalidFieldError("header", "must come once, in the first message")
                case _:
                    raise InvalidFieldError("part", "must be a chunk or the end")


async def _while_writing(
    writer: StdinWriter, requests: AsyncIterator[pb.WriteStdinRequest], told: int
) -> AsyncGenerator[pb.WriteStdinRequest | int, None]:
    """Messages as they come, until the stream stops, and between them how far the input came; whoever may not write any
    more is not waited for.
    """  # noqa: D205 - one sentence
    lost = asyncio.ensure_future(writer.lost())
    request = asyncio.ensure_future(_next(requests))
    progress = asyncio.ensure_future(writer.acknowledged(told))
    try:
        while True:
            await asyncio.wait((request, progress, lost), return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                raise lost.result()
            if progress.done():
                told = await progress
                progress = asyncio.ensure_future(writer.acknowledged(told))
                yield told
            if request.done():
                message = await request
                if message is None:
                    break
                yield message
                request = asyncio.ensure_future(_next(requests))
        while told < writer.following:
            told = await writer.acknowledged(told)
            yield told
    finally:
        for waiting in (lost, request, progress):
            waiting.cancel()
        await asyncio.gather(lost, request, progress, return_exceptions=True)


async def _next(requests: AsyncIterator[pb.WriteStdinRequest]) -> pb.WriteStdinRequest | None:
    return await anext(requests, None)


def _milliseconds(duration: Duration, field: str) -> int:
    # Upwards: what is too short to be counted is not without a limit.
    milliseconds: int = -(-duration.ToNanoseconds() // 1_000_000)
    if not 0 <= milliseconds <= MAX_TIMEOUT_MS:
        raise InvalidFieldError(field, "must be 0 (no limit) to 24 hours")
    return milliseconds


def pack_event(event: Started | Chunk | ProcessEnd) -> pb.ProcessEvent:
    """An event as the wire has it."""
    match event:
        case Started():
            return pb.ProcessEvent(started=pb.ProcessStarted(time=timestamp(event.time)))
        case Chunk():
            output = pb.Output(stream=_STREAMS[event.stream], offset=event.offset, data=event.data)
            return pb.ProcessEvent(output=output)
        case ProcessEnd():
            return pb.ProcessEvent(ended=_pack_end(event))


def _pack_end(end: ProcessEnd) -> pb.ProcessEnded:
    packed = pb.ProcessEnded(
        time=timestamp(end.time),
        length=pb.Offsets(**end.lengths),
        dropped_bytes=end.dropped_bytes,
        oom_kills=end.oom_kills,
    )
    match end.kind:
        case "exited":
            packed.exited = end.code
        case "signaled":
            packed.signaled = end.code
        case "sandbox_lost":
            packed.sandbox_lost.detail = end.detail
        case "start_failed":
            packed.start_failed.error = end.error
            packed.start_failed.detail = end.detail
        case "timed_out":
            packed.timed_out.idle = end.idle
            packed.timed_out.SetInParent()
        case kind:
            getattr(packed, kind).SetInParent()
    return packed


def timestamp(text: str) -> Timestamp:
    """A time in ISO format."""
    stamp = Timestamp()
    stamp.FromDatetime(datetime.datetime.fromisoformat(text))
    return stamp
