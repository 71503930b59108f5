"""Bombs and floods: each takes more than its sandbox may have, and the host counts what it really got."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import grpc
import pytest

from qila.gateway.v1 import gateway_pb2 as pb

from .boxes import Box, Boxes, Shipped, host_pids, run_python
from .file_calls import Refused
from .frame import Setting, Weakness, attack, row
from .stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]

MEBIBYTE = 1 << 20
PIDS = 512
BOMB = 900

FORK_BOMB = r"""
import os, sys, time
for number in range(int(sys.argv[1])):
    try:
        if os.fork() == 0:
            time.sleep(600)
    except OSError:
        break
print('ready', flush=True)
time.sleep(600)
"""
THREAD_BOMB = r"""
import sys, threading, time
threading.stack_size(64 << 10)
for number in range(int(sys.argv[1])):
    try:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    except RuntimeError:
        break
print('ready', flush=True)
time.sleep(600)
"""


def tasks(box: Box) -> int:
    """Threads of all processes of the container."""
    count = 0
    for pid in host_pids(box.container):
        try:
            count += len(list(Path(f"/proc/{pid}/task").iterdir()))
        except FileNotFoundError:
            continue
    return count


@pytest.mark.parametrize("bomb", [FORK_BOMB, THREAD_BOMB], ids=["processes", "threads"])
@attack(weakened=row("PidsLimit", 0), fresh=True)
def test_bomb_with(box: Box, bomb: str) -> list[int]:
    running = box.start("python3", "-I", "-c", bomb, str(BOMB))
    count = tasks(box)
    running.stop()
    assert count > PIDS // 2, "the bomb has gone off"
    return [count] if count > PIDS else []


MEMORY_BOMB = r"""
import sys
held = []
for _ in range(int(sys.argv[1]) // 64):
    held.append(b'x' * (64 << 20))
    print(len(held) * 64, flush=True)
"""


@attack(weakened=Weakness(name="no limit of memory", rows={"Memory": 0, "MemorySwap": 0}), fresh=True)
def test_take_more_memory_than_the_sandbox_has(box: Box) -> list[int]:
    outcome = box.run("python3", "-I", "-c", MEMORY_BOMB, "2240")
    taken = int(outcome.lines[-1])
    assert taken > 1024, "the bomb has gone off"
    if box.is_shipped:
        assert outcome.kind == "oom_killed", outcome
        assert box.run("true").code == 0
    return [taken] if taken > 2048 else []


FLOOD_BYTES = r"""
import os, sys
path, mebibytes = sys.argv[1], int(sys.argv[2])
written = 0
try:
    with open(path, 'wb', buffering=0) as file:
        for _ in range(mebibytes):
            written += file.write(bytes(1 << 20))
except OSError as error:
    print(error, file=sys.stderr)
os.unlink(path)
print(written >> 20)
"""


@pytest.mark.parametrize(("place", "limit"), [("/tmp", 256), ("/dev/shm", 256)])
@attack(
    weakened=Weakness(
        name="large file systems in memory", rows={"Tmpfs": {"/tmp": "size=1g", "/dev/shm": "size=1g,mode=1777"}}
    )
)
def test_flood_a_file_system_in_memory_with_bytes(box: Box, place: str, limit: int) -> list[int]:
    (written,) = map(int, run_python(box, FLOOD_BYTES, f"{place}/flood", limit + 50))
    assert written >= limit // 2, "the flood has come"
    return [written] if written > limit else []


FLOOD_INODES = r"""
import os, shutil, sys
directory, count = sys.argv[1], int(sys.argv[2])
os.mkdir(directory)
made = 0
try:
    for number in range(count):
        os.mknod(f'{directory}/{number}')
        made += 1
except OSError as error:
    print(error, file=sys.stderr)
shutil.rmtree(directory)
print(made)
"""


@attack(weakened=Weakness(name="/tmp without a limit of files", rows={"Tmpfs": {"/tmp": "size=256m,nr_inodes=0"}}))
def test_flood_tmp_with_files(box: Box) -> list[int]:
    (made,) = map(int, run_python(box, FLOOD_INODES, "/tmp/flood", 66_000))
    assert made > 10_000, "the flood has come"
    return [made] if made > 65_536 else []


WORKSPACE_MEBIBYTES = 64
# One for each 16 KiB.
WORKSPACE_INODES = 4096


@pytest.fixture
def small(setting: Setting, boxes: Boxes, stack: Stack) -> Iterator[Box]:
    """A sandbox with a small workspace, or one whose workspace nothing bounds."""
    if setting is Setting.WEAKENED:
        yield boxes.clone(Weakness(name="a plain volume"))
        return
    shipped = Shipped(stack, disk_bytes=WORKSPACE_MEBIBYTES * MEBIBYTE)
    yield shipped
    shipped.close()


@attack(weakened="a plain volume")
def test_take_more_disk_than_the_workspace_has(setting: Setting, small: Box) -> list[int]:
    (written,) = map(int, run_python(small, FLOOD_BYTES, "/sandbox/flood", WORKSPACE_MEBIBYTES + 10))
    assert written >= WORKSPACE_MEBIBYTES // 2, "the flood has come"
    return [written] if written > WORKSPACE_MEBIBYTES else []


@attack(weakened="a plain volume")
def test_take_more_files_than_the_workspace_has(setting: Setting, small: Box) -> list[int]:
    (made,) = map(int, run_python(small, FLOOD_INODES, "/sandbox/flood", WORKSPACE_INODES + 100))
    assert made >= WORKSPACE_INODES // 2, "the flood has come"
    return [made] if made > WORKSPACE_INODES else []


def peak(pid: int) -> int:
    """The most memory that a process has had since its peak was reset, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


class Growth:
    """How much memory each service takes beyond what it had, in MiB, while something goes on."""

    def __init__(self, stack: Stack) -> None:
        self._pids = {name: process.pid for name, process in stack.processes.items()}
        self._before: dict[str, int] = {}

    def __enter__(self) -> Self:
        for name, pid in self._pids.items():
            Path(f"/proc/{pid}/clear_refs").write_text("5")
            self._before[name] = peak(pid)
        return self

    def __exit__(self, *_: object) -> None:
        self.by_service = {name: peak(pid) - self._before[name] for name, pid in self._pids.items()}

    def beyond(self, mebibytes: int) -> list[str]:
        return [f"{name} grew by {grown} MiB" for name, grown in self.by_service.items() if grown > mebibytes]


FLOOD_OUTPUT = "import os, sys\nfor _ in range(int(sys.argv[1])): os.write(1, b'x' * (1 << 20))"
# What keeps all that a program says in memory, as a careless service would.
KEEPER = r"""
import pathlib, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, check=True)
print(pathlib.Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])
"""
FLOOD_MEBIBYTES = 256
FLAT_MEBIBYTES = 48


def naive_growth(*argv: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", KEEPER, *argv], capture_output=True, check=True, timeout=200)
    grown = int(done.stdout) >> 10
    return [f"the keeper grew to {grown} MiB"] if grown > FLAT_MEBIBYTES + 30 else []


def naive_flood(container: str) -> list[str]:
    program = ["python3", "-c", FLOOD_OUTPUT, str(FLOOD_MEBIBYTES)]
    return naive_growth("docker", "exec", "-u", "1000", container, *program)


@attack(weakened="a service that keeps the output in memory")
def test_flood_the_services_with_output(setting: Setting, boxes: Boxes, stack: Stack) -> list[str]:
    if setting is Setting.WEAKENED:
        return naive_flood(boxes.shipped.container)
    with Growth(stack) as growth:
        outcome = boxes.shipped.run("python3", "-c", FLOOD_OUTPUT, str(FLOOD_MEBIBYTES), seconds=200)
    assert (outcome.kind, outcome.code) == ("exited", 0)
    kept = len(outcome.out)
    assert kept <= 65 * MEBIBYTE
    return growth.beyond(FLAT_MEBIBYTES)


@attack(weakened="a program whose output goes straight to its client")
def test_hold_a_program_up_by_not_reading_its_output(setting: Setting, boxes: Boxes, stack: Stack) -> list[str]:
    program = ["python3", "-c", FLOOD_OUTPUT + "\nopen('/tmp/done', 'w').close()", "32"]
    # Where it waits for a client that never reads, it waits for ever.
    looks = 100 if setting is Setting.SHIPPED else 20
    done = f"import os, time\nfor _ in range({looks}):\n if os.path.exists('/tmp/done'): break\n time.sleep(0.1)\n"
    tell = done + "print(os.path.exists('/tmp/done')); os.path.exists('/tmp/done') and os.unlink('/tmp/done')"
    if setting is Setting.WEAKENED:
        command = ["docker", "exec", "-u", "1000", boxes.shipped.container, *program]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            ended = run_python(boxes.shipped, tell) == ["True"]
            client.kill()
        return [] if ended else ["the program waits"]
    request = pb.ExecRequest(sandbox_id=boxes.shipped.id, command=pb.Command(argv=program))
    with Growth(stack) as growth:
        stream = stack.gateway.Exec(request)
        next(iter(stream))
        ended = run_python(boxes.shipped, tell) == ["True"]
        stream.cancel()
    return growth.beyond(FLAT_MEBIBYTES) + ([] if ended else ["the program waits"])


def spooled(stack: Stack, sandbox: str) -> int:
    directory = stack.directory / "state" / "sandboxes" / sandbox
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) // MEBIBYTE


@attack(weakened="an exec that asked for more output")
def test_fill_the_disk_of_the_host_with_output(setting: Setting, stack: Stack) -> list[int]:
    box = Shipped(stack)
    request = pb.ExecRequest(sandbox_id=box.id, command=pb.Command(argv=["python3", "-c", FLOOD_OUTPUT, "200"]))
    if setting is Setting.WEAKENED:
        request.output_limit_bytes = 150 * MEBIBYTE
    for _ in stack.gateway.Exec(request, timeout=200):
        continue
    size = spooled(stack, box.id)
    box.close()
    return [size] if size > 65 else []


MANY_NAMES = r"""
import os, sys
os.mkdir('/sandbox/many')
for number in range(int(sys.argv[1])):
    os.mknod(f'/sandbox/many/{number:0200}')
"""


@attack(weakened="a service that keeps the listing in memory")
def test_flood_the_services_with_a_directory(setting: Setting, boxes: Boxes, stack: Stack) -> list[str]:
    box = boxes.shipped
    if setting is Setting.WEAKENED:
        return naive_growth("python3", "-c", "print('x' * 200_000_000)")
    run_python(box, MANY_NAMES, 100_000, seconds=120)
    with Growth(stack) as growth:
        with suppress(Refused):
            box.files.list("many")
        assert box.run("true").code == 0
    return growth.beyond(FLAT_MEBIBYTES)


SPARSE = "import os; open('/sandbox/sparse', 'w').close(); os.truncate('/sandbox/sparse', 1 << 40)"


@attack(weakened="a service that reads the file whole")
def test_flood_the_services_with_a_sparse_file(setting: Setting, boxes: Boxes, stack: Stack) -> list[str]:
    if setting is Setting.WEAKENED:
        return naive_growth("head", "-c", str(256 * MEBIBYTE), "/dev/zero")
    box = boxes.shipped
    run_python(box, SPARSE)
    received = 0
    # Refused, because the workspace cannot hold it: as good.
    with Growth(stack) as growth, suppress(grpc.RpcError):
        for response in stack.gateway.ReadFile(pb.ReadFileRequest(sandbox_id=box.id, path="sparse"), timeout=60):
            received += len(response.chunk)
            if received > 256 * MEBIBYTE:
                break
    box.files.remove("sparse")
    return growth.beyond(FLAT_MEBIBYTES)
