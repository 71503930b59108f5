"""The doors process as it is, but for what the attacks need: a network of the test's own, and one thing weakened.

`python weakened_doors.py NETWORK WEAKNESS` and the doors' own arguments. NETWORK is a JSON file, read at each look-up:
`names` leads from a host to the addresses of its first look-up, its second one and so on; `ports` from an address to
the loopback port that stands for its port 443. WEAKNESS is a name of `WEAKNESSES`, or empty: everything as shipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from services.executor.egress import __main__ as doors
from services.executor.egress import (
    connect_request,
    dialling,
    download,
    listening,
    package_rules,
    registries,
    serving,
    tunnel,
    upstream,
    verdicts,
)
from services.executor.egress.addresses import Address, ForbiddenAddress
from services.executor.egress.ecosystems import go
from services.executor.egress.ecosystems.go_paths import escape
from services.executor.egress.policy import DEFAULT


class Network(dialling.SystemDialler):
    """The way out, in a network of the test's own; what is this machine's own stays forbidden."""

    file: Path
    looked_up: ClassVar[Counter[str]] = Counter()

    async def resolve(self, host: str) -> Sequence[str]:
        answers: list[list[str]] = json.loads(self.file.read_text())["names"].get(host, [])
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        found = answers[min(self.looked_up[host], len(answers) - 1)]
        self.looked_up[host] += 1
        return found

    async def dial(self, address: Address) -> socket.socket:
        if any_address not in WEAKNESSES[WEAKNESS] and dialling.is_own(address):
            raise ForbiddenAddress(address=str(address), meaning="this machine's own")
        port = json.loads(self.file.read_text())["ports"].get(str(address))
        if port is None:
            raise ConnectionRefusedError
        connection = socket.socket()
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        return connection


def any_host() -> None:
    """The target's host is found by a search in it, and any port and method will do."""

    def lax(head: connect_request.RequestHead) -> str:
        text = head.target.lower().rpartition("@")[2]
        return text.rpartition(":")[0] or text

    vars(tunnel)["requested_host"] = lax
    vars(tunnel)["parse_head"] = _read_anything
    vars(listening)["decide"] = lambda *_arguments, **_options: None

    async def first(self: Network, host: str) -> Sequence[str]:
        return ["203.0.113.80"]

    vars(sys.modules[__name__])["Network"].resolve = first


def _read_anything(head: bytes) -> connect_request.RequestHead:
    method, _, rest = head.decode("latin-1").partition(" ")
    return connect_request.RequestHead(method=method, target=rest.partition(" HTTP/")[0], host=None)


def any_address() -> None:
    """What a name stands for is not looked at."""
    vars(tunnel)["check_addresses"] = lambda texts: tuple(map(ipaddress.ip_address, texts))


def look_up_twice() -> None:
    """One look-up is judged, another one dialled."""
    judged = vars(tunnel)["_reach"]

    async def reach(host: str, dialler: Network, patience: Any) -> socket.socket:
        with contextlib.suppress(verdicts.UpstreamFailed):
            (await judged(host, dialler, patience)).close()
        return await dialler.dial(ipaddress.ip_address((await dialler.resolve(host))[0]))

    vars(tunnel)["_reach"] = reach


def any_hello() -> None:
    """Whatever a client says first is passed on."""

    async def read(client: socket.socket, surplus: bytes, host: str, seconds: float) -> bytes:
        return surplus or await asyncio.get_running_loop().sock_recv(client, 65_536)

    vars(tunnel)["_read_hello"] = read


def any_redirect() -> None:
    """Redirects are followed wherever they lead."""
    registries.Registry.follows = lambda _self, _url: True  # type: ignore[method-assign,assignment]
    vars(upstream)["_MAX_REDIRECTS"] = 20


def any_content() -> None:
    """What comes is taken for what was promised."""
    vars(download)["Spool"].matches = lambda _self, _digest: True


