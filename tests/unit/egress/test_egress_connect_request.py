import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.egress.connect_request import MAX_HEAD_BYTES, parse_head, requested_host
from services.executor.egress.verdicts import Refused

HOST = "plugins.example.org"
LINE = b"CONNECT plugins.example.org:443 HTTP/1.1\r\n"
FIELD = b"Host: plugins.example.org\r\n"


def host_of(head: bytes) -> str:
    return requested_host(parse_head(head))


@pytest.mark.parametrize(
    "head",
    [
        # pip on Python 3.11
        b"CONNECT plugins.example.org:443 HTTP/1.0\r\n\r\n",
        # Python 3.12 and later
        b"CONNECT plugins.example.org:443 HTTP/1.1\r\nHost: plugins.example.org:443\r\n\r\n",
        # curl
        LINE + b"Host: plugins.example.org:443\r\nUser-Agent: curl/8.14.1\r\nProxy-Connection: Keep-Alive\r\n\r\n",
        # Go
        LINE + b"Host: plugins.example.org:443\r\nUser-Agent: Go-http-client/1.1\r\n\r\n",
        # Maven
        LINE + FIELD + b"User-Agent: Apache-Maven/3.9.9 (Java 21.0.13; Linux 6.1)\r\n\r\n",
        # Java's URLConnection
        LINE + b"User-Agent: Java/21.0.13\r\n" + FIELD + b"Accept: */*\r\nProxy-Connection: keep-alive\r\n\r\n",
        # Node
        LINE + b"host: plugins.example.org:443\r\nconnection: close\r\nproxy-connection: keep-alive\r\n\r\n",
        # credentials for a proxy are nobody's here
        LINE + b"Host:plugins.example.org:443 \t\r\nProxy-Authorization: Basic eDp5\r\nX-Empty:\r\n\r\n",
        b"CONNECT PLUGINS.Example.org:443 HTTP/1.1\r\nHost: Plugins.example.ORG:443\r\n\r\n",
    ],
)
def test_what_clients_really_send(head: bytes) -> None:
    assert host_of(head) == HOST


@pytest.mark.parametrize(
    "target",
    [
        "plugins.example.org", "plugins.example.org:", "plugins.example.org:80", "plugins.example.org:0443",
        "plugins.example.org:4430", "plugins.example.org:+443", "plugins.example.org:443:443",
        "plugins.example.org:65979", "plugins.example.org.:443", ".plugins.example.org:443",
        "plugins..example.org:443", "-plugins.example.org:443", "plugins_.example.org:443",
        "user@plugins.example.org:443", "user:pass@plugins.example.org:443", "plugins.example.org@evil.example:443",
        "https://plugins.example.org:443", "http://plugins.example.org:443/", "//plugins.example.org:443",
        "plugins.example.org:443/", "plugins.example.org:443?x", "plugins.example.org:443#x",
        "plugins.example.org/:443", "plugins.example.org%00:443", "plugins%2eexample.org:443", "*", "/", ":443",
        "localhost:443", "plugins:443", "a" * 64 + ".example.org:443", "a." * 127 + "org:443",
        "127.0.0.1:443", "127.1:443", "2130706433:443", "0x7f000001:443", "0x7f.1:443", "0177.0.0.1:443",
        "127.0.0.0x1:443", "127.0.0.1.:443", "169.254.169.254:443", "[::1]:443", "::1:443", "[::ffff:127.0.0.1]:443",
        "[plugins.example.org]:443", "example.0x7f:443", "example.1:443",
    ],
)  # fmt: skip  # a table of one column reads best in rows
@pytest.mark.parametrize("field", ["", "Host: plugins.example.org:443\r\n"])
def test_targets_that_are_no_exact_host_with_port_443(target: str, field: str) -> None:
    version = "1.1" if field else "1.0"
    with pytest.raises(Refused) as refused:
        host_of(f"CONNECT {target} HTTP/{version}\r\n{field}\r\n".encode())
    assert refused.value.status in {400, 403}
    assert refused.value.rule in {"connect: host", "connect: port"}


