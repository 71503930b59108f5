"""Out through a tunnel: hosts by every spelling, names that lead inside, other names in TLS, tunnels kept open."""

from __future__ import annotations

import base64
import ssl
import struct
from collections.abc import Iterator

import pytest

from services.executor.egress.policy import CLOSED

from .doors import CONNECT, HOST, NAIVE, OTHERS, PUBLIC, REBINDING, DoorProcess, Front, Site
from .frame import Setting, attack
from .oracles import host_addresses

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

ANY_HOST = "tunnels to any host"
UNCHECKED = "tunnels without checks"
ONCE = "decided once"


@pytest.fixture(scope="module")
def site(sandbox_image: str) -> Iterator[Site]:
    with Site() as made:
        yield made


def hello(host: str | None) -> bytes:
    """What Python's own client says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def connect(target: str, host: str | None = None) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target if host is None else host}\r\n\r\n".encode("latin-1")


def spellings() -> list[str]:
    """Of loopback and of the one host, each with everything around it that somebody once did not think of."""
    addresses = [
        "127.0.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.1", "127.0.1", "0",
        "0.0.0.0",
        "[::1]", "::1", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[fe80::1%25lo]",
        "[fe80::1%lo]",
        "[64:ff9b::7f00:1]", "[0:0:0:0:0:0:0:1]", "127.0.0.1.", "\u00b9\u00b2\u00b7.0.0.1", "localhost",
        "localhost.localdomain",
        "127.0.0.1.nip.example", "1.0.0.127.in-addr.arpa", "00000127.0.0.1", "127.0.0.1%00", "127.0.0.01", "3221225985",
    ]  # fmt: skip  # a list of tricks reads best close together
    names = [
        f"{HOST}.", f"{HOST}..", f".{HOST}", f"{HOST}.evil.example", f"evil{HOST}", f"evil.{HOST}", f"{HOST}evil",
        f"{HOST}\x00",
        f"{HOST}%00", f"evil.example%00.{HOST}", f"evil.example\x00{HOST}", f"{HOST}@evil.example", f"user@{HOST}",
        f"user:word@{HOST}",
        f"evil.example#{HOST}", f"evil.example?{HOST}", f"evil.example/{HOST}", f"evil.example\\{HOST}",
        f"{HOST}:443@evil.example",
        f"*.{HOST.partition('.')[2]}", HOST.partition(".")[2], "example.org", "evil.example", f"{HOST},evil.example",
        f"{HOST};evil",
        HOST.replace("o", "\u00f8"), HOST.replace(".", "%2e"), HOST.replace("p", "%70", 1),
        f"{HOST}_", f"-{HOST}", f"xn--{HOST}",
    ]  # fmt: skip  # as above
    return [*addresses, *names]


@attack(weakened=ANY_HOST)
def test_name_a_host_by_another_spelling(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, ANY_HOST, networked=True)
    targets = [f"{spelling}:443" for spelling in spellings()]
    targets += [
        f"{HOST}:{port}"
        for port in ("80", "22", "8443", "0443", "65979", "+443", " 443", "443 ", "0x1bb", "", "-1", "443:443")
    ]
    targets += [
        HOST,
        f"https://{HOST}:443",
        f"http://{HOST}:443/",
        f"//{HOST}:443",
        f"/{HOST}:443",
        f"{HOST}:443/",
        f"{HOST}:443?x",
        "*",
    ]
    heads = [connect(target) for target in targets]
    heads += [
        connect(f"{HOST}:443", "evil.example:443"),
        connect(f"{HOST}:443", f"{HOST}:80"),
        connect("evil.example:443", f"{HOST}:443"),
    ]
    heads += [
        f"{method} {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()
        for method in ("GET", "connect", "POST", "CONNECTED")
    ]
    heads += [f"GET http://{HOST}{rest} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() for rest in ("/", ":443/", ":80/x")]
    heads += [connect(f"{HOST}:443").replace(b"\r\n\r\n", extra) for extra in (
        b"\r\nHost: evil.example\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\r\n Host: evil.example\r\n\r\n", b"\r\nX: \n\n\r\n\r\n", b"\r\nX : y\r\n\r\n",
        b"\r\nUpgrade: tls\r\n\r\n")]  # fmt: skip  # as above
    heads += [
        f"CONNECT {HOST}:443{tail}\r\nHost: {HOST}\r\n\r\n".encode()
        for tail in ("", " HTTP/2.0", " HTTP/1.1 x", "  HTTP/1.1", "\tHTTP/1.1")
    ]
    front.box.send([(head, hello(HOST)) for head in heads], port=CONNECT)
    return front.public.seen + front.inside.seen


def leads_inside() -> dict[str, list[list[str]]]:
    """Names, and what a look-up of each finds: something inside, alone or beside what is outside."""
    own = next(address for address in host_addresses() if ":" not in address and not address.startswith("127."))
    places = [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.17.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "255.255.255.255", "::1", "::",
        "::ffff:127.0.0.1",
        "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "64:ff9b::7f00:1", "2002:7f00:1::", own,
    ]  # fmt: skip  # as above
    names = {name: [[place]] for name, place in zip(OTHERS, places, strict=False)}
    # Before and behind an address that is allowed.
    return names | {OTHERS[-2]: [[PUBLIC, "127.0.0.1"]], OTHERS[-1]: [["10.0.0.1", PUBLIC]]}


def ask_for(front: Front, names: list[str]) -> None:
    front.box.send([(connect(f"{name}:443"), hello(name)) for name in names], port=CONNECT)


@attack(weakened=UNCHECKED)
def test_tunnel_to_a_name_that_leads_inside(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, UNCHECKED, networked=True)
    names = leads_inside()
    front.resolve(names)
    ask_for(front, list(names))
    return front.public.seen + front.inside.seen


@attack(weakened=UNCHECKED)
def test_have_a_name_lead_inside_at_its_second_look_up(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, UNCHECKED, networked=True)
    name = REBINDING
    front.resolve({name: [[PUBLIC], ["127.0.0.1"]]})
    # Once alone: a name that is looked up again for another tunnel is judged again.
    ask_for(front, [name])
    assert front.public.seen, "the name has been dialled"
    ask_for(front, [name])
    return front.inside.seen


def extension(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", kind, len(body)) + body


def named(*names: bytes, kind: int = 0) -> bytes:
    entries = b"".join(bytes([kind]) + struct.pack(">H", len(name)) + name for name in names)
    return extension(0, struct.pack(">H", len(entries)) + entries)


def message(extensions: bytes) -> bytes:
    """A ClientHello as a handshake message, in as many records as `record` makes of it."""
    body = (
        b"\x03\x03"
        + b"r" * 32
        + b"\0"
        + b"\0\x02\x13\x01"
        + b"\x01\0"
        + struct.pack(">H", len(extensions))
        + extensions
    )
    return b"\x01" + len(body).to_bytes(3) + body


def record(handshake: bytes, *sizes: int) -> bytes:
    pieces = []
    for size in (*sizes, len(handshake)):
        pieces.append(handshake[:size])
        handshake = handshake[size:]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(piece)) + piece for piece in pieces if piece)


def hellos() -> list[bytes]:
    own, evil = HOST.encode(), b"evil.example"
    padding = extension(21, bytes(3000))
    return [
        hello("evil.example"), hello(None), hello(f"evil.{HOST}"), hello("example.org"), record(message(named(evil))),
        record(message(named(own, evil))), record(message(named(evil, own))), record(message(named(own) + named(evil))),
        record(message(named(evil) + named(own))), record(message(named(own, kind=1))),
        record(message(named(own + b"\0.evil"))),
        record(message(named(own + b"."))), record(message(named(b"127.0.0.1"))), record(message(b"")),
        record(message(named(own) + extension(0xFE0D, b"\0" * 40))),
        record(message(named(own) + extension(0xFFCE, b"\0" * 40))),
        record(message(padding + named(evil)), 1, 1, 2, 700, 700),
        record(message(padding + named(own) + named(evil)), 16, 2500),
        record(message(named(own)) + message(named(evil))), record(message(named(own)))[:-3] + b"\xff\xff\xff",
        b"\x16\x03\x01\x00\x00" + record(message(named(evil))),
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + bytes(40),
        b"GET / HTTP/1.1\r\nHost: " + own + b"\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x17\x03\x03\x00\x05stole", b"\x15\x03\x01\x00\x02\x01\x00", b"\0", bytes(range(256)) * 8,
        b"EHLO evil.example\r\n",
        record(b"\x02" + message(named(own))[1:]), b"\x16\x02\x00" + record(message(named(own)))[3:],
    ]  # fmt: skip  # as above


@attack(weakened=UNCHECKED)
def test_say_another_name_than_the_tunnels_or_no_tls(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, UNCHECKED, networked=True)
    cases = [(connect(f"{HOST}:443"), said) for said in hellos()]
    # And in the same packet as the request, before anybody has said yes.
    front.box.send([*cases, *(head + said for head, said in cases)], port=CONNECT)
    return front.public.seen


# Opens a tunnel, says its hello, and then a word whenever it is told to; prints whether it was answered.
KEEP = r"""
import base64, os, pathlib, socket, sys, time
go = pathlib.Path('/tmp/go-' + str(os.getuid()))
go.unlink(missing_ok=True)
connection = socket.create_connection(('127.0.0.1', 7481))
connection.settimeout(20)
connection.sendall(base64.b64decode(sys.argv[1]))
connection.recv(4096)
connection.sendall(base64.b64decode(sys.argv[2]))
print(connection.recv(4096) and 'open', flush=True)
while not go.exists():
    time.sleep(0.02)
