"""Wearing the doors down, and having them say what they should not: floods, crashes, bad settings, forged lines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from services.executor.egress import policy
from services.executor.egress.config import DoorsConfig
from services.executor.egress.door_process import Doors, DoorsUnavailable

from .boxes import Boxes, Clone, Shipped
from .frame import Setting, Weakness, attack
from .mirror import NAIVE, Mirror, answered_in_time, get
from .oracles import HostServices
from .stack import Stack, registries
from .upstream import Upstream, wheel

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

PAGE = "/pypi/simple/demo/"
WHEEL = "demo-1.0-py3-none-any.whl"
FORGED = "forged-by-a-sandbox"


@attack(weakened="a proxy that goes wherever a redirect leads")
def test_be_redirected_elsewhere(setting: Setting, mirror: Mirror, upstream: Upstream, host: HostServices) -> list[str]:
    if mirror.proxy is not None:
        mirror.proxy.follows = True
    elsewhere = f"http://127.0.0.1:{host.port}/packages/x"
    stored = f"/packages/00/00/{'0' * 60}/x.whl"
    upstream.redirects = {"/simple/moved/": elsewhere, stored: elsewhere}
    mirror.send(get("/pypi/simple/moved/"), get(f"/pypi/files/{'0' * 64}/-{stored}"))
    upstream.redirects = {}
    return host.seen


@attack(weakened=NAIVE)
def test_be_served_something_else_than_the_index_promises(
    setting: Setting, mirror: Mirror, upstream: Upstream
) -> list[str]:
    honest = wheel("demo", {"demo.py": "honest"})
    tampered = honest.replace(b"honest", b"forged")
    upstream.publish("tampered", WHEEL, honest)
    (page,) = mirror.send(get("/pypi/simple/tampered/", "Accept: application/vnd.pypi.simple.v1+json"))
    (file,) = json.loads(page.partition("\r\n\r\n")[2])["files"]
    upstream.files = {path: tampered if content == honest else content for path, content in upstream.files.items()}
    (answer,) = mirror.send(get(urllib.parse.urlsplit(file["url"]).path))
    head, _, body = answer.partition("\r\n\r\n")
    # A small one is whole, and judged, before anything of it goes out; a large one is cut before its end.
    assert head.startswith(("HTTP/1.1 200", "HTTP/1.1 502")), "the registry has it"
    return ["whole"] if body.encode("latin-1") == tampered else []


JSON = f'"event":"{FORGED}"'
INJECTIONS = (
    f"/pypi/simple/x%0d%0aInjected:%20{FORGED}/", f"/pypi/simple/x\nInjected: {FORGED}/",
    f"/pypi/simple/x\rInjected: {FORGED}/", f"/x%0aevent={FORGED}", f'/x",{JSON}', f"/x%22,{JSON}",
    f"/x\u2028{{{JSON}}}", f"/x\x85{{{JSON}}}", f"/x\x1b]0;{FORGED}\x07", f"/x\x0b{FORGED}", f"/x%00{{{JSON}}}",
)  # fmt: skip


def inject(mirror: Mirror) -> list[str]:
    headers = (f"User-Agent: x\r\n{FORGED}", f"Accept: text/html\rInjected: {FORGED}", f"X-{FORGED}: 1")
    methods = (f"GET\n{FORGED}", f'X","event":"{FORGED}', f"{FORGED}")
    return mirror.send(
        *(get(path.encode("latin-1", "ignore").decode("latin-1")) for path in INJECTIONS),
        *(get(PAGE, header) for header in headers),
        *(get("/x", method=method) for method in methods),
    )


@attack(weakened="a log that is written plainly")
def test_forge_a_line_of_the_log(setting: Setting, mirror: Mirror, stack: Stack) -> list[str]:
    before = len(stack.log_of("executor"))
    inject(mirror)
    if mirror.proxy is not None:
        return [line for line in mirror.proxy.log if line.startswith(("Injected", "event=", FORGED))]
    lines = filter(None, stack.log_of("executor")[before:].split("\n"))
    return [line for line in lines if is_forged(line)]


def is_forged(line: str) -> bool:
    """Whether a line is not the one JSON object that it should be, or tells of an event that nobody here writes."""
    try:
        row = json.loads(line)
    except ValueError:
        return True
    return not line.isascii() or not line.isprintable() or FORGED in str(row["event"])


@attack(weakened=NAIVE)
def test_split_an_answer(setting: Setting, mirror: Mirror, upstream: Upstream) -> list[str]:
    evidence = inject(mirror)
    if setting is Setting.WEAKENED:
        # The registry is the one that splits its answer; this proxy hands it on as it is.
        upstream.redirects = {"/split/": f"/x\r\nInjected: {FORGED}"}
        evidence = mirror.send(get("/pypi/split/"))
        upstream.redirects = {}
    heads = [answer.partition("\r\n\r\n")[0] for answer in evidence]
    return [head for head in heads if FORGED in head]


# Opens connections and sends the beginning of a request on each, a byte more now and then.
SLOWLY = r"""
import socket, sys, time
begun = []
for _ in range(int(sys.argv[1])):
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(('127.0.0.1', 7480))
    begun.append(connection)
