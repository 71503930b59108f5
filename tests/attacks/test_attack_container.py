"""Getting out of the container by what is in it: /proc, /sys, control groups, devices, its root, programs of others."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .boxes import Box, run_python, unused_name
from .frame import ROOT, Weakness, attack, row

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

USERS = pytest.mark.parametrize("user", ["program", "install"])
SETUID_DIRECTORY = Path(f"/tmp/qila-attack-setuid-{os.getpid()}")


def more_mounts(**mount: str) -> dict[str, Any]:
    added = {"Type": "bind", **mount}
    return {"Mounts": lambda mounts: [*mounts, added]}


# Opens for writing and writes nothing: it would be the host's own setting.
OPEN_FOR_WRITING = r"""
import os, sys
for path in sys.argv[1:]:
    for directory, _, names in os.walk(path) if os.path.isdir(path) else [('', '', [path])]:
        for name in names:
            try:
                os.close(os.open(os.path.join(directory, name), os.O_WRONLY | os.O_NONBLOCK))
                print(os.path.join(directory, name))
            except OSError:
                continue
"""


@USERS
@attack(weakened=ROOT)
def test_write_a_setting_of_the_kernel(box: Box, user: str) -> list[str]:
    paths = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/sys/kernel", "/sys/module", "/sys/devices/system")
    return run_python(box, OPEN_FOR_WRITING, *paths, user=user)


@attack(weakened=ROOT)
def test_choose_what_the_host_does_with_a_core(box: Box) -> list[str]:
    return run_python(box, OPEN_FOR_WRITING, "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe")


CGROUP = Weakness(
    name="control groups that root may write",
    rows={**ROOT.rows, **more_mounts(Source="/sys/fs/cgroup", Target="/mnt")},
    as_root=True,
)
AGENTS = r"""
import glob, os
for path in [*glob.glob('/sys/fs/cgroup/**/release_agent', recursive=True), *glob.glob('/mnt/*/release_agent'),
             *glob.glob('/sys/fs/cgroup/cgroup.*'), *glob.glob('/sys/fs/cgroup/*/cgroup.procs'), '/mnt/cgroup.procs']:
    try:
        os.close(os.open(path, os.O_WRONLY))
        print(path)
    except OSError:
        continue
"""


@USERS
@attack(weakened=CGROUP)
def test_leave_by_a_control_group(box: Box, user: str) -> list[str]:
    return run_python(box, AGENTS, user=user)


READ = r"""
import os, sys
for path in sys.argv[1:]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        if os.read(descriptor, 64):
            print(path)
    except OSError:
        continue
"""


@USERS
@attack(weakened=ROOT)
def test_read_what_the_kernel_tells_root_alone(box: Box, user: str) -> list[str]:
    paths = ("/proc/kcore", "/proc/timer_list", "/proc/keys", "/proc/kmsg", "/dev/mem", "/dev/kmsg", "/etc/shadow")
    return run_python(box, READ, *paths, "/proc/1/environ", "/proc/1/maps", user=user)


DEVICE = r"""
import itertools, os, stat
devices = ((stat.S_IFBLK, 8, 0), (stat.S_IFBLK, 254, 0), (stat.S_IFCHR, 1, 1), (stat.S_IFCHR, 10, 229))
for place, (kind, major, minor) in itertools.product(('/tmp/device', '/sandbox/device', '/dev/shm/device'), devices):
    try:
        os.mknod(place, kind | 0o666, os.makedev(major, minor))
        print(place, major, minor)
        os.unlink(place)
    except OSError:
        continue
"""


@USERS
@attack(weakened=ROOT)
def test_make_a_device(box: Box, user: str) -> list[str]:
    return run_python(box, DEVICE, user=user)


WRITE_EVERYWHERE = r"""
import os
for top in ('/', '/etc', '/usr', '/usr/bin', '/usr/lib/qila', '/usr/lib/qila/sandboxd', '/usr/local/bin', '/var',
            '/var/tmp', '/opt', '/root', '/run', '/run/qila', '/mnt', '/srv', '/home'):
    try:
        path = os.path.join(top, 'attack')
        open(path, 'x').close()
        os.unlink(path)
        print(top)
    except OSError:
        continue
"""


@USERS
@attack(weakened=Weakness(name="root with a root that it may write", rows={"ReadonlyRootfs": False}, as_root=True))
def test_write_outside_of_the_workspace(box: Box, user: str) -> list[str]:
    return run_python(box, WRITE_EVERYWHERE, user=user)


FIND_SETUID = "find / -xdev -perm /6000 ! -type d 2>/dev/null; find /mnt -perm /6000 ! -type d 2>/dev/null; true"


@pytest.fixture
def setuid_file() -> Iterator[None]:
    """A directory of the host with a file that gives its owner's rights to whoever runs it."""
    SETUID_DIRECTORY.mkdir()
    shutil.copy("/usr/bin/id", SETUID_DIRECTORY / "id")
    (SETUID_DIRECTORY / "id").chmod(0o6755)
    yield
    shutil.rmtree(SETUID_DIRECTORY)


@attack(
    weakened=Weakness(name="a setuid file", rows=more_mounts(Source=str(SETUID_DIRECTORY), Target="/mnt")), fresh=True
)
def test_find_a_program_that_gives_rights_away(setuid_file: None, box: Box) -> list[str]:
    return box.run("sh", "-c", FIND_SETUID).lines


LEAVE_A_SETUID_FILE = "cp /usr/bin/id /sandbox/.qila/id && chmod 6755 /sandbox/.qila/id"


@attack(
    weakened=Weakness(
        name="new privileges", rows={"SecurityOpt": lambda rows: [row for row in rows if row != "no-new-privileges"]}
    )
)
def test_become_the_installer_by_a_file_that_an_install_left(box: Box) -> list[str]:
    left = box.run("sh", "-c", LEAVE_A_SETUID_FILE, user="install")
    assert (left.kind, left.code) == ("exited", 0), left
    shown = box.run("/sandbox/.qila/id").lines
    assert "uid=1000" in shown[0]
    return [line for line in shown if "1001" in line]


FIND_PROCESS = r"""
import pathlib, sys
for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
    try:
        command = path.read_bytes()
    except OSError:
        continue
    if sys.argv[1].encode()[::-1] in command:
        print(path)
"""


@attack(weakened=row("PidMode", "host"))
def test_see_a_process_of_the_host(box: Box) -> list[str]:
    marker = unused_name()
    with subprocess.Popen(["python3", "-c", "input()", marker[::-1]], stdin=subprocess.PIPE) as bystander:
        seen = run_python(box, FIND_PROCESS, marker)
        bystander.communicate(b"\n")
    return seen
