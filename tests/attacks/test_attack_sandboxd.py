"""Getting at sandboxd from inside: its processes, its sockets, its port."""

from __future__ import annotations

import subprocess

import pytest

from .boxes import Box, Boxes, Clone, run_python
from .frame import ROOT, Setting, Weakness, attack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

PTRACE = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
bad = []
for pid in [int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()]:
    uid = open(f'/proc/{pid}/status').read().split('Uid:')[1].split()[0]
    if uid == '0' and libc.ptrace(16, pid, 0, 0) == 0:
        bad.append(pid)
for what in bad:
    print(what)
"""
SIGNALS = r"""
import os, sys
bad = []
for pid in [int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()]:
    uid = open(f'/proc/{pid}/status').read().split('Uid:')[1].split()[0]
    if uid == '0':
        for number in map(int, sys.argv[1:]):
            try:
                os.kill(pid, number)
                bad.append((pid, number))
            except PermissionError:
                pass
for what in bad:
    print(what)
"""
CONNECT = r"""
import socket
for name in ('control', 'doors'):
    try:
        socket.socket(socket.AF_UNIX).connect(f'/run/qila/{name}.sock')
        print('connected', name)
    except OSError:
        pass
try:
    open('/run/qila/x', 'w'); print('wrote')
except OSError:
    pass
"""
PROC = r"""
import os
bad = []
for pid in [p for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()]:
    if 'Uid:\t0' not in open(f'/proc/{pid}/status').read():
        continue
    for name in ('environ', 'mem', 'fd', 'maps', 'root', 'cwd', 'exe'):
        path = f'/proc/{pid}/{name}'
        try:
            look = {'fd': os.listdir, 'root': os.readlink, 'cwd': os.readlink, 'exe': os.readlink}
            look.get(name, lambda p: open(p).read(1))(path)
            bad.append(path)
        except PermissionError:
            pass
        except OSError:
            # It was opened, and has nothing at its first byte.
            bad.append(path)
for what in bad:
    print(what)
"""
PORT = r"""
import socket
for address in ('127.0.0.1', '0.0.0.0'):
    for port in (7480, 7481):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            s.bind((address, port)); s.listen(); print(address, port)
        except OSError:
            pass
"""


USERS = pytest.mark.parametrize("user", ["program", "install"])
# Sent to the first process of a container they would end it; asking whether one may send is harm enough.
DEADLY = (9, 15, 19, 1, 10)
HARMLESS = (0,)


@USERS
@attack(weakened=ROOT)
def test_trace_what_runs_as_root(box: Box, user: str) -> list[str]:
    return run_python(box, PTRACE, user=user)


@USERS
@attack(weakened=ROOT)
def test_signal_what_runs_as_root(box: Box, user: str) -> list[str]:
    return run_python(box, SIGNALS, *(DEADLY if box.is_shipped else HARMLESS), user=user)


@USERS
@attack(weakened=ROOT)
def test_look_into_what_runs_as_root(box: Box, user: str) -> list[str]:
    return run_python(box, PROC, user=user)


def open_sockets(clone: Clone) -> None:
    for path in clone.sandboxd.directory.iterdir():
        path.chmod(0o777)
    clone.sandboxd.directory.chmod(0o777)


@USERS
@attack(weakened=Weakness(name="sockets that everybody may use", prepare=open_sockets), fresh=True)
def test_speak_to_the_executor_and_the_doors(box: Box, user: str) -> list[str]:
    return run_python(box, CONNECT, user=user)


@attack(weakened="a container without sandboxd")
def test_take_a_port_of_the_doors(setting: Setting, boxes: Boxes, sandbox_image: str) -> list[str]:
    if setting is Setting.SHIPPED:
        return run_python(boxes.shipped, PORT)
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3", sandbox_image, "-c", PORT]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
