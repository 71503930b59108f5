"""Making the mirror ask for something else, elsewhere, or in another way, through the whole installation."""

from __future__ import annotations

import pytest

from .frame import Setting, attack
from .mirror import NAIVE, Mirror, get
from .oracles import HostServices

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

PAGE = "/pypi/simple/demo/"


@attack(weakened=NAIVE)
def test_override_the_method(setting: Setting, mirror: Mirror) -> list[str]:
    names = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
    mirror.send(
        *(get(f"{PAGE}?_method=PUT", f"{name}: PUT") for name in names), *(get(PAGE, f"{n}: PUT") for n in names)
    )
    return mirror.strange()


@attack(weakened=NAIVE)
def test_hand_headers_on(setting: Setting, mirror: Mirror, host: HostServices) -> list[str]:
    answers = mirror.send(
        get("/pypi/simple/x/", f"X-Forwarded-Host: 127.0.0.1:{host.port}", host=f"127.0.0.1:{host.port}")
    )
    return host.seen + [answer for answer in answers if "host\n" in answer]


def spellings(port: int) -> list[str]:
    """Requests that name another host, each in a way that some proxy has once believed."""
    others = (
        f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST.:{port}", f"127.1:{port}", f"2130706433:{port}",
        f"0x7f000001:{port}", f"0177.0.0.1:{port}", f"[::1]:{port}", f"[::ffff:127.0.0.1]:{port}", f"0:{port}",
        f"me@127.0.0.1:{port}", f"127.0.0.1:7480@127.0.0.1:{port}", f"127.0.0.1:{port}#@127.0.0.1:7480",
        f"127.0.0.1\0:{port}", f"127.0.0.1:{port}\\@127.0.0.1:7480", f"127.0.0.1%00:{port}", f"127.0.0.1:0{port}",
    )  # fmt: skip
    requests = []
    for other in others:
        requests += [
            get(f"http://{other}{PAGE}"),
            get(f"http://{other}{PAGE}", host=other),
            get(PAGE, host=other),
            get(f"//{other}{PAGE}"),
            get(f"/pypi//{other}/"),
            get(f"/pypi/simple/http://{other}/"),
            get(f"/pypi/files/{'0' * 64}/-/http://{other}/x"),
            get(f"/\\{other}{PAGE}"),
            get(f"HTTPS://{other}/"),
            get(f"{PAGE}@{other}"),
            get(f".{other}/"),
            get(other, method="CONNECT", host=other),
        ]
    return requests


@attack(weakened=NAIVE)
def test_name_another_host(setting: Setting, mirror: Mirror, host: HostServices) -> list[str]:
    mirror.send(*spellings(host.port))
    return host.seen + mirror.strange()


FILE = f"/pypi/files/{'0' * 64}/-"
STORED = f"packages/00/00/{'0' * 60}"
STRANGE_PATHS = (
    "/pypi/simple/../../etc/passwd", "/pypi/simple/..%2f..%2fdemo/", "/pypi/simple/%2e%2e/demo/",
    "/pypi/simple/demo/../x/", "/pypi/simple/demo\0/", "/pypi/simple/demo%00/", "/pypi/simple//demo/",
    "/pypi//simple/demo/", "//pypi/simple/demo/", "/pypi/simple/demo", "/pypi/simple/demo/?q=secret",
    "/pypi/simple/demo/#x", "/pypi/simple/demo;x/", "/PYPI/simple/demo/", "/pypi/simple/demo%20x/",
    "/pypi/simple/dem\xf6/", "/pypi/simple/demo/\x7f", "/pypi/simple/a b/", "/pypi/simple/demo./",
    "/pypi/simple/-demo/", "/pypi/simple/demo/x", f"/pypi/simple/{'a' * 5_000}/", "/simple/demo/", "/packages/x",
    f"{FILE}/{STORED}/../../../x", f"{FILE}/{STORED}/a%2fb", f"{FILE}/{STORED}/a?b", f"{FILE}/simple/demo/",
)  # fmt: skip


@attack(weakened=NAIVE)
def test_ask_for_a_path_that_the_door_does_not_have(setting: Setting, mirror: Mirror) -> list[str]:
    mirror.send(*(get(path) for path in STRANGE_PATHS))
    return mirror.strange()


INNER = get("/pypi/simple/smuggled/")


def smuggled(*headers: str, body: str = INNER, line: str = f"GET {PAGE} HTTP/1.1") -> str:
    return "\r\n".join((line, "Host: 127.0.0.1:7480", *headers)) + "\r\n\r\n" + body


CHUNK = f"{len(INNER):x}\r\n{INNER}\r\n0\r\n\r\n"
EMPTY_CHUNK = f"0\r\n\r\n{INNER}"
SMUGGLING = (
    smuggled(f"Content-Length: {len(INNER)}"),
    smuggled("Content-Length: 0", f"Content-Length: {len(INNER)}"),
    smuggled("Content-Length: 4", "Transfer-Encoding: chunked", body=EMPTY_CHUNK),
    smuggled("Transfer-Encoding: chunked", body=CHUNK),
    smuggled("Transfer-Encoding : chunked", body=EMPTY_CHUNK),
    smuggled("Transfer-Encoding: xchunked", body=EMPTY_CHUNK),
    smuggled("Transfer-Encoding:\x0bchunked", body=CHUNK),
    smuggled("Transfer-Encoding: identity, chunked", body=CHUNK),
    *(smuggled(f"Content-Length: {odd}") for odd in ("+0", "0x0", "-1", "1 1", "1,1", "\u00b2", "")),
    smuggled("X: 1\n\nGET /pypi/simple/smuggled/ HTTP/1.1"),
    smuggled("X:\r GET /pypi/simple/smuggled/ HTTP/1.1"),
    smuggled("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    smuggled("Expect: 100-continue", f"Content-Length: {len(INNER)}"),
    smuggled("Content-Length: 5", line=f"GET\t{PAGE}\tHTTP/1.1"),
    smuggled("Content-Length: 5", line=f"GET {PAGE} HTTP/1.2"),
    smuggled("Content-Length: 5", line=f"GET {PAGE}"),
    smuggled(" folded: 1", "Content-Length: 5"),
    f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{INNER}",
    f"QILA1 mirror 1001\n{INNER}",
    f"\r\n\r\nPOST {PAGE} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n{INNER}",
    f"GET {PAGE} HTTP/1.1\nHost: x\nContent-Length: 9\n\n{INNER}",
)


@attack(weakened=NAIVE)
def test_smuggle_a_request_in_another(setting: Setting, mirror: Mirror) -> list[str]:
    mirror.send(*SMUGGLING)
    return [line for line in mirror.seen() if "smuggled" in line]
