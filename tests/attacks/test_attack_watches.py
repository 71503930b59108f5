"""Getting at a watch of files from inside: its process, and the paths that it is led along."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from qila.gateway.v1 import gateway_pb2 as pb

from .boxes import PYTHON, Boxes, Shipped, run_python
from .frame import Setting, attack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

# Every way to stop a process, slow it, or speak for it, that needs no privilege but the same user.
STOP = r"""
import ctypes, os, resource, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
targets = []
for pid in [int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()]:
    uid = open(f'/proc/{pid}/status').read().split('Uid:')[1].split()[0]
    words = open(f'/proc/{pid}/cmdline', 'rb').read().split(b'\0')
    if uid == sys.argv[1] and (uid == '1002' or b'--watcher' in words):
        targets.append(pid)
if not targets:
    sys.exit('there is no watcher')
def took(name, what, *arguments):
    try:
        what(*arguments)
        print(name)
    except OSError:
        pass
def traced(pid):
    if libc.ptrace(16, pid, 0, 0):
        raise OSError
    libc.ptrace(17, pid, 0, 0)
for pid in targets:
    took('traced', traced, pid)
    took('memory', open, f'/proc/{pid}/mem', 'r+b')
    took('descriptors', os.listdir, f'/proc/{pid}/fd')
    took('pidfd', lambda pid: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGSTOP), pid)
    took('slowed', os.setpriority, os.PRIO_PROCESS, pid, 19)
    took('idle', os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0))
    took('bound', os.sched_setaffinity, pid, {0})
    took('limited', resource.prlimit, pid, resource.RLIMIT_NOFILE, (0, 0))
    took('oom', lambda pid: open(f'/proc/{pid}/oom_score_adj', 'w').write('1000'), pid)
    took('stopped', os.kill, pid, signal.SIGSTOP)
    took('killed', os.kill, pid, signal.SIGKILL)
"""
NAIVE_WATCHER = "import time; print('ready', flush=True); time.sleep(600)"

# Puts a link where a directory was, again and again, while something happens in both.
SWAP = r"""
import os, shutil, sys, time
os.chdir('/sandbox/swap')
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    os.mkdir('d')
    open('d/ours', 'w').close()
    os.rename('d', 'old')
    os.symlink(sys.argv[2], 'd')
    os.unlink('old/ours')
    os.rmdir('old')
    os.unlink('d')
"""
NAIVE_WALK = r"""
import os, time
seen = set()
print('ready', flush=True)
while True:
    for directory, _, files in os.walk('/sandbox/swap', followlinks=True):
        for name in files:
            path = os.path.relpath(f'{directory}/{name}', '/sandbox/swap')
            if path not in seen:
                seen.add(path)
                print(path, flush=True)
"""
SWAP_SECONDS = 5


@contextmanager
def watched(box: Shipped, path: str = "") -> Iterator[Iterator[Any]]:
    """A watch that is ready."""
    call = box.stack.gateway.WatchFiles(pb.WatchFilesRequest(sandbox_id=box.id, path=path), timeout=100)
    assert next(call).HasField("ready")
    try:
        yield call
    finally:
        call.cancel()


def told_until(call: Iterator[Any], sign: str) -> list[str]:
    """The paths that are told before the sign, or in place of which something was lost."""
    paths: list[str] = []
    for response in call:
        if response.HasField("ended"):
            break
        found = [change.path for change in response.changes.changes]
        paths += found
        if sign in found:
            return paths
    raise AssertionError(f"the watch ended: {paths[-3:]}")


@attack(weakened="a watcher of the program's own user")
def test_a_program_stops_slows_or_traces_its_watcher(setting: Setting, boxes: Boxes) -> list[str]:
    box = boxes.shipped
    if setting is Setting.WEAKENED:
        box.start(*PYTHON, NAIVE_WATCHER, "--watcher")
        return run_python(box, STOP, 1000)
    with watched(box) as call:
        took = run_python(box, STOP, 1002)
        box.files.write("sign", b"")
        told_until(call, "sign")
        return took


@attack(weakened="a walk that follows links")
def test_a_link_in_the_place_of_a_directory_leads_a_watch_out_of_the_workspace(
    setting: Setting, boxes: Boxes
) -> set[str]:
    box = boxes.shipped
    run_python(box, "import os; os.makedirs('/sandbox/swap', exist_ok=True)")
    if setting is Setting.WEAKENED:
        walk = f"import threading; threading.Timer(15, lambda: __import__('os')._exit(0)).start()\n{NAIVE_WALK}"
        request = pb.ExecRequest(sandbox_id=box.id, command=pb.Command(argv=[*PYTHON, walk]))
        walking = box.stack.gateway.Exec(request, timeout=60)
        run_python(box, SWAP, SWAP_SECONDS, "/etc")
        output = b"".join(response.event.output.data for response in walking)
        return set(output.decode().split()) - {"ready", "d/ours", "old/ours"}
    with watched(box, "swap") as call:
        run_python(box, SWAP, SWAP_SECONDS, "/etc")
        box.files.write("swap/sign", b"")
        return set(told_until(call, "sign")) - {"d", "d/ours", "old", "old/ours", "sign"}


@attack(weakened="a path that may be a link")
def test_a_watch_of_a_link_watches_what_lies_outside(setting: Setting, boxes: Boxes) -> str:
    box = boxes.shipped
    run_python(box, "import os; os.path.lexists('/sandbox/out') or os.symlink('/etc', '/sandbox/out')")
    if setting is Setting.WEAKENED:
        return "".join(run_python(box, "import os; print(os.listdir('/sandbox/out')[0])"))
    for path in ("out", "out/ssl"):
        try:
            with watched(box, path):
                return path
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
    return ""
