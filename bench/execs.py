"""What an exec costs."""

from __future__ import annotations

from bench.figures import Figure, compare, figure, milliseconds
from bench.stack import ROOT, Stack, container_of, docker_exec
from qila.gateway.v1 import gateway_pb2 as pb

DEMO = ROOT / "examples" / "demo" / "main.py"
OUTPUT_BYTES = 20_000_000
TRUE_RUNS = 40
OUTPUT_RUNS = 7
SECOND_RUNS = 5


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