@pytest.mark.parametrize(
    ("head", "rule"),
    [
        (b"GET / HTTP/1.1\r\nHost: plugins.example.org\r\n\r\n", "connect: method"),
        (b"GET https://plugins.example.org/ HTTP/1.1\r\nHost: plugins.example.org\r\n\r\n", "connect: method"),
        (b"connect plugins.example.org:443 HTTP/1.0\r\n\r\n", "connect: method"),
        (b"CONNECT plugins.example.org:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", "connect: host field"),
        (b"CONNECT plugins.example.org:443 HTTP/1.1\r\nHost: plugins.example.org:80\r\n\r\n", "connect: host field"),
        (b"CONNECT plugins.example.org:443 HTTP/1.1\r\nHost: plugins.example.org.\r\n\r\n", "connect: host field"),
        (b"CONNECT plugins.example.org:443 HTTP/1.1\r\nHost:\r\n\r\n", "connect: host field"),
    ],
)
def test_what_is_well_formed_and_refused(head: bytes, rule: str) -> None:
    with pytest.raises(Refused) as refused:
        host_of(head)
    assert refused.value.rule == rule


@pytest.mark.parametrize(
    "head",
    [
        b"", b"\r\n\r\n", b"\r\n" + LINE + FIELD + b"\r\n", LINE + FIELD, LINE + FIELD + b"\n", LINE + b"\r\n",
        LINE.replace(b"\r\n", b"\n") + FIELD + b"\r\n", LINE + FIELD.replace(b"\r\n", b"\n") + b"X: y\r\n\r\n",
        LINE + FIELD.replace(b"\r\n", b"\r") + b"X: y\r\n\r\n",
        LINE + FIELD + FIELD + b"\r\n", LINE + FIELD + b"host: plugins.example.org\r\n\r\n",
        LINE + FIELD + b" folded\r\n\r\n", LINE + b"X\r\n" + FIELD + b"\r\n", LINE + b"Host : x\r\n\r\n",
        LINE + b": x\r\n" + FIELD + b"\r\n", LINE + FIELD + b"X: a\x00b\r\n\r\n", LINE + FIELD + b"X: a\x7f\r\n\r\n",
        LINE + FIELD + b"X: \xc3\xa9\r\n\r\n", LINE + FIELD + b"Content-Length: 0\r\n\r\n",
        LINE + FIELD + b"Transfer-Encoding: chunked\r\n\r\n", LINE + FIELD + b"transfer-encoding : chunked\r\n\r\n",
        LINE + FIELD + b"Upgrade: h2c\r\n\r\n", LINE + FIELD + b"Expect: 100-continue\r\n\r\n",
        LINE + FIELD + b"X: y\r\n" * 32 + b"\r\n", LINE + FIELD + b"X: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n",
        LINE.replace(b"1.1", b"2.0") + FIELD + b"\r\n", LINE.replace(b"1.1", b"1.10") + FIELD + b"\r\n",
        LINE.replace(b"HTTP", b"http") + FIELD + b"\r\n", LINE.replace(b" HTTP/1.1", b"") + FIELD + b"\r\n",
        LINE.replace(b" ", b"  ", 1) + FIELD + b"\r\n", LINE.replace(b" ", b"\t", 1) + FIELD + b"\r\n",
        LINE.replace(b"org", b"org\x00.evil") + FIELD + b"\r\n", LINE.replace(b"org", b"org evil") + FIELD + b"\r\n",
        LINE.replace(b"org", "örg".encode()) + FIELD + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)  # fmt: skip  # as above
def test_what_is_no_request(head: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_head(head)
    assert (refused.value.status, refused.value.rule) == (400, "connect: malformed request")


def test_a_long_field_of_blanks_takes_no_time() -> None:
    begin = time.monotonic()
    with pytest.raises(Refused):
        parse_head(LINE + FIELD + b"X:" + b" " * 8000 + b"\x01\r\n\r\n")
    assert time.monotonic() - begin < 1


_PIECES = st.sampled_from(
    [b"CONNECT", b" ", b"plugins.example.org", b":443", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b"Host: ",
     b"evil.example", b".", b"@", b"\0", b":", b"127.0.0.1", b"[::1]", b"/", b"Content-Length: 1", b"\xff", b"%2e"]
)  # fmt: skip  # as above


@given(st.lists(_PIECES | st.binary(max_size=3), max_size=14).map(b"".join))
def test_fuzz_whatever_is_accepted_names_one_exact_host(head: bytes) -> None:
    try:
        host = host_of(head)
    except Refused:
        return
    assert head.startswith(b"CONNECT ")
    assert head[8:].lower().startswith(f"{host}:443 HTTP/1.".lower().encode())
    assert head.count(b"\r\n\r\n") == 1


@given(st.binary(max_size=60), st.integers(0, len(LINE) - 1))
def test_fuzz_something_in_a_good_request(noise: bytes, at: int) -> None:
    head = LINE[:at] + noise + LINE[at:] + FIELD + b"\r\n"
    try:
        host = host_of(head)
    except Refused:
        return
    assert host == HOST