time.sleep(0.5)
for connection in begun:
    try:
        connection.send(sys.argv[2].encode())
    except OSError:
        continue
print('ready', flush=True)
while True:
    time.sleep(0.5)
    for connection in begun:
        try:
            connection.send(b'x')
        except OSError:
            continue
"""


class OneAtATime(threading.Thread):
    """Doors that serve all sandboxes one connection after the other."""

    def __init__(self, listeners: list[socket.socket]) -> None:
        super().__init__(daemon=True)
        self._listeners = listeners

    def run(self) -> None:
        while True:
            for listener in self._listeners:
                listener.settimeout(0.1)
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                except OSError:
                    return
                with connection, connection.makefile("rb") as stream:
                    while stream.readline() not in {b"\r\n", b""}:
                        continue
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")


@pytest.mark.parametrize("head", ["", "GET /pypi/simple/x", "GET / HTTP/1.1\r\nX: "], ids=["silent", "line", "header"])
@attack(weakened="doors that serve one connection at a time")
def test_hold_the_doors_with_a_thousand_slow_requests(
    setting: Setting, boxes: Boxes, stack: Stack, head: str
) -> list[str]:
    if setting is Setting.WEAKENED:
        with Clone(boxes.shipped, Weakness(name="slow")) as one, Clone(boxes.shipped, Weakness(name="slow")) as other:
            OneAtATime([one.sandboxd.doors, other.sandboxd.doors]).start()
            slow = one.start("python3", "-c", SLOWLY, "20", head)
            in_time = answered_in_time(other, 5)
            slow.stop()
        return [] if in_time else ["another sandbox waits"]
    attacker = Shipped(stack)
    slow = attacker.start("python3", "-c", SLOWLY, "1000", head)
    doors = stack.doors_pid()
    assert doors is not None
    held = len(list(Path(f"/proc/{doors}/fd").iterdir()))
    in_time = answered_in_time(boxes.shipped, 10)
    slow.stop()
    attacker.close()
    evidence = [] if in_time else ["another sandbox waits"]
    return [*evidence, f"{held} descriptors"] if held > 400 else evidence


@attack(weakened=NAIVE)
def test_slip_through_while_the_doors_are_killed(setting: Setting, mirror: Mirror, stack: Stack) -> list[str]:
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.2):
            if (doors := stack.doors_pid()) is not None:
                os.kill(doors, signal.SIGKILL)

    killing = threading.Thread(target=kill)
    if setting is Setting.SHIPPED:
        killing.start()
    for number in range(3):
        mirror.send(*(get(PAGE, "Content-Length: 1", method="PUT") + "x" for _ in range(30)), get(f"{PAGE}?{number}"))
    stop.set()
    if setting is Setting.SHIPPED:
        killing.join()
        deadline = time.monotonic() + 30
        while not answered_in_time(mirror.box, 5) and time.monotonic() < deadline:
            continue
    return mirror.strange()


BAD_SETTINGS: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "no TOML": lambda text: text + "[",
    "a host missing": lambda text: text.replace("index =", "other ="),
    "another ecosystem": lambda text: text + '[cargo]\nindex = "https://evil.example"\nredirects = []\n',
    "a host with a path": lambda text: text.replace(":80", ":80/x").replace('"\n', '/evil"\n'),
    "a wildcard": lambda text: text.replace("redirects = []", 'redirects = ["*"]'),
}


@pytest.mark.parametrize("kind", BAD_SETTINGS)
@attack(weakened="settings that are good")
async def test_open_the_doors_with_bad_settings(
    setting: Setting, kind: str, upstream: Upstream, tmp_path: Path
) -> list[str]:
    text = registries(upstream.url)
    path = tmp_path / "registries.toml"
    path.write_text(BAD_SETTINGS[kind](text) if setting is Setting.SHIPPED else text)
    begun = len(upstream.seen)
    doors = Doors(DoorsConfig(uid=65_534, gid=65_534, registries=path), on_egress=lambda _: None)
    with tempfile.TemporaryDirectory(prefix="qila-") as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/doors.sock")
        listener.listen()
        try:
            await doors.start()
            await doors.open("sb_" + "a" * 26, listener, policy.DEFAULT)
            reader, writer = await asyncio.open_unix_connection(f"{directory}/doors.sock")
            writer.write(b"QILA1 mirror 1000\n" + get(PAGE).encode())
            await reader.read()
            writer.close()
            await writer.wait_closed()
        except DoorsUnavailable:
            pass
        finally:
            await doors.stop()
    return upstream.seen[begun:]
