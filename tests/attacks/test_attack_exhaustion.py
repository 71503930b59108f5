"""Using up what the doors have: slow heads, a thousand connections and tunnels, held requests, endless headers.

The oracle is a sibling before the same doors: it must get what it asks for meanwhile.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .doors import CONNECT, HOST, MIRROR, NAIVE, DoorProcess, Front, Reply, Site
from .frame import Setting, attack
from .test_attack_connect import connect, hello
from .test_attack_registries import request, stored, wanted

pytestmark = [pytest.mark.docker, pytest.mark.alone, pytest.mark.timeout(120)]

POOL = "one pool for all"
LARGE = b"a large file" * 300_000
_VICTIM_SECONDS = 6


@pytest.fixture(scope="module")
def site(sandbox_image: str) -> Iterator[Site]:
    with Site() as made:
        yield made


# Makes many connections, says the same on each, and holds them all; goes on when they are connected.
FLOOD = r"""
import base64, select, socket, sys, time
count, port, *parts = sys.argv[1:]
said = [base64.b64decode(part) for part in parts]
held = []
for number in range(int(count)):
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(('127.0.0.1', int(port)))
    held.append(connection)
print('flooding', flush=True)
for part in said:
    left, deadline = set(held), time.monotonic() + 3
    while left and time.monotonic() < deadline:
        _, ready, _ = select.select([], list(left)[:900], [], 0.1)
        for connection in ready:
            left.discard(connection)
            try:
                connection.send(part.replace(b'NUMBER', str(held.index(connection)).encode()))
            except OSError:
                pass
while True:
    time.sleep(60)
"""


@contextmanager
def flood(front: Front, port: int, *parts: bytes, at_least: int = 126, count: int = 1000) -> Iterator[None]:
    said = [base64.b64encode(part).decode() for part in parts]
    before = sockets(front)
    name = front.box.start(FLOOD, count, port, *said)
    try:
        assert eventually(lambda: len(sockets(front) - before) >= at_least), (
            "the doors have taken what they take of one sandbox"
        )
        yield
    finally:
        front.registry.let_go.set()
        front.box.stop(name)


def sockets(front: Front) -> set[str]:
    """Those that the doors process has, by the kernel's name of each."""
    assert isinstance(front.doors, DoorProcess)
    found = set()
    for descriptor in Path(f"/proc/{front.doors.process.pid}/fd").iterdir():
        # It may be closed meanwhile.
        with suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return found


def eventually(is_so: Callable[[], bool]) -> bool:
    """Whether it is so within 20 s."""
    deadline = time.monotonic() + 20
    pause = threading.Event()
    while not is_so() and time.monotonic() < deadline:
        pause.wait(0.05)
    return is_so()


def unserved(site: Site, front: Front) -> list[bytes]:
    """What a sibling was answered that wanted a page, a large file and a tunnel, where it is not what it wanted."""
    front.registry.pages[stored(LARGE)] = Reply(body=LARGE)
    front.registry.pages["/maven2/org/demo/demo/1.0/demo-1.0.pom.sha1"] = Reply(body=b"a sibling's page")
    cases: list[bytes | Sequence[bytes]] = [
        request("/maven/org/demo/demo/1.0/demo-1.0.pom.sha1"),
        request(wanted(LARGE, stored(LARGE))),
        (connect(f"{HOST}:443"), hello(HOST)),
    ]
    with site.sibling(front) as sibling:
        page, file, tunnel = sibling.send(cases, port=[MIRROR, MIRROR, CONNECT], seconds=_VICTIM_SECONDS)
    served = (page.endswith(b"a sibling's page"), file.endswith(LARGE), tunnel.endswith(b"canary"))
    said = (b"page " + page[:99], b"file " + file[:99], b"tunnel " + tunnel[:99])
    return [text for text, is_served in zip(said, served, strict=True) if not is_served]


@attack(weakened=POOL)
def test_hold_the_doors_with_slow_heads(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, POOL, networked=True)
    with flood(front, MIRROR, b"GET /npm/demo HTTP/1.1\r\nHost: 127.0"):
        return unserved(site, front)


@attack(weakened=POOL)
def test_hold_the_connect_door_with_slow_heads(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, POOL, networked=True)
    # Fewer, so that they are there long before the first has had its time.
    with flood(front, CONNECT, f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: ".encode(), count=300):
        return unserved(site, front)


@attack(weakened=POOL)
def test_hold_a_thousand_tunnels(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, POOL, networked=True)
    with flood(front, CONNECT, connect(f"{HOST}:443"), hello(HOST), at_least=60):
        assert eventually(lambda: b"" in front.public.seen), "there are tunnels"
        return unserved(site, front)


@attack(weakened=POOL)
def test_hold_every_request_that_may_be_under_way(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, POOL, networked=True)
    held = {f"/maven2/org/held/{number}/maven-metadata.xml": Reply(body=b"x", held=True) for number in range(1000)}
    front.registry.pages |= held
    with flood(front, MIRROR, b"GET /maven/org/held/NUMBER/maven-metadata.xml HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
        assert eventually(lambda: len(front.registry.seen) > 5), "there are requests under way"
        return unserved(site, front)


# Sends a header without end; prints how much of it was taken before somebody said something.
ENDLESS = r"""
import select, socket, sys
sent = 0
with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as connection:
    connection.settimeout(3)
    try:
        connection.sendall(b'GET /npm/demo HTTP/1.1\r\nHost: 127.0.0.1\r\n')
        piece = sys.argv[2].encode().decode('unicode_escape').encode() * 8192
        while sent < 16 << 20 and not select.select([connection], [], [], 0)[0]:
            sent += connection.send(piece)
    except OSError:
        pass
print(sent)
"""


@attack(weakened=NAIVE)
def test_send_headers_without_end(site: Site, setting: Setting) -> list[int]:
    front = site.front(setting, NAIVE)
    kinds = ["X: y\\r\\n", "x"]
    taken = [int(front.box.run(ENDLESS, port, kind)[0]) for kind in kinds for port in (MIRROR, CONNECT)]
    return [size for size in taken if size >= 16 << 20]