try:
    connection.sendall(b'kept open')
    print(connection.recv(4096))
except OSError as error:
    print(error)
"""


def keep(front: Front, user: str = "program") -> str:
    """A tunnel that stays open."""
    arguments = (base64.b64encode(connect(f"{HOST}:443")).decode(), base64.b64encode(hello(HOST)).decode())
    return front.box.start(KEEP, *arguments, user=user)


def use(front: Front, name: str, user: str = "program") -> list[bytes]:
    """What comes out of it now."""
    front.box.run("import os, pathlib; pathlib.Path('/tmp/go-' + str(os.getuid())).touch()", user=user)
    front.box.sandboxd.finish(name)
    return [data for data in front.public.seen if b"kept open" in data]


@attack(weakened=ONCE)
def test_keep_a_tunnel_open_when_the_policy_closes(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, ONCE, networked=True)
    assert isinstance(front.doors, DoorProcess)
    tunnel = keep(front)
    front.doors.set_policy(front.box.name, CLOSED)
    return use(front, tunnel)


@attack(weakened=ONCE)
def test_keep_a_tunnel_of_an_install_open_when_it_ends(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, ONCE, networked=True)
    assert isinstance(front.doors, DoorProcess)
    front.doors.set_install(front.box.name, is_open=True)
    tunnel = keep(front, user="install")
    front.doors.set_install(front.box.name, is_open=False)
    return use(front, tunnel, user="install")


@attack(weakened=NAIVE)
def test_keep_a_tunnel_open_over_the_death_of_the_doors(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, NAIVE, networked=setting is Setting.SHIPPED)
    if isinstance(front.doors, DoorProcess):
        tunnel = keep(front)
        front.doors.kill()
        seen = use(front, tunnel)
        site.forget(front.doors)
        return seen
    # What carries this one is another process than what is killed.
    front.doors.stand_ins[HOST] = front.public.port
    return use(front, keep(front))
