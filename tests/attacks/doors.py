"""A site for the attacks on the doors: two real sandboxes, one before the doors that are shipped, one before weak ones.

The doors are the executor's own command line, spoken to as the executor does; sandboxd and the container are the
product's. Registries and what must not be reached are servers of the test's own that remember who came.
"""

from __future__ import annotations

import array
import base64
import http.server
import json
import os
import queue
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from services.executor.egress.config import DoorsConfig
from services.executor.egress.policy import EgressPolicy

from .forward_proxy import NaiveProxy
from .frame import Setting
from .stack import ROOT

if TYPE_CHECKING:
    from tests.integration.sandboxd_harness import Sandbox
else:
    from sandboxd_harness import Sandbox

MIRROR: Final = 7480
CONNECT: Final = 7481
NAIVE: Final = "a naive proxy"
# What a sandbox may open tunnels to, and the names that stand for something else.
HOST: Final = "plugins.example.org"
OTHERS: Final = tuple(f"inside{number}.example.org" for number in range(24))
PUBLIC: Final = "203.0.113.80"
REBINDING: Final = "rebinding.example.org"
_HOSTS: Final = (HOST, REBINDING, *OTHERS)
OPEN: Final = EgressPolicy(registries=True, hosts=frozenset(_HOSTS))
_ANSWER_SECONDS: Final = 30


def registries_text(url: str, redirect: str) -> str:
    """The product's own registries file, with every host replaced by one, and one place that redirects may lead to."""
    shipped = tomllib.loads((ROOT / "services/executor/egress/registries.toml").read_text())
    lines = []
    for name, table in shipped.items():
        lines.append(f"[{name}]")
        lines += [
            f"{key} = {json.dumps(url if isinstance(value, str) else [redirect])}" for key, value in table.items()
        ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a registry says to every request for one path; `held`: when it is let go, the head apart."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    held: bool = False


class Registry:
    """An HTTP server that answers what it was given, or everything with `other`, and remembers what it was asked."""

    def __init__(self, other: Reply | None = None) -> None:
        self.pages: dict[str, Reply] = {}
        self.seen: list[Asked] = []
        self.let_go = threading.Event()
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def answer(self) -> None:
                registry.seen.append(Asked(method=self.command, target=self.path, headers=dict(self.headers)))
                reply = registry.pages.get(self.path, other or Reply(status=404))
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.flush()
                if reply.held:
                    registry.let_go.wait(60)
                if self.command != "HEAD":
                    self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None: ...

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None: ...

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.port = int(self._server.server_port)
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        """Methods and targets, in their order."""
        return [f"{asked.method} {asked.target}" for asked in self.seen]

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()


class Canary:
    """A TCP server that says a word to whoever comes, and remembers what they said until then and afterwards."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        canary = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.settimeout(30)
                try:
                    while data := self.request.recv(65_536):
                        canary.seen.append(data)
                        self.request.sendall(b"canary")
                except OSError:
                    return

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

            def process_request(self, request: Any, client_address: Any) -> None:
                canary.seen.append(b"")
                super().process_request(request, client_address)

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.port = int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class DoorProcess:
    """The doors process: with an empty `weakness` what is shipped, in the test's own network if there is one."""

    def __init__(self, config: DoorsConfig, *, log: Path, network: Path | None = None, weakness: str = "") -> None:
        self.log = log
        self.records: list[dict[str, Any]] = []
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        command = ["-m", "services.executor.egress"]
        if network is not None or weakness:
            command = [str(Path(__file__).with_name("weakened_doors.py")), str(network), weakness]
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *command, "--control-fd", str(theirs.fileno()), "--config",
                 config.to_argument()],
                pass_fds=[theirs.fileno()], stderr=output, stdout=output, cwd="/", start_new_session=True,
                env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            )  # fmt: skip  # a command line reads best as lines of one
        threading.Thread(target=self._read, daemon=True).start()
        self.is_up = self._answer() is not None

    def open(self, sandbox: str, listener: socket.socket, policy: object = None) -> None:
        """Serves a sandbox; `policy` is a policy, or anything else that is sent in the place of one."""
        said = policy.to_message() if isinstance(policy, EgressPolicy) else policy
        message = {"type": "open", "sandbox": sandbox, "install": False, "policy": said}
        self._tell(message, listener.fileno())

    def shut(self, sandbox: str) -> None:
        """Serves a sandbox no more."""
        self._tell({"type": "close", "sandbox": sandbox})

    def set_policy(self, sandbox: str, policy: EgressPolicy) -> None:
        self._tell({"type": "policy", "sandbox": sandbox, "policy": policy.to_message()})

    def set_install(self, sandbox: str, *, is_open: bool) -> None:
        self._tell({"type": "phase", "sandbox": sandbox, "install": is_open})

    def kill(self) -> None:
        """As the kernel would when there is no memory left."""
        self.process.kill()
        self.process.wait(30)

    def close(self) -> None:
        # The reader would keep the socket, and so the doors, alive.
        self._control.shutdown(socket.SHUT_RDWR)
        self.process.wait(30)
        self._control.close()

    def _tell(self, message: Mapping[str, object], descriptor: int | None = None) -> None:
        rights = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        self._control.sendmsg([json.dumps(message).encode()], rights)
        assert self._answer() is not None, self.log.read_text()[-2000:]

    def _answer(self) -> dict[str, Any] | None:
        return self._answers.get(timeout=_ANSWER_SECONDS)

    def _read(self) -> None:
        try:
            while packet := self._control.recv(1 << 17):
                message = json.loads(packet)
                if message["type"] == "egress":
                    self.records.append(message)
                else:
                    self._answers.put(message)
        except OSError:
            pass
        self._answers.put(None)