def let_the_proxy_fetch() -> None:
    """The proxy of Go is not told to fetch nothing."""
    vars(go)["_NO_FETCH"] = {}


def look_up_anything() -> None:
    """A checksum look-up is passed on whatever it is for."""

    async def look_up(self: Any, module: str, version: str, source: Any) -> Any:
        path = f"lookup/{escape(module)}@{escape(version)}"
        return await self._database_page(path, "go checksum", source, immutable=True)

    go.GoModules._lookup = look_up  # type: ignore[method-assign]


def keep_connections() -> None:
    """What a connection may is decided when it is made."""

    async def set_policy(self: Any, policy: Any) -> None:
        if not policy.registries and not policy.hosts:
            return
        self._policy = policy

    listening.SandboxDoor.set_policy = set_policy  # type: ignore[method-assign]
    listening.SandboxDoor.set_install = _open_install  # type: ignore[method-assign]


def _open_install(self: Any, *, is_open: bool) -> None:
    self._install_open = self._install_open or is_open


def any_user() -> None:
    """Who asks does not matter."""
    checked = vars(listening)["_check_request"]
    vars(listening)["_check_request"] = lambda request, uid, install_open: checked(request, uid, install_open=True)


def believe_the_client() -> None:
    """A preamble of the client's own counts for more than sandboxd's."""
    shipped = listening.read_preamble

    async def read(connection: socket.socket) -> listening.Preamble:
        preamble = await shipped(connection)
        asyncio.get_running_loop()
        while True:
            try:
                start = connection.recv(5, socket.MSG_PEEK)
            except BlockingIOError:
                await asyncio.sleep(0.01)
                continue
            return await shipped(connection) if start == b"QILA1" else preamble

    vars(listening)["read_preamble"] = read


def open_when_in_doubt() -> None:
    """What cannot be read is taken for the default."""
    shipped_registries, shipped_rules = registries.load_registries, package_rules.load_package_policy

    def load_registries(path: Path) -> registries.Registries:
        try:
            return shipped_registries(path)
        except registries.InvalidRegistries:
            return shipped_registries(path.with_suffix(".default"))

    def load_package_policy(path: Path) -> package_rules.PackagePolicy:
        try:
            return shipped_rules(path)
        except package_rules.InvalidPackagePolicy:
            return package_rules.NO_POLICY

    vars(doors)["load_registries"] = load_registries
    vars(doors)["load_package_policy"] = load_package_policy
    vars(serving)["_read_policy"] = lambda _sandbox, _message: DEFAULT


def one_pool() -> None:
    """All sandboxes share what each one should have of its own."""
    made = listening.SandboxDoor.__init__
    pool: dict[str, asyncio.Semaphore] = {}

    def make(self: Any, **fields: Any) -> None:
        made(self, **fields)
        for name in ("_connection_slots", "_request_slots", "_tunnel_slots"):
            setattr(self, name, pool.setdefault(name, getattr(self, name)))

    listening.SandboxDoor.__init__ = make  # type: ignore[method-assign]


WEAKNESSES: Final[dict[str, Sequence[Callable[[], None]]]] = {
    "": (),
    "a mirror without checks": (
        any_content, let_the_proxy_fetch, look_up_anything, believe_the_client, any_redirect,
    ),
    "tunnels to any host": (any_host,),
    "tunnels without checks": (any_address, look_up_twice, any_hello),
    "decided once": (keep_connections, any_user),
    "open when in doubt": (open_when_in_doubt,),
    "one pool for all": (one_pool,),
}  # fmt: skip  # a table reads best with a row each
WEAKNESS: str = ""

if __name__ == "__main__":
    network, WEAKNESS = sys.argv[1:3]
    del sys.argv[1:3]
    Network.file = Path(network)
    vars(serving)["SystemDialler"] = Network
    for weaken in WEAKNESSES[WEAKNESS]:
        weaken()
    sys.exit(doors.main())
