"""What a streaming console sees: how soon, how much, how many at once, and from where."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pty
import subprocess
import time
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from bench.figures import Figure, compare, figure, milliseconds
from bench.stack import Stack, container_of, docker_exec
from qila.client import Client
from qila.client.results import TerminalSize
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1 import gateway_pb2_grpc

LINES = 60
KEYS = 60
STREAMS = 8
STREAM_BYTES = 20_000_000
STREAM_RUNS = 3
INPUT_BYTES = 64 << 20
WATCHERS = 200
WATCHED_BYTES = 4 << 20
SPOOL_BYTES = 100_000_000
ATTACH_OFFSET = 90_000_000
ATTACH_RUNS = 5
# The clock is the machine's: inside a container it shows the same.
TICKER = f"""
import sys, time
for _ in range({LINES}):
    time.sleep(0.02)
    sys.stdout.write(f"{{time.monotonic_ns()}}\\n")
    sys.stdout.flush()
"""
PATTERN = f"""
import sys
block = b"".join(number.to_bytes(4, "big") for number in range(250_000))
for _ in range({SPOOL_BYTES // 1_000_000}):
    sys.stdout.buffer.write(block)
"""


def first_byte(stack: Stack) -> Figure:
    """From the program's write to its bytes here, line by line; a stream that is open already."""
    sandbox_id = stack.create()
    argv = ["python3", "-uc", TICKER]
    ours = list(delays(stack.chunks(pb.ExecRequest(sandbox_id=sandbox_id, command=pb.Command(argv=argv)))))
    command = ["docker", "exec", container_of(sandbox_id), *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        theirs = list(delays(process.stdout))
    return figure("first byte after the program writes it", ours, theirs, "`docker exec` (CLI)")


def delays(chunks: Iterator[bytes]) -> Iterator[float]:
    """Milliseconds since each line was written."""
    for chunk in chunks:
        now = time.monotonic_ns()
        for line in chunk.split():
            yield (now - int(line)) / 1e6


def keystroke(stack: Stack) -> Figure:
    """From a key to its echo on a terminal, one at a time."""
    sandbox_id = stack.create()
    ours = []
    with Client(stack.address) as client, client.exec(sandbox_id, ["cat"], terminal=TerminalSize(24, 80)) as run:
        outputs = (event.output.data for event in run if event.HasField("output"))
        ours = [milliseconds(lambda: expect(press(run.write_stdin, outputs.__next__))) for _ in range(KEYS)]
        run.cancel()
    primary, secondary = pty.openpty()
    tty.setraw(secondary)
    command = ["docker", "exec", "-it", container_of(sandbox_id), "cat"]
    with subprocess.Popen(command, stdin=secondary, stdout=secondary, stderr=secondary) as process:
        try:
            # The first echo comes when the terminal is there.
            press(lambda key: os.write(primary, key), lambda: os.read(primary, 100))
            theirs = [
                milliseconds(lambda: expect(press(lambda key: os.write(primary, key), lambda: os.read(primary, 100))))
                for _ in range(KEYS)
            ]
        finally:
            process.kill()
            os.close(primary)
            os.close(secondary)
    return figure("echo of a keystroke on a terminal", ours, theirs, "`docker exec -it` (CLI)")


def press(write: Callable[[bytes], object], read: Callable[[], bytes]) -> bool:
    write(b"x")
    return b"x" in read()


def input_stream(stack: Stack) -> Figure:
    """What a program takes from its input, as fast as it comes; counted by the program."""
    sandbox_id = stack.create()
    data = os.urandom(1 << 20) * (INPUT_BYTES >> 20)
    command = ["docker", "exec", "-i", container_of(sandbox_id), "wc", "-c"]

    def ours() -> None:
        result = client.exec(sandbox_id, ["wc", "-c"], stdin=True).communicate(data)
        expect(int(result.stdout) == INPUT_BYTES)

    def baseline() -> None:
        result = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True)
        expect(int(result.stdout) == INPUT_BYTES)

    with Client(stack.address) as client:
        name = f"{INPUT_BYTES >> 20} MiB into a program's input"
        return compare(name, ours, baseline, "`docker exec -i` (CLI)", STREAM_RUNS)


def eight_streams(stack: Stack) -> Figure:
    sandbox_id = stack.create()
    container = container_of(sandbox_id)
    argv = ("head", "-c", str(STREAM_BYTES), "/dev/zero")

    def ours(_: int) -> int:
        return stack.command(sandbox_id, *argv)

    def baseline(_: int) -> int:
        return docker_exec(container, *argv)

    with ThreadPoolExecutor(STREAMS) as pool:
        return compare(
            f"{STREAMS} streams of {STREAM_BYTES // 1_000_000} MB at once",
            lambda: expect(list(pool.map(ours, range(STREAMS))) == [STREAM_BYTES] * STREAMS),
            lambda: expect(list(pool.map(baseline, range(STREAMS))) == [STREAM_BYTES] * STREAMS),
            "`docker exec` (CLI)",
            STREAM_RUNS,
        )


def watchers(stack: Stack) -> Figure:
    """Of one exec, half of which take nothing: what that costs the gateway in memory."""
    gateway = stack.pid("gateway")
    asyncio.run(watch(stack, 1))
    alone = resident(gateway)
    asyncio.run(watch(stack, WATCHERS))
    name = f"memory of the gateway after {WATCHERS} watchers of one exec"
    return figure(name, [resident(gateway)], [alone], "after one watcher", unit="MiB")


async def watch(stack: Stack, count: int) -> None:
    sandbox_id = stack.create()
    argv = ["bash", "-c", f"head -c {WATCHED_BYTES} /dev/zero; sleep 1; head -c {WATCHED_BYTES} /dev/zero"]
    request = pb.ExecRequest(sandbox_id=sandbox_id, command=pb.Command(argv=argv))
    async with grpc.aio.insecure_channel(stack.address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        running = aiter(stub.Exec(request))
        exec_id = (await anext(running)).event.created.exec_id
        attach = pb.AttachExecRequest(sandbox_id=sandbox_id, exec_id=exec_id)
        calls = [stub.AttachExec(attach) for _ in range(count)]
        reading = calls[: max(1, count // 2)]
        totals = await asyncio.gather(received(running), *[received(aiter(call)) for call in reading])
        expect(set(totals) == {2 * WATCHED_BYTES})
        for call in calls:
            call.cancel()
    stack.remove(sandbox_id)


async def received(call: AsyncIterator[pb.ExecResponse | pb.AttachExecResponse]) -> int:
    return sum([len(response.event.output.data) async for response in call])


def attach_at_an_offset(stack: Stack) -> Figure:
    """The last tenth of what an ended exec wrote, bit for bit; against reading all of it."""
    sandbox_id = stack.create()
    request = pb.ExecRequest(
        sandbox_id=sandbox_id,
        exec_id="ex_" + "a" * 26,
        command=pb.Command(argv=["python3", "-c", PATTERN]),
        output_limit_bytes=2 * SPOOL_BYTES,
        run_timeout=Duration(seconds=120),
    )
    expect(stack.exec(request)[0] == SPOOL_BYTES)
    block = b"".join(number.to_bytes(4, "big") for number in range(250_000))
    expected = hashlib.sha256(block * (SPOOL_BYTES // len(block))).digest()
    tail = hashlib.sha256(block * ((SPOOL_BYTES - ATTACH_OFFSET) // len(block))).digest()

    def read(offset: int, digest: bytes) -> None:
        attach = pb.AttachExecRequest(sandbox_id=sandbox_id, exec_id=request.exec_id)
        getattr(attach, "from").stdout = offset
        found = hashlib.sha256()
        for response in stack.gateway.AttachExec(attach):
            found.update(response.event.output.data)
        expect(found.digest() == digest)

    ours = [milliseconds(lambda: read(ATTACH_OFFSET, tail)) for _ in range(ATTACH_RUNS)]
    whole = [milliseconds(lambda: read(0, expected))]
    name = f"attach to {SPOOL_BYTES // 1_000_000} MB at {ATTACH_OFFSET // 1_000_000} MB, read to the end"
    return figure(name, ours, whole, "from the first byte")


def resident(pid: int) -> float:
    """MiB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def expect(fact: bool) -> None:  # noqa: FBT001 - as assert has it, which may be switched off
    if not fact:
        raise SystemExit("the benchmark got other bytes than were written")
