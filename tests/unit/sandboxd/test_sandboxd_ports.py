from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox.sandboxd.qila_sandboxd.loop import Loop
from sandbox.sandboxd.qila_sandboxd.ports import MAXIMUM_CONNECTIONS, WINDOW_BYTES, Ports

Frame = tuple[dict[str, Any], bytes]


class Bench:
    """The first process's loop with nothing but ports; what is sent to the executor is kept."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.sent: list[Frame] = []
        self.has_room = True
        self.ports = Ports(
            self.loop, lambda header, payload: self.sent.append((header, payload)), lambda: self.has_room
        )

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.loop.run_once()

    def kinds(self, number: int = 1) -> list[str]:
        return [header["type"] for header, _ in self.sent if header["connection"] == number]

    def said(self) -> bytes:
        return b"".join(payload for header, payload in self.sent if header["type"] == "bytes")

    def tell(self, kind: str, payload: bytes = b"", **fields: int) -> None:
        self.ports.tell({"type": kind, "connection": 1, **fields}, payload)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.ports.drop_all()


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["ipv4", "ipv6"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family, address = request.param
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.bind((address, 0))
        made.listen()
        made.settimeout(10)
        yield made


@pytest.fixture
def program(bench: Bench, listener: socket.socket) -> Iterator[socket.socket]:
    """The program's end of connection 1."""
    bench.ports.connect({"connection": 1, "port": listener.getsockname()[1]})
    bench.until(lambda: bool(bench.sent))
    assert bench.kinds() == ["connected"]
    accepted, _ = listener.accept()
    accepted.settimeout(10)
    with accepted:
        yield accepted


def test_bytes_go_both_ways_and_each_way_ends_by_itself(bench: Bench, program: socket.socket) -> None:
    bench.tell("bytes", b"question")
    bench.tell("shut")
    assert program.recv(100) == b"question"
    assert program.recv(100) == b""
    program.sendall(b"answer")
    bench.until(lambda: bench.said() == b"answer")
    program.shutdown(socket.SHUT_WR)
    bench.until(lambda: "shut" in bench.kinds())
    assert bench.kinds() == ["connected", "taken", "bytes", "shut"]
    # Its number is free: both ways are over.
    bench.tell("bytes", b"late")
    assert len(bench.sent) == 4


def test_what_the_executor_has_not_taken_is_bounded(bench: Bench, program: socket.socket) -> None:
    program.setblocking(False)
    full = False
    while not full:
        try:
            program.send(bytes(1 << 20))
        except BlockingIOError:
            full = len(bench.said()) + (64 << 10) > WINDOW_BYTES
        bench.loop.later(0, lambda: None)
        bench.loop.run_once()
    assert 0 < len(bench.said()) <= WINDOW_BYTES
    before = len(bench.said())
    bench.tell("taken", bytes=before)
    bench.until(lambda: len(bench.said()) > before)


def test_a_full_control_connection_is_waited_for(bench: Bench, program: socket.socket) -> None:
    bench.has_room = False
    bench.ports.pump()
    program.sendall(b"x")
    turns: list[int] = []
    bench.loop.later(0.05, lambda: turns.append(1))
    bench.until(lambda: bool(turns))
    assert bench.kinds() == ["connected"]
    bench.has_room = True
    bench.ports.pump()
    bench.until(lambda: bench.said() == b"x")


def test_a_program_that_takes_nothing_leaves_the_rest_pending(bench: Bench, program: socket.socket) -> None:
    data = bytes(range(256)) * 1024
    for _ in range(64):
        bench.tell("bytes", data[: 64 << 10])
    taken = sum(header["bytes"] for header, _ in bench.sent if header["type"] == "taken")
    assert taken < 64 * (64 << 10)
    received = 0
    while received < 64 * (64 << 10):
        received += len(program.recv(1 << 20))
        bench.loop.later(0, lambda: None)
        bench.loop.run_once()
    assert sum(header["bytes"] for header, _ in bench.sent if header["type"] == "taken") == received


def test_a_program_that_breaks_off_is_told_of(bench: Bench, program: socket.socket) -> None:
    program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    program.close()
    bench.until(lambda: "dropped" in bench.kinds())
    assert bench.sent[-1][0] == {"type": "dropped", "connection": 1, "error": "ECONNRESET"}


def test_the_executor_can_drop_a_connection(bench: Bench, program: socket.socket) -> None:
    bench.tell("drop")
    assert program.recv(1) == b""
    assert bench.kinds() == ["connected"]


def test_where_nothing_listens_is_refused(bench: Bench) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        bench.ports.connect({"connection": 1, "port": closed.getsockname()[1]})
        bench.until(lambda: bool(bench.sent))
    assert bench.sent == [({"type": "refused", "connection": 1, "error": "ECONNREFUSED"}, b"")]


def test_connections_are_bounded_and_all_are_dropped_with_the_executor(bench: Bench, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    for number in range(MAXIMUM_CONNECTIONS + 1):
        bench.ports.connect({"connection": number, "port": port})
    bench.until(lambda: len(bench.sent) == MAXIMUM_CONNECTIONS + 1)
    refused = [header for header, _ in bench.sent if header["type"] == "refused"]
    assert refused == [{"type": "refused", "connection": MAXIMUM_CONNECTIONS, "error": "EMFILE"}]
    accepted, _ = listener.accept()
    with accepted:
        bench.ports.drop_all()
        accepted.settimeout(10)
        assert accepted.recv(1) == b""
    bench.ports.connect({"connection": 1, "port": port})
    bench.until(lambda: len(bench.sent) == MAXIMUM_CONNECTIONS + 2)
    assert bench.sent[-1][0]["type"] == "connected"


def test_what_a_program_said_before_it_broke_off_is_carried(bench: Bench, program: socket.socket) -> None:
    """As a server that refuses an upload of which it has not read all."""
    bench.tell("bytes", b"read" + bytes(WINDOW_BYTES - 4))
    assert program.recv(4) == b"read"
    program.sendall(b"refused")
    program.close()
    bench.tell("bytes", b"more")
    bench.until(lambda: "dropped" in bench.kinds())
    assert bench.said() == b"refused"


def test_a_connection_with_itself_is_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unlucky(socket.socket):
        """Gets the very port that it connects to, as the kernel may choose among those that are free."""

        def connect_ex(self, address: Any) -> int:
            self.bind(address)
            return super().connect_ex(address)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr("sandbox.sandboxd.qila_sandboxd.ports.socket.socket", Unlucky)
    bench.ports.connect({"connection": 1, "port": port})
    bench.until(lambda: bool(bench.sent))
    assert bench.sent == [({"type": "refused", "connection": 1, "error": "ECONNREFUSED"}, b"")]
