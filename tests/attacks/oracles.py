"""What the host sees: packets on its wires, connections to its services, what its files hold."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import select
import socket
import threading
from pathlib import Path
from typing import Final, Self

_ETH_P_ALL: Final = 3
_RECEIVE_BYTES: Final = 65_536


class Wire:
    """Every packet on every interface of the host but loopback that holds a marker."""

    def __init__(self) -> None:
        self.marker = secrets.token_hex(8)
        self.needles = [self.marker.encode()]
        self.seen: list[bytes] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._thread = _Loop(self._socket, self._take)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.end()
        self._socket.close()

    def look_for_tcp(self, address: str, source_port: int) -> None:
        """Count segments to an address from a port: in a header without options they stand side by side."""
        self.needles.append(socket.inet_aton(address) + source_port.to_bytes(2, "big"))

    def _take(self) -> None:
        packet, address = self._socket.recvfrom(_RECEIVE_BYTES)
        if address[0] != "lo" and any(needle in packet for needle in self.needles):
            self.seen.append(packet)


class HostServices:
    """A TCP and a UDP service on every address of the host; `seen` says who came."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._tcp = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._udp.bind(("", self.port))
        self._threads = [_Loop(self._tcp, self._accept), _Loop(self._udp, self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.end()
        self._tcp.close()
        self._udp.close()

    def _accept(self) -> None:
        connection, address = self._tcp.accept()
        self.seen.append(f"tcp from {address[0]}")
        with contextlib.suppress(OSError):
            connection.sendall(b"host\n")
        connection.close()

    def _receive(self) -> None:
        _, address = self._udp.recvfrom(_RECEIVE_BYTES)
        self.seen.append(f"udp from {address[0]}")


class _Loop(threading.Thread):
    """Calls back whenever a socket has something, until told to end."""

    def __init__(self, watched: socket.socket, ready: object) -> None:
        super().__init__(daemon=True)
        self._watched = watched
        self._ready = ready
        self._tell, self._told = socket.socketpair()

    def run(self) -> None:
        assert callable(self._ready)
        while True:
            ready, _, _ = select.select([self._watched, self._told], [], [])
            if self._told in ready:
                return
            self._ready()

    def end(self) -> None:
        self._tell.close()
        self.join()
        self._told.close()


def host_addresses() -> list[str]:
    """Every address of the host, loopback included: IPv4 and IPv6, those of bridges too."""
    found = {"127.0.0.1", "::1"}
    trie = Path("/proc/net/fib_trie").read_text(encoding="ascii").splitlines()
    found |= {before.split()[-1] for before, line in itertools.pairwise(trie) if "host LOCAL" in line}
    six = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    found |= {socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])) for line in six}
    return sorted(found)
