"""Servers inside sandboxes, reached from outside: by the client and through `qila forward`."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qila.client import Client, QilaError
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from typing import Protocol

    class Installation(Protocol):
        variables: dict[str, str]

        def qila(self, *arguments: str) -> subprocess.CompletedProcess[bytes]: ...


pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
ECHO_PORT, DEAF_PORT, FLOOD_PORT, FILES_PORT, SOCKET_PORT = 9001, 9002, 9003, 9004, 9005
SERVERS = f"""
import http.server, socket, threading

def serve(port, family, handle):
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::" if family == socket.AF_INET6 else "127.0.0.1", port))
    listener.listen(128)
    def accept():
        while True:
            threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()

def echo(client):
    while data := client.recv(65536):
        client.sendall(data)
    client.sendall(b"goodbye")
    client.close()

def deaf(client):
    threading.Event().wait()

def flood(client):
    try:
        while True:
            client.sendall(bytes(65536))
    except OSError:
        print("flood over", flush=True)

def websocket(client):
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += client.recv(65536)
    client.sendall(b"HTTP/1.1 101 Go\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n")
    while data := client.recv(65536):
        client.sendall(data[::-1])

serve({SOCKET_PORT}, socket.AF_INET, websocket)
serve({ECHO_PORT}, socket.AF_INET6, echo)
serve({DEAF_PORT}, socket.AF_INET, deaf)
serve({FLOOD_PORT}, socket.AF_INET, flood)
open("big", "wb").write(bytes(range(256)) * 80_000)
server = http.server.ThreadingHTTPServer(("127.0.0.1", {FILES_PORT}), http.server.SimpleHTTPRequestHandler)
print("ready", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[Client]:
    with Client(installation.variables["QILA_GATEWAY_ADDRESS"]) as made:
        yield made


@pytest.fixture(scope="module")
def servers(client: Client) -> Iterator[str]:
    """A sandbox whose program serves."""
    sandbox = client.create().id
    client.put(sandbox, "servers.py", io.BytesIO(SERVERS.encode()))
    stream = client.exec(sandbox, pb.Program(file="servers.py"))
    heard = b""
    while b"ready" not in heard:
        event = next(stream)
        heard += event.output.data
        assert not event.HasField("ended"), heard.decode()
    yield sandbox
    client.remove_sandbox(sandbox)


def test_bytes_go_both_ways_and_each_way_ends_by_itself(client: Client, servers: str) -> None:
    with client.connect_port(servers, ECHO_PORT) as echo:
        sent = hashlib.sha256()
        received = hashlib.sha256()

        def send() -> None:
            for number in range(200):
                data = number.to_bytes(2, "big") * 10_000
                sent.update(data)
                echo.send(data)
            echo.end()

        sending = threading.Thread(target=send)
        sending.start()
        tail = b""
        while data := echo.receive():
            received.update(tail + data[:-7] if len(data) > 7 else tail)
            tail = data[-7:] if len(data) > 7 else data
        sending.join()
        assert tail == b"goodbye"
        assert received.digest() == sent.digest()


@pytest.mark.parametrize(
    ("port", "code"), [(9999, "PORT_CLOSED"), (0, "INVALID_FIELD"), (70_000, "INVALID_FIELD"), (7480, "INVALID_FIELD")]
)
def test_a_port_that_cannot_be_reached_says_why(client: Client, servers: str, port: int, code: str) -> None:
    with pytest.raises(QilaError) as caught:
        client.connect_port(servers, port)
    assert caught.value.reason == code


def test_a_sandbox_that_is_not_there(client: Client) -> None:
    with pytest.raises(QilaError) as caught:
        client.connect_port("sb_" + "z" * 26, ECHO_PORT)
    assert caught.value.reason == "SANDBOX_NOT_FOUND"


def test_a_server_that_reads_nothing_and_one_that_never_stops_hold_nobody_up(client: Client, servers: str) -> None:
    with client.connect_port(servers, DEAF_PORT) as deaf, client.connect_port(servers, FLOOD_PORT) as flood:
        stuck = threading.Thread(target=_send_much, args=(deaf,))
        stuck.start()
        assert flood.receive()
        # Both connections are as full as they get; whatever else the sandbox does goes on.
        events = list(client.exec(servers, pb.Command(argv=["cat", "big"])))
        assert sum(len(event.output.data) for event in events) == 256 * 80_000
        assert events[-1].ended.exited == 0
        with client.connect_port(servers, ECHO_PORT) as echo:
            echo.send(b"still here")
            assert echo.receive() == b"still here"
        deaf.close()
        stuck.join()


def _send_much(connection: Any) -> None:
    # It is closed from the other thread.
    with pytest.raises(QilaError):
        connection.send(bytes(64 << 20))


def test_qila_forward_serves_many_at_once(installation: Installation, servers: str) -> None:
    command = [sys.executable, "-m", "qila.cli", "forward", servers, f"0:{FILES_PORT}", "0:9999"]
    forwarding = subprocess.Popen(
        command, env=installation.variables, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert forwarding.stdout is not None
        lines = [forwarding.stdout.readline().decode() for _ in range(2)]
        files, nothing = (int(re.findall(r"127\.0\.0\.1:(\d+) leads", line)[0]) for line in lines)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def fetch(_: int) -> str:
            with opener.open(f"http://127.0.0.1:{files}/big", timeout=120) as response:
                return hashlib.sha256(response.read()).hexdigest()

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            digests = set(pool.map(fetch, range(16)))
        assert digests == {hashlib.sha256(bytes(range(256)) * 80_000).hexdigest()}
        with pytest.raises(OSError, match=r"(?i)closed|reset|remote"):
            opener.open(f"http://127.0.0.1:{nothing}/", timeout=60)
        forwarding.send_signal(signal.SIGINT)
        _, errors = forwarding.communicate(timeout=60)
    finally:
        forwarding.kill()
    assert forwarding.returncode == 0
    assert "port 9999" in errors.decode()


@pytest.mark.parametrize("ports", [["x"], ["0"], ["1:2:3"], ["70000"], []])
def test_a_wrong_pair_of_ports_says_what_is_expected(
    installation: Installation, servers: str, ports: list[str]
) -> None:
    done = installation.qila("forward", servers, *ports)
    assert done.returncode == 125
    assert b"LOCAL" in done.stderr


def test_a_preview_url_shows_the_program_to_a_browser_that_keeps_its_cookie(
    installation: Installation, servers: str
) -> None:
    done = installation.qila("preview", servers, str(FILES_PORT))
    assert done.returncode == 0, done.stderr.decode()
    url = done.stdout.decode().strip()
    host, port = re.findall(r"http://([^:/]+):(\d+)/", url)[0]

    def ask(path: str, *lines: str) -> tuple[bytes, bytes]:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=60) as browser:
            head = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", *lines, "Connection: close"]
            browser.sendall("\r\n".join(head).encode() + b"\r\n\r\n")
            answer = b"".join(iter(lambda: browser.recv(1 << 16), b""))
            return answer.partition(b"\r\n\r\n")[0], answer.partition(b"\r\n\r\n")[2]

    assert b" 403 " in ask("/big")[0]
    opened, _ = ask(url.partition(f":{port}")[2])
    cookie = re.findall(rb"(?i)set-cookie: ([^;]+)", opened)[0].decode()
    head, body = ask("/big", f"Cookie: {cookie}")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert hashlib.sha256(body).digest() == hashlib.sha256(bytes(range(256)) * 80_000).digest()


def test_a_websocket_goes_through_a_preview(client: Client, servers: str) -> None:
    url = client.preview(servers, SOCKET_PORT).url
    host, port, token = re.findall(r"http://([^:/]+):(\d+)/.*token=(.*)", url)[0]
    with socket.create_connection(("127.0.0.1", int(port)), timeout=60) as browser:
        head = ["GET / HTTP/1.1", f"Host: {host}:{port}", f"X-Qila-Preview: {token}", "Upgrade: websocket"]
        browser.sendall("\r\n".join([*head, "Connection: Upgrade"]).encode() + b"\r\n\r\n")
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += browser.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 ")
        browser.sendall(b"abc")
        assert browser.recv(100) == b"cba"