# Sends each case's parts, each but the first when something has been answered, and prints what came of all of them.
_SEND = r"""
import base64, concurrent.futures, json, socket, sys
def send(case):
    port, parts, seconds = case
    got = b''
    with socket.socket() as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(('127.0.0.1', port))
            for number, part in enumerate(parts):
                if number:
                    got += connection.recv(65536)
                connection.sendall(base64.b64decode(part))
            while len(got) < 1 << 22 and (piece := connection.recv(65536)):
                got += piece
        except OSError:
            pass
    return base64.b64encode(got).decode()
cases = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(32) as pool:
    print('\n'.join(pool.map(send, cases)))
"""


class DoorBox:
    """A real sandbox, spoken to as the executor does."""

    def __init__(self, letter: str) -> None:
        self.name = f"sb_{letter * 26}"
        self.sandboxd = Sandbox()
        self.sandboxd.__enter__()
        assert self.sandboxd.channel is not None
        self.sandboxd.channel.connection.settimeout(90)

    @property
    def listener(self) -> socket.socket:
        return self.sandboxd.doors

    def run(self, script: str, *arguments: object, user: str = "program") -> list[str]:
        """The lines that a Python script printed; it must end well."""
        header, out, err = self.sandboxd.run(
            "python3", "-I", "-c", script, *map(str, arguments), user=user, timeout_ms=60_000
        )
        assert header["end"] == {"kind": "exited", "code": 0}, (header["end"], err.decode(errors="replace"))
        return out.decode().splitlines()

    def start(self, script: str, *arguments: object, user: str = "program") -> str:
        """A Python script that goes on; it has said its first word."""
        name = self.sandboxd.start("python3", "-I", "-c", script, *map(str, arguments), user=user)
        # Kept: what ends it wants all of the output.
        self.sandboxd.kept.append(self.sandboxd.wait("output", process=name))
        return name

    def stop(self, name: str) -> None:
        self.sandboxd.send({"type": "cancel", "process": name})
        self.sandboxd.wait("ended", process=name)

    def send(
        self,
        cases: Iterable[bytes | Sequence[bytes]],
        *,
        port: int | Sequence[int] = MIRROR,
        seconds: float = 1.5,
        user: str = "program",
    ) -> list[bytes]:
        """What is answered to each case, all at once: bytes, or parts, each sent on an answer to the one before it.

        `port` is that of every case, or of each.
        """
        listed = [[case] if isinstance(case, bytes) else case for case in cases]
        ports = [port] * len(listed) if isinstance(port, int) else port
        told = [
            [port, [base64.b64encode(part).decode() for part in parts], seconds]
            for port, parts in zip(ports, listed, strict=True)
        ]
        return [base64.b64decode(line) for line in self.run(_SEND, json.dumps(told), user=user)]

    def close(self) -> None:
        self.sandboxd.close()


