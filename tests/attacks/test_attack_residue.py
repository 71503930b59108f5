"""What one sandbox leaves for another: files, shared memory, queues, keys, sockets, settings of the services."""

from __future__ import annotations

import pytest

from .boxes import Box, Boxes, Clone, Shipped, engine, run_python, unused_name
from .frame import ROOT, Setting, Weakness, attack
from .stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

LEAVE = r"""
import ctypes, os, pathlib, socket, sys
marker = sys.argv[1]
places = ('/tmp', '/sandbox', '/dev/shm', '/dev/mqueue', '/sandbox/.home', '/sandbox/.local', '/var/tmp', '/run/lock')
for directory in places:
    try:
        pathlib.Path(directory, marker).write_text(marker)
    except OSError:
        continue
libc = ctypes.CDLL(None)
key = int(marker[-6:], 16)
segment = libc.shmget(key, 4096, 0o1666)
libc.semget(key, 1, 0o1666)
queue = libc.msgget(key, 0o1666)
libc.mq_open(f'/{marker}'.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
libc.syscall(248, b'user', marker.encode(), marker.encode(), len(marker), -5)
"""
LOOK = r"""
import ctypes, os, pathlib, sys
marker = sys.argv[1]
places = ('/tmp', '/sandbox', '/dev/shm', '/dev/mqueue', '/sandbox/.home', '/sandbox/.local', '/var/tmp', '/run/lock')
for directory in places:
    if os.path.exists(f'{directory}/{marker}'):
        print(directory)
libc = ctypes.CDLL(None)
key = int(marker[-6:], 16)
found = {'memory': libc.shmget(key, 0, 0), 'semaphores': libc.semget(key, 0, 0), 'queue': libc.msgget(key, 0)}
for name, number in found.items():
    if number >= 0:
        print(name)
"""


@attack(weakened="two containers that share volume and memory")
def test_find_what_another_sandbox_left(setting: Setting, boxes: Boxes, stack: Stack) -> list[str]:
    marker = unused_name()
    if setting is Setting.SHIPPED:
        run_python(boxes.shipped, LEAVE, marker)
        another = Shipped(stack)
        evidence = run_python(another, LOOK, marker)
        another.close()
        return evidence
    host_memory = {"IpcMode": "host"}
    first = boxes.clone(Weakness(name="the memory of the host", rows=host_memory))
    run_python(first, LEAVE, marker)
    volume = {
        "Mounts": lambda mounts: [m | {"Source": first.container} if m["Type"] == "volume" else m for m in mounts]
    }
    second = Clone(boxes.shipped, Weakness(name="the volume of another", rows={**host_memory, **volume}))
    with second:
        evidence = run_python(second, LOOK, marker)
    run_python(first, REMOVE, marker)
    return evidence


REMOVE = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None)
key = int(sys.argv[1][-6:], 16)
libc.shmctl(libc.shmget(key, 0, 0), 0, None)
libc.semctl(libc.semget(key, 0, 0), 0, 0)
libc.msgctl(libc.msgget(key, 0), 0, None)
os.path.exists(f'/dev/shm/{sys.argv[1]}') and os.unlink(f'/dev/shm/{sys.argv[1]}')
"""


@attack(weakened="a removal that keeps the volume")
def test_find_a_workspace_after_its_removal(setting: Setting, boxes: Boxes, stack: Stack) -> list[str]:
    marker = unused_name()
    removed = Shipped(stack)
    removed.files.write("secret", marker.encode())
    if setting is Setting.WEAKENED:
        return run_python(removed, "import os; print(*os.listdir('/sandbox'), sep='\\n')")
    container = removed.container
    removed.close()
    api = engine()
    volumes = [volume["Name"] for volume in api.volumes()["Volumes"] or [] if container in volume["Name"]]
    containers = [row["Names"] for row in api.containers(all=True) if f"/{container}" in row["Names"]]
    spools = [str(path) for path in stack.directory.rglob(f"*{removed.id}*")]
    return [*volumes, *map(str, containers), *spools]


ENVIRONMENT = r"""
import os, pathlib
texts = {'own': '\n'.join(f'{name}={value}' for name, value in os.environ.items())}
for path in pathlib.Path('/proc').glob('[0-9]*/environ'):
    try:
        texts[str(path)] = path.read_text(errors='replace').replace('\0', '\n')
    except OSError:
        continue
for where, text in texts.items():
    for line in text.splitlines():
        if line == 'SSL_CERT_FILE=/run/qila/trust/ca.pem':
            continue  # the sandbox's own, given on purpose
        if line.startswith(('QILA_', 'DOCKER_', 'SSL_CERT', 'GRPC_')) or 'TOKEN' in line.upper():
            print(where, line.partition('=')[0])
"""


@pytest.mark.parametrize("user", ["program", "install"])
@attack(weakened=Weakness(name="root among the host's processes", rows={**ROOT.rows, "PidMode": "host"}, as_root=True))
def test_read_the_variables_of_the_services(box: Box, user: str) -> list[str]:
    return run_python(box, ENVIRONMENT, user=user)
