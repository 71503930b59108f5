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
OVERHEAD_RUNS = 40
TREE_FILES = 500
TREE_SOURCE = "import json\n\n\ndef dump(value):\n    return json.dumps(value)\n"
TREE_MAIN = "import six\nprint(six.text_type('done'))\n"
# The least that a caller of subprocess can see: from fork to exit, on the clock of this machine.
PROCESS_TIMER = """
import subprocess, time
start = time.perf_counter()
subprocess.run(["python3", "main.py"], check=True, stdout=subprocess.PIPE)
print((time.perf_counter() - start) * 1000)
"""


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


def overhead_of_second_exec(stack: Stack) -> list[Figure]:
    """A program of 500 files, nothing to install, against its command alone.

    Once against the command that Qila would run, run as it is by Qila: what finding out that nothing changed costs. And
    once against its own process, timed from inside the same sandbox: what everything costs.
    """
    sandbox_id = stack.create()
    for number in range(TREE_FILES - 2):
        stack.put(sandbox_id, f"package{number % 20}/module{number}.py", TREE_SOURCE.encode())
    stack.put(sandbox_id, "main.py", TREE_MAIN.encode())
    stack.put(sandbox_id, "requirements.txt", b"six\n")
    program = pb.ExecRequest(sandbox_id=sandbox_id, program=pb.Program(file="main.py"))
    command = pb.ExecRequest(sandbox_id=sandbox_id, command=pb.Command(argv=["python3", "main.py"]))
    timer = pb.Command(argv=["python3", "-c", PROCESS_TIMER])
    bare = pb.ExecRequest(sandbox_id=sandbox_id, command=timer)
    expect_install(stack, program, wanted=True)
    ours, as_command, alone = [], [], []
    for _ in range(OVERHEAD_RUNS):
        ours.append(milliseconds(lambda: expect_install(stack, program, wanted=False)))
        as_command.append(milliseconds(lambda: stack.output(command)))
        alone.append(float(stack.output(bare)))
    name = f"second exec of a program in a tree of {TREE_FILES} files"
    return [
        figure(name, ours, as_command, "its command, run as it is by Qila"),
        figure(f"{name}, and all hops", ours, alone, "the bare process, timed inside the sandbox"),
    ]
