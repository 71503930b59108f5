"""What untrusted code tries against sandboxd, run in the shipped image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sandboxd_harness import Sandbox  # type: ignore[import-not-found]  # pytest puts this directory on the path

pytestmark = pytest.mark.docker

_PTRACE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
bad = []
for pid in [int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()]:
    uid = open(f'/proc/{pid}/status').read().split('Uid:')[1].split()[0]
    if uid == '0' and libc.ptrace(16, pid, 0, 0) == 0:
        bad.append(pid)
print(bad)
"""
_SIGNALS = """
import os, signal
bad = []
for pid in [int(p) for p in os.listdir('/proc') if p.isdigit()]:
    uid = open(f'/proc/{pid}/status').read().split('Uid:')[1].split()[0]
    if uid == '0':
        for number in (9, 15, 19, 1, 10):
            try:
                os.kill(pid, number)
                bad.append((pid, number))
            except PermissionError:
                pass
print(bad)
"""
_CONNECT = """
import socket
for name in ('control', 'doors'):
    try:
        socket.socket(socket.AF_UNIX).connect(f'/run/qila/{name}.sock')
        print('connected', name)
    except PermissionError:
        pass
try:
    open('/run/qila/x', 'w'); print('wrote')
except OSError:
    pass
print('done')
"""
_PROC = """
import os
bad = []
for pid in [p for p in os.listdir('/proc') if p.isdigit()]:
    if 'Uid:\\t0' not in open(f'/proc/{pid}/status').read():
        continue
    for name in ('environ', 'mem', 'fd', 'maps', 'root', 'cwd', 'exe'):
        path = f'/proc/{pid}/{name}'
        try:
            look = {'fd': os.listdir, 'root': os.readlink, 'cwd': os.readlink, 'exe': os.readlink}
            look.get(name, lambda p: open(p).read(1))(path)
            bad.append(path)
        except PermissionError:
            pass
print(bad)
"""
_PORT = """
import socket
for port in (7480, 7481):
    for address in ('127.0.0.1', '0.0.0.0', '127.0.0.2'):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            s.bind((address, port)); s.listen(); print(address, port)
        except OSError:
            pass
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.mark.parametrize("user", ["program", "install"])
@pytest.mark.parametrize(
    ("script", "expected"),
    [(_PTRACE, b"[]\n"), (_SIGNALS, b"[]\n"), (_CONNECT, b"done\n"), (_PROC, b"[]\n")],
    ids=["ptrace", "signals", "sockets", "proc"],
)
def test_what_runs_as_root_cannot_be_touched(sandbox: Sandbox, script: str, expected: bytes, user: str) -> None:
    header, out, err = sandbox.run("python3", "-c", script, user=user)
    assert (header["end"], out, err) == ({"kind": "exited", "code": 0}, expected, b"")


def test_the_ports_of_the_doors_cannot_be_taken(sandbox: Sandbox) -> None:
    _, out, _ = sandbox.run("python3", "-c", _PORT)
    # Another loopback address is free to take, and nobody is pointed at it.
    assert out == b"127.0.0.2 7480\n127.0.0.2 7481\n"


def test_at_the_limit_of_processes_a_cancel_still_works(sandbox: Sandbox) -> None:
    bomb = sandbox.start("python3", "-c", "import os\nwhile 1:\n try: os.fork()\n except OSError: pass")
    sandbox.wait("started", process=bomb)
    # Nobody is there to read so large an order: whoever sends it must not wait for that.
    large = {f"LARGE_{number}": "x" * 120_000 for number in range(4)}
    while sandbox.run("true", env=large)[0]["end"]["kind"] != "start_failed":
        continue
    while sandbox.call("survey")[0]["type"] != "error":
        continue
    sandbox.send({"type": "cancel", "process": bomb})
    assert sandbox.finish(bomb)[0]["end"] == {"kind": "cancelled"}
    assert sandbox.run("true")[0]["end"] == {"kind": "exited", "code": 0}
    assert sandbox.call("survey")[0]["type"] == "result"
