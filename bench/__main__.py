"""`python -m bench`: figures as ratios against a named baseline in the same run, into bench/out/.

Each figure interleaves ours and the baseline, so that a noisy machine troubles both alike, and compares medians.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1 import gateway_pb2_grpc

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "bench" / "out"
DEMO = ROOT / "examples" / "demo" / "main.py"
OUTPUT_BYTES = 20_000_000
TRUE_RUNS = 40
OUTPUT_RUNS = 7
SECOND_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row: medians in milliseconds; `ratio` is baseline / ours, so above 1 means that ours is faster."""

    name: str
    ours: float
    baseline: float
    baseline_name: str
    ratio: float
    runs: int


class Stack:
    """The three services, in directories and on a port of their own."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        image = [str(ROOT / "scripts" / "image"), "--tag"]
        self.environment = os.environ | {
            "QILA_STATE_DIR": str(directory / "state"),
            "QILA_RUN_DIR": str(directory / "run"),
            "QILA_GATEWAY_ADDRESS": self.address,
            "QILA_INSTANCE": directory.name.lower().replace("_", "-"),
            "QILA_SANDBOX_IMAGE": subprocess.run(image, check=True, capture_output=True, text=True).stdout.strip(),
        }
        self._qila("up")
        self.channel = grpc.insecure_channel(self.address, options=[("grpc.enable_http_proxy", 0)])
        self.gateway = gateway_pb2_grpc.GatewayServiceStub(self.channel)

    def close(self) -> None:
        for sandbox in self.gateway.ListSandboxes(pb.ListSandboxesRequest()).sandboxes:
            self.gateway.RemoveSandbox(pb.RemoveSandboxRequest(sandbox_id=sandbox.id))
        self.channel.close()
        self._qila("down")

    def create(self) -> str:
        return str(self.gateway.CreateSandbox(pb.CreateSandboxRequest()).sandbox.id)

    def put(self, sandbox_id: str, path: str, content: bytes) -> None:
        header = pb.WriteFileHeader(sandbox_id=sandbox_id, path=path)
        parts = [pb.WriteFileRequest(header=header), pb.WriteFileRequest(chunk=content)]
        parts.append(pb.WriteFileRequest(end=pb.WriteFileEnd()))
        self.gateway.WriteFile(iter(parts))

    def exec(self, request: pb.ExecRequest) -> tuple[int, bool]:
        """Runs to the end; returns the bytes of output and whether anything was installed."""
        size, installed = 0, False
        for response in self.gateway.Exec(request):
            event = response.event
            size += len(event.output.data) if event.output.phase == pb.PHASE_RUN else 0
            installed |= event.phase_started.phase == pb.PHASE_INSTALL
            if event.HasField("ended") and event.ended.exited != 0:
                raise SystemExit(f"an exec of the benchmark ended otherwise than well: {event.ended}")
        return size, installed

    def command(self, sandbox_id: str, *argv: str) -> int:
        return self.exec(pb.ExecRequest(sandbox_id=sandbox_id, command=pb.Command(argv=argv)))[0]

    def _qila(self, verb: str) -> None:
        subprocess.run([ROOT / ".venv" / "bin" / "qila", verb], check=True, env=self.environment, timeout=120)


def container_of(sandbox_id: str) -> str:
    command = ["docker", "ps", "-q", "--filter", f"label=dev.qila.sandbox={sandbox_id}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def docker_exec(container: str, *argv: str) -> int:
    """The bytes of output."""
    command = ["docker", "exec", container, *argv]
    return len(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def compare(name: str, ours: Callable[[], object], baseline: Callable[[], object], label: str, runs: int) -> Figure:
    ours()
    baseline()
    rows = [(milliseconds(ours), milliseconds(baseline)) for _ in range(runs)]
    return figure(name, [row[0] for row in rows], [row[1] for row in rows], label)


def figure(name: str, ours: list[float], baseline: list[float], label: str) -> Figure:
    mine, theirs = statistics.median(ours), statistics.median(baseline)
    return Figure(name=name, ours=mine, baseline=theirs, baseline_name=label, ratio=theirs / mine, runs=len(ours))


def exec_of_true(stack: Stack) -> Figure:
    sandbox_id = stack.create()
    container = container_of(sandbox_id)
    return compare(
        "exec of `true` in a warm sandbox",
        lambda: stack.command(sandbox_id, "true"),
        lambda: docker_exec(container, "true"),
        "`docker exec` (CLI) of `true`",
        TRUE_RUNS,
    )


def output(stack: Stack) -> Figure:
    sandbox_id = stack.create()
    container = container_of(sandbox_id)
    argv = ("head", "-c", str(OUTPUT_BYTES), "/dev/zero")

    def ours() -> None:
        if stack.command(sandbox_id, *argv) != OUTPUT_BYTES:
            raise SystemExit("bytes of output are missing")

    def baseline() -> None:
        if docker_exec(container, *argv) != OUTPUT_BYTES:
            raise SystemExit("bytes of output are missing")

    return compare("20 MB of output", ours, baseline, "`docker exec` (CLI)", OUTPUT_RUNS)


def second_exec(stack: Stack) -> Figure:
    sandbox_id = stack.create()
    stack.put(sandbox_id, "main.py", DEMO.read_bytes())
    request = pb.ExecRequest(sandbox_id=sandbox_id, program=pb.Program(file="main.py"))
    first = milliseconds(lambda: expect_install(stack, request, wanted=True))
    seconds = [milliseconds(lambda: expect_install(stack, request, wanted=False)) for _ in range(SECOND_RUNS)]
    return figure("second exec of the demo program", seconds, [first], "its first exec")


def expect_install(stack: Stack, request: pb.ExecRequest, *, wanted: bool) -> None:
    if stack.exec(request)[1] is not wanted:
        raise SystemExit(f"an install was {'missing' if wanted else 'not expected'}")


@contextmanager
def running_stack() -> Iterator[Stack]:
    # Short: sockets lie below it.
    directory = Path(tempfile.mkdtemp(prefix="qila-bench-", dir="/tmp"))
    try:
        stack = Stack(directory)
        try:
            yield stack
        finally:
            stack.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def table(figures: list[Figure]) -> str:
    lines = ["| figure | ours, ms | baseline | baseline, ms | times faster | runs |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.name} | {row.ours:.1f} | {row.baseline_name} | {row.baseline:.1f} | {row.ratio:.1f} | {row.runs} |"
        for row in figures
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    figures: list[Figure] = []
    with running_stack() as stack:
        for measure in (exec_of_true, output, second_exec):
            print(f"bench: {measure.__name__.replace('_', ' ')} …", file=sys.stderr, flush=True)
            figures.append(measure(stack))
    OUT.mkdir(parents=True, exist_ok=True)
    rows = {row.name: asdict(row) for row in figures}
    (OUT / "report.json").write_text(json.dumps(rows, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (OUT / "report.md").write_text(table(figures), encoding="utf-8")
    print(table(figures))
    print("bench: written to bench/out/report.json and bench/out/report.md")


if __name__ == "__main__":
    main()
