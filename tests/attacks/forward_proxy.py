"""What the doors would be if nobody had thought of attacks: whatever is asked is passed on, to wherever it says."""

from __future__ import annotations

import posixpath
import re
import socket
import threading
from contextlib import suppress
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

_DOORS: Final = ("pypi", "npm", "go", "maven")


class NaiveProxy:
    """Takes the connections of a sandbox's doors, and forwards their requests to a registry or to a host of theirs."""

    def __init__(self, registry_port: int) -> None:
        self._registry = ("127.0.0.1", registry_port)
        self._cache: dict[str, bytes] = {}
        self._listeners: dict[str, tuple[socket.socket, threading.Event]] = {}
        self.log: list[str] = []
        # Ports of loopback that stand for hosts.
        self.stand_ins: dict[str, int] = {}

    def open(self, sandbox: str, listener: socket.socket, policy: object = None) -> None:
        self.shut(sandbox)
        own, ended = listener.dup(), threading.Event()
        own.settimeout(0.2)
        self._listeners[sandbox] = (own, ended)
        threading.Thread(target=self._accept, args=(own, ended), daemon=True).start()

    def shut(self, sandbox: str) -> None:
        if sandbox in self._listeners:
            own, ended = self._listeners.pop(sandbox)
            ended.set()
            own.close()

    def close(self) -> None:
        for sandbox in list(self._listeners):
            self.shut(sandbox)

    def _accept(self, listener: socket.socket, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with connection, connection.makefile("rb") as stream, suppress(OSError, ValueError):
            _, door, _ = stream.readline().split()
            while head := _head(stream):
                self.log.append(head.decode("latin-1"))
                line, _, fields = head.decode("latin-1").partition("\n")
                method, _, rest = line.partition(" ")
                target = rest.rpartition(" ")[0]
                if door == b"connect" and method == "CONNECT":
                    self._tunnel(connection, target)
                    return
                self._forward(connection, stream, method, target, fields)
                if "connection: close" in fields.lower():
                    return

    def _forward(self, connection: socket.socket, stream: BinaryIO, method: str, target: str, fields: str) -> None:
        address, path = self._place(target)
        # A cache that goes by the name of a file.
        key = posixpath.basename(path) if path.endswith((".whl", ".tgz", ".jar")) else ""
        if key in self._cache:
            connection.sendall(self._cache[key])
            return
        length = re.search(r"(?i)content-length\W*(\d+)", fields)
        body = b"" if "chunked" in fields.lower() or length is None else stream.read(min(int(length[1]), 1 << 20))
        kept = "\r\n".join(text for text in fields.splitlines() if text and not text.lower().startswith("connection"))
        with socket.create_connection(address, timeout=5) as upstream:
            upstream.sendall(
                f"{method} {path} HTTP/1.1\r\n{kept}\r\nConnection: close\r\n\r\n".encode("latin-1") + body
            )
            answer = b""
            while piece := upstream.recv(65_536):
                answer += piece
        if key:
            self._cache[key] = answer
        connection.sendall(answer)

    def _place(self, target: str) -> tuple[tuple[str, int], str]:
        if "://" in target or target.startswith("//"):
            parts = urlsplit(target)
            if parts.hostname and parts.port:
                return (parts.hostname, parts.port), parts.path or "/"
        prefix, _, path = target.lstrip("/").partition("/")
        rest = f"/{path}" if prefix in _DOORS else target
        # Twice, as a proxy before a server does, and then as a file system would.
        return self._registry, posixpath.normpath(unquote(unquote(rest)).replace("\\", "/")) + "/" * rest.endswith("/")

    def _tunnel(self, connection: socket.socket, target: str) -> None:
        host, _, port = target.rpartition(":")
        place = ("127.0.0.1", self.stand_ins[host]) if host in self.stand_ins else (host, int(port))
        with socket.create_connection(place, timeout=5) as upstream:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=_pump, args=(connection, upstream), daemon=True).start()
            _pump(upstream, connection)


def _pump(source: socket.socket, target: socket.socket) -> None:
    source.settimeout(None)
    with suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)


def _head(stream: BinaryIO) -> bytes:
    head = b""
    while line := stream.readline():
        head += line if head or line.strip() else b""
        if head and not line.strip():
            return head
    return b""
