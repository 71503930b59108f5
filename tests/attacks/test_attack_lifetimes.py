"""Outliving a timeout or a cancel: the host looks for what is left of the container's processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .boxes import Box, host_pids, unused_name
from .frame import Setting, Weakness, attack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

# With few processes: whatever forks without end stays for a while here, and slows down what is measured next.
LEADER_ONLY = Weakness(name="a kill of the leader alone", rows={"PidsLimit": 64}, naive_kill=True)

# Each prints a line once it has taken cover, and its processes carry the marker in their arguments.
BEGIN = r"""
import ctypes, os, signal, subprocess, sys, threading, time
marker = sys.argv[-1]
def rest():
    while True:
        time.sleep(1000)
def ready():
    os.write(1, b'ready\n')
"""
WAYS = {
    "ignores every signal": r"""
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
os.fork()
ready()
rest()
""",
    "forks twice": r"""
if os.fork() == 0:
    if os.fork() == 0:
        ready()
        rest()
    os._exit(0)
os.wait()
rest()
""",
    "becomes a daemon": r"""
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        ready()
        os.closerange(0, 1024)
        rest()
    os._exit(0)
os.wait()
rest()
""",
    "stops itself": r"""
if os.fork() == 0:
    ready()
    os.kill(os.getpid(), signal.SIGSTOP)
rest()
""",
    "takes another name": r"""
ctypes.CDLL(None).prctl(15, b'kworker/0:1')
command = ['[kworker/0:1]', '-c', 'import time; time.sleep(1000)', marker]
subprocess.Popen(command, executable=sys.executable, start_new_session=True)
ready()
rest()
""",
    "forks as it is asked to end": r"""
def again(*_):
    if os.fork():
        os._exit(0)
signal.signal(signal.SIGTERM, again)
signal.signal(signal.SIGHUP, again)
os.fork()
ready()
rest()
""",
    "forks without end": r"""
if os.fork() == 0:
    ready()
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            pass
rest()
""",
    "leaves threads": r"""
if os.fork() == 0:
    for _ in range(20):
        threading.Thread(target=rest).start()
    ready()
    rest()
rest()
""",
    "adopts its own orphans": r"""
ctypes.CDLL(None).prctl(36, 1)
if os.fork() == 0:
    if os.fork() == 0:
        ready()
        rest()
    os._exit(0)
rest()
""",
}


def survivors(box: Box, marker: str) -> list[str]:
    """Commands of the container's processes that carry the marker."""
    found = []
    for pid in host_pids(box.container):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if marker.encode() in command and state not in "ZX":
            found.append(f"{pid} {state}")
    return found


def left(box: Box, marker: str, kind: str) -> list[str]:
    """What has outlived the end of that kind. On a machine that is too busy for the sweep the container is killed."""
    deadline = time.monotonic() + (30 if kind == "sandbox_lost" else 0)
    while (found := survivors(box, marker)) and time.monotonic() < deadline:
        continue
    return found


@pytest.mark.parametrize("way", WAYS)
@attack(weakened=LEADER_ONLY, fresh=Setting.WEAKENED)
def test_outlive_a_cancel(box: Box, way: str) -> list[str]:
    marker = unused_name()
    running = box.start("python3", "-I", "-c", BEGIN + WAYS[way], marker)
    assert survivors(box, marker), "the attack has begun"
    return left(box, marker, running.stop())


@pytest.mark.parametrize("way", WAYS)
@attack(weakened=LEADER_ONLY, fresh=Setting.WEAKENED)
def test_outlive_a_timeout(box: Box, way: str) -> list[str]:
    marker = unused_name()
    # The longer ones are for a busy machine, on which the attack has not even begun in the first.
    for seconds in (1, 5, 25):
        outcome = box.run("python3", "-I", "-c", BEGIN + WAYS[way], marker, seconds=seconds)
        assert outcome.kind in {"timed_out", "sandbox_lost"}, outcome
        if b"ready" in outcome.out:
            break
    assert b"ready" in outcome.out, "the attack has begun"
    return left(box, marker, outcome.kind)


CHILD_OF_THE_PAST = r"""
if os.fork() == 0:
    os.setsid()
    rest()
ready()
"""


@attack(weakened=LEADER_ONLY, fresh=Setting.WEAKENED)
def test_outlive_an_exec_and_then_its_cancel(box: Box) -> list[str]:
    marker = unused_name()
    running = box.start("python3", "-I", "-c", BEGIN + CHILD_OF_THE_PAST, marker)
    deadline = time.monotonic() + 30
    while len(survivors(box, marker)) != 1 and time.monotonic() < deadline:
        continue
    return left(box, marker, running.stop())
