"""Getting at another's terminal, and having root signal whom a program could not signal itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .boxes import PYTHON
from .frame import Setting, attack

if TYPE_CHECKING:
    from tests.integration.sandboxd_harness import Sandbox
else:
    from sandboxd_harness import Sandbox

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

SIZE = {"rows": 24, "columns": 80}
OPEN = r"""
import os
paths = ['/dev/pts/' + name for name in os.listdir('/dev/pts') if name.isdigit()]
paths += [f'/proc/{pid}/fd/{fd}' for pid in os.listdir('/proc') if pid.isdigit() and int(pid) != os.getpid()
          for fd in (0, 1, 2)]
for path in paths:
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_PATH):
        try:
            found = os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            continue
        # A name alone is no way in.
        if flags != os.O_PATH and os.isatty(found):
            print(path, flags)
        os.close(found)
"""
TYPE = r"""
import fcntl, os, termios
if os.getsid(0) != os.getpid():
    os.setsid()
for name in os.listdir('/dev/pts'):
    if not name.isdigit():
        continue
    try:
        terminal = os.open('/dev/pts/' + name, os.O_RDWR | os.O_NOCTTY)
    except OSError:
        continue
    for what, request, argument in (
        ('typed', termios.TIOCSTI, b'x'),
        ('stolen', termios.TIOCSCTTY, 1),
        ('foreground', termios.TIOCSPGRP, os.getpid().to_bytes(4, 'little')),
    ):
        try:
            fcntl.ioctl(terminal, request, argument)
            print(what, name)
        except OSError:
            pass
"""
# The supervisor is told what a program could make sandboxd believe: that a foreign group is in the foreground.
FORGE = r"""
import os, signal, subprocess, sys, time
sys.path.insert(0, '/usr/lib/qila/sandboxd')
from qila_sandboxd.supervisors import Order, Supervisors, STARTED

def victim(user, script='echo ready; exec sleep 1000'):
    # A session of its own; its user alone.
    process = subprocess.Popen(['sh', '-c', script], stdout=subprocess.PIPE, start_new_session=True,
                               user=user, group=user, extra_groups=[])
    process.stdout.readline()
    return process

def orphaned(user):
    # Its first process has ended, and was waited for: only the group is left.
    process = victim(user, 'sleep 1000 <&- >&- 2>&- & echo ready')
    process.wait()
    return process

def members(group):
    return [p for p in os.listdir('/proc') if p.isdigit() and group_of(p) == group]

def group_of(process):
    try:
        text = open(f'/proc/{process}/stat').read().rsplit(')', 1)[1].split()
    except OSError:
        return None
    return None if text[0] in 'ZX' else int(text[2])

naive = sys.argv[1] == 'naive'
victims = {'root': victim(0), 'installer': victim(1001), 'installer without first': orphaned(1001),
           'other program': victim(1000)}
for name, process in victims.items():
    supervisor = Supervisors().take()
    order = Order(['sleep', '1000'], {'PATH': '/usr/bin:/bin'}, '/', 1000, background=False)
    supervisor.start(order.packed())
    [(kind, leader, _)] = supervisor.reports()
    assert kind == STARTED
    if naive:
        os.killpg(process.pid, signal.SIGUSR1)
    supervisor.signal(signal.SIGUSR1, process.pid, leader)
    # The leader is signalled in its place; if it is not, somebody else was.
    supervisor.orders.settimeout(5)
    try:
        [(_, status, _)] = supervisor.reports()
        assert os.WTERMSIG(status) == signal.SIGUSR1
    except TimeoutError:
        supervisor.kill()
        print('signalled in place of the leader:', name)
    if not members(process.pid):
        print('signalled:', name)
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


def started(sandbox: Sandbox, user: str) -> str:
    """Somebody works at a terminal."""
    name: str = sandbox.start("sh", "-c", "echo ready; cat", terminal=SIZE, user=user)
    sandbox.read_until(name, b"ready")
    return name


def ended(sandbox: Sandbox, name: str) -> bytes:
    """What was shown at a terminal from its first line on, and its end."""
    sandbox.send({"type": "cancel", "process": name})
    came: dict[str, Any] = {"terminal": b"ready\r\n"}
    streams: dict[str, bytes] = sandbox.collect(name, came)[1]
    return streams["terminal"].removeprefix(b"ready\r\n")


def as_root(sandbox: Sandbox, *arguments: str) -> list[str]:
    command = ["docker", "exec", "-u", "0", sandbox.name, *PYTHON, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@attack(weakened="a terminal of the program's own user")
def test_open_the_installers_terminal(setting: Setting, sandbox: Sandbox) -> list[str]:
    name = started(sandbox, "install" if setting is Setting.SHIPPED else "program")
    header, out, err = sandbox.run(*PYTHON, OPEN)
    assert header["end"] == {"kind": "exited", "code": 0}, err
    ended(sandbox, name)
    return list(out.decode().splitlines())


@attack(weakened="a program that sits at the terminal itself")
def test_type_into_another_terminal(setting: Setting, sandbox: Sandbox) -> list[str]:
    """Programs of one user may open each other's; they type nothing there, and take none over."""
    names = [started(sandbox, user) for user in ("program", "install")]
    own = {} if setting is Setting.SHIPPED else {"terminal": SIZE}
    header, streams = sandbox.collect(sandbox.start(*PYTHON, TYPE, **own))
    assert header["end"] == {"kind": "exited", "code": 0}, streams
    assert not any(ended(sandbox, name) for name in names)
    return b"".join(streams.values()).decode().splitlines()


@attack(weakened="root that believes which group is in the foreground")
def test_have_root_signal_a_forged_foreground_group(setting: Setting, sandbox: Sandbox) -> list[str]:
    return as_root(sandbox, FORGE, "naive" if setting is Setting.WEAKENED else "shipped")


TAKE = r"""
import fcntl, os, signal, sys, termios, time
# Every group that there is, put into the foreground of the own terminal.
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
for pid in [int(p) for p in os.listdir('/proc') if p.isdigit()]:
    try:
        group = os.getpgid(pid)
        if group != os.getpgid(0):
            os.tcsetpgrp(0, group)
            print('set', group)
    except OSError:
        pass
print('ready', flush=True)
time.sleep(1000)
"""


@attack(weakened="a terminal whose group is looked up among all processes")
def test_put_a_foreign_group_into_the_foreground(setting: Setting, sandbox: Sandbox) -> list[str]:
    victim = sandbox.start("sh", "-c", "echo ready; exec sleep 1000", user="install")
    sandbox.read_until(victim, b"ready", "stdout")
    name = sandbox.start(*PYTHON, TAKE, terminal=SIZE)
    sandbox.read_until(name, b"ready")
    if setting is Setting.SHIPPED:
        sandbox.send({"type": "signal", "process": name, "signal": 10})
    else:
        pid = sandbox.wait("started", process=victim)[0]["pid"]
        as_root(sandbox, f"import os; os.killpg({pid}, 10)")
        sandbox.send({"type": "cancel", "process": name})
    sandbox.wait("ended", process=name)
    sandbox.send({"type": "cancel", "process": victim})
    end = sandbox.wait("ended", process=victim)[0]["end"]
    for process in (name, victim):
        sandbox.send({"type": "forget", "process": process})
    return [str(end)] if end["kind"] != "cancelled" else []
