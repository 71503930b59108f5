"""What the doors would be without their checks: a proxy that forwards whatever it is asked for, wherever it is told."""

from __future__ import annotations

import contextlib
import http.client
import selectors
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Self

_HEAD_BYTES = 65_536


@dataclass
class NaiveProxy:
    """Serves a sandbox's listener of the doors. `log` has a line for each request, as it would be written plainly.

    Where it `follows`, it fetches what is asked for by itself, and goes wherever a redirect leads.
    """

    listener: socket.socket
    upstream: str
    log: list[str] = field(default_factory=list)
    follows: bool = False

    def __enter__(self) -> Self:
        self.listener.settimeout(None)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the accepting thread.
        self.listener.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError, IndexError):
            data = b""
            while not (b"\n\r\n" in data or b"\n\n" in data):
                received = connection.recv(_HEAD_BYTES)
                if not received:
                    return
                data += received
            _, _, request = data.partition(b"\n")
            line, _, rest = request.partition(b"\n")
            method, target, *_ = line.decode("latin-1").split()
            host, path = self._route(target, rest)
            self.log += f"{method} {urllib.parse.unquote(path)}".split("\n")
            if self.follows:
                connection.sendall(_fetch(f"http://{host[0]}:{host[1]}{path}"))
                return
            with socket.create_connection(host, timeout=5) as onward:
                onward.sendall(f"{method} {path} HTTP/1.1\r\n".encode("latin-1") + rest)
                _splice(connection, onward)

    def _route(self, target: str, rest: bytes) -> tuple[tuple[str, int], str]:
        """Where a request goes, and the path that is asked for there: as the client says."""
        own = urllib.parse.urlsplit(self.upstream)
        hosts = [line[5:].strip() for line in rest.decode("latin-1").splitlines() if line.lower().startswith("host:")]
        asked = urllib.parse.urlsplit(
            target if "//" in target else f"//{target if target[0] not in '/*' else hosts[0]}"
        )
        path = target.removeprefix("/pypi") if target.startswith("/") else asked.path or "/"
        if asked.hostname is None or asked.port in {None, 7480}:
            return (str(own.hostname), own.port or 80), path
        return (asked.hostname, asked.port or 80), path


def _fetch(url: str) -> bytes:
    """An answer, and that of wherever it leads to."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            body: bytes = answer.read()
    except (urllib.error.URLError, http.client.HTTPException) as error:
        body = str(error).encode()
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body


def _splice(one: socket.socket, other: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while ready := selector.select(5):
            for key, _ in ready:
                data = key.fileobj.recv(_HEAD_BYTES)  # type: ignore[union-attr]  # a socket was registered
                if not data:
                    return
                key.data.sendall(data)