@dataclass(frozen=True, kw_only=True)
class Front:
    """What one attack works with."""

    box: DoorBox
    doors: DoorProcess | NaiveProxy
    registry: Registry
    elsewhere: Registry
    public: Canary
    inside: Canary
    network: Path

    def resolve(self, names: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """Names, and the addresses of each look-up; whatever address is not the public one leads inside."""
        addresses = {address for answers in names.values() for found in answers for address in found}
        ports = dict.fromkeys(addresses, self.inside.port) | {PUBLIC: self.public.port}
        temporary = self.network.with_suffix(".new")
        temporary.write_text(json.dumps({"names": {HOST: [[PUBLIC]], **names}, "ports": ports}))
        temporary.rename(self.network)


class Site:
    """Everything, made when it is first needed."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="qd", dir="/tmp"))
        self.directory.chmod(0o755)
        self.registry = Registry()
        self.elsewhere = Registry(Reply(body=b"elsewhere", headers={"ETag": '"elsewhere"'}))
        self.public = Canary()
        self.inside = Canary()
        self._boxes: dict[Setting, DoorBox] = {}
        self._doors: dict[str, DoorProcess | NaiveProxy] = {}
        self._serving: dict[Setting, DoorProcess | NaiveProxy] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for doors in self._doors.values():
            doors.close()
        for box in self._boxes.values():
            box.close()
        for server in (self.registry, self.elsewhere, self.public, self.inside):
            server.close()
        shutil.rmtree(self.directory)

    def front(self, setting: Setting, weakness: str, *, policy: EgressPolicy = OPEN, networked: bool = False) -> Front:
        """A sandbox before the doors of the setting; nobody has seen anything yet."""
        box = self.box(setting)
        chosen = weakness if setting is Setting.WEAKENED else ""
        doors = self._find_doors(chosen, networked=networked)
        if self._serving.get(setting) is not doors:
            self.shut(setting)
        doors.open(box.name, box.listener, policy)
        self._serving[setting] = doors
        for server in (self.registry, self.elsewhere):
            server.seen.clear()
            server.let_go.clear()
        self.registry.pages.clear()
        self.public.seen.clear()
        self.inside.seen.clear()
        front = Front(
            box=box, doors=doors, registry=self.registry, elsewhere=self.elsewhere, public=self.public,
            inside=self.inside, network=self.directory / "network.json",
        )  # fmt: skip  # one line of fields reads better than seven
        front.resolve({})
        return front

    def box(self, setting: Setting) -> DoorBox:
        if setting not in self._boxes:
            self._boxes[setting] = DoorBox("s" if setting is Setting.SHIPPED else "w")
        return self._boxes[setting]

    @contextmanager
    def sibling(self, front: Front) -> Iterator[DoorBox]:
        """Another sandbox before the same doors: that of the other setting, for the time being."""
        other = next(setting for setting in Setting if self.box(setting) is not front.box)
        self.shut(other)
        box = self.box(other)
        front.doors.open(box.name, box.listener, OPEN)
        yield box
        front.doors.shut(box.name)

    def shut(self, setting: Setting) -> None:
        """Nobody serves the setting's sandbox any more."""
        serving = self._serving.pop(setting, None)
        if serving is not None and serving in self._doors.values():
            serving.shut(self.box(setting).name)

    def forget(self, doors: DoorProcess) -> None:
        """These doors have come to their end."""
        self._doors = {name: other for name, other in self._doors.items() if other is not doors}
        doors.close()

    def start_doors(self, name: str, weakness: str = "", **changes: Any) -> DoorProcess:
        """A doors process for one attack alone; `changes` are fields of its configuration."""
        config = self.config(name, **changes)
        network = self.directory / "network.json" if weakness else None
        return DoorProcess(config, log=self.directory / f"{name}.log", network=network, weakness=weakness)

    def config(self, name: str, **changes: Any) -> DoorsConfig:
        cache, registries = self.directory / f"{name}.cache", self.directory / "registries.toml"
        cache.mkdir(mode=0o700, exist_ok=True)
        os.chown(cache, 65_534, 65_534)
        # The one redirect that is followed: to a place of another server, below one directory.
        registries.write_text(registries_text(self.registry.url, f"{self.elsewhere.url}/bucket/"))
        fields: dict[str, Any] = {
            "uid": 65_534, "gid": 65_534, "registries": registries, "cache_directory": cache,
            "cache_bytes": 1 << 28, "connect_hosts": _HOSTS,
        }  # fmt: skip  # one line of fields reads better than six
        return DoorsConfig(**(fields | changes))

    def _find_doors(self, weakness: str, *, networked: bool) -> DoorProcess | NaiveProxy:
        name = f"{weakness or 'shipped'}{'-networked' if networked else ''}".replace(" ", "-")
        if name not in self._doors:
            if weakness == NAIVE:
                self._doors[name] = NaiveProxy(self.registry.port)
            else:
                config = self.config(name)
                network = self.directory / "network.json" if networked or weakness else None
                log = self.directory / f"{name}.log"
                self._doors[name] = DoorProcess(config, log=log, network=network, weakness=weakness)
        return self._doors[name]
