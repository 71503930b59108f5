"""The way from a sandbox to a registry of the test's own, and what reached it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from .boxes import Box, Boxes, Clone, run_python, unused_name
from .frame import Setting, Weakness
from .naive_proxy import NaiveProxy
from .upstream import Upstream

# All that may ever reach the registry of Python's packages.
EXACT = re.compile(
    r"(?:GET|HEAD) (?:/simple/[a-z0-9](?:[a-z0-9-]*[a-z0-9])?/"
    r"|/packages/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{60}/[A-Za-z0-9][A-Za-z0-9._+!~-]*) HTTP/1\.1"
)
NAIVE = "a proxy without checks"

# Sends each of the requests, which are lists of pieces, on a connection of its own, and tells how each was answered.
# Half-closing after the last piece would have the doors drop what is under way.
SEND = r"""
import concurrent.futures, json, socket, sys
def send(pieces):
    answer = b''
    try:
        with socket.create_connection(('127.0.0.1', 7480), timeout=10) as connection:
            for piece in pieces:
                connection.sendall(piece.encode('latin-1'))
                # The answer to one before the next goes out; after the last, all there is.
                while data := connection.recv(65536):
                    answer += data
                    connection.settimeout(1)
                    if piece is not pieces[-1]:
                        break
    except OSError as error:
        return f'{answer[:20000].decode("latin-1")} {error!r}'
    return answer[:20000].decode('latin-1')
with concurrent.futures.ThreadPoolExecutor(16) as threads:
    for answer in threads.map(send, json.loads(sys.argv[1])):
        print(json.dumps(answer))
"""


@dataclass
class Mirror:
    """The way from a box to the registry: through the doors, or through a proxy that checks nothing."""

    box: Box
    upstream: Upstream
    proxy: NaiveProxy | None
    begun: int = 0

    def send(self, *requests: str | Sequence[str]) -> list[str]:
        """Sends requests from inside, each on a connection of its own; returns the answers."""
        told = [[request] if isinstance(request, str) else list(request) for request in requests]
        return [json.loads(line) for line in run_python(self.box, SEND, json.dumps(told), seconds=120)]

    def seen(self) -> list[str]:
        """Request lines that reached the registry since this began."""
        return self.upstream.seen[self.begun :]

    def strange(self) -> list[str]:
        """Those of them that are in no exact set."""
        return [line for line in self.seen() if not EXACT.fullmatch(line)]


def get(path: str, *headers: str, method: str = "GET", host: str = "127.0.0.1:7480") -> str:
    lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers)
    return "\r\n".join(lines) + "\r\n\r\n"


@contextmanager
def way(setting: Setting, boxes: Boxes, upstream: Upstream) -> Iterator[Mirror]:
    """The way through the doors of a sandbox, or through a proxy without checks."""
    if setting is Setting.SHIPPED:
        yield tried(Mirror(boxes.shipped, upstream, None))
        return
    with (
        Clone(boxes.shipped, Weakness(name=NAIVE)) as clone,
        NaiveProxy(clone.sandboxd.doors, upstream.url) as proxy,
    ):
        yield tried(Mirror(clone, upstream, proxy))


def tried(mirror: Mirror) -> Mirror:
    """The same, after an honest request has reached the registry."""
    name = unused_name()
    mirror.send(get(f"/pypi/simple/{name}/"))
    assert any(f"/simple/{name}/" in line for line in mirror.seen())
    mirror.begun = len(mirror.upstream.seen)
    return mirror


def answered_in_time(box: Box, seconds: float) -> bool:
    """Whether another sandbox gets an honest answer through the same doors."""
    script = (
        "import socket, sys\n"
        "with socket.create_connection(('127.0.0.1', 7480), timeout=float(sys.argv[1])) as c:\n"
        " c.sendall(b'GET /pypi/simple/honest/ HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n"
        " try: print(c.recv(12).decode())\n"
        " except TimeoutError: print('too late')"
    )
    return run_python(box, script, seconds) == ["HTTP/1.1 404"]
