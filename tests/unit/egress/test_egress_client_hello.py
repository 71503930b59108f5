import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.egress.client_hello import MAX_STREAM_BYTES, ClientHelloReader, InvalidHello
from services.executor.egress.policy import is_host_name

from .hellos import extension, handshake_of, message, real_hello, records, server_name

HOST = "plugins.example.org"
HELLO = real_hello(HOST)
NAME = server_name(HOST.encode())


def name_in(stream: bytes) -> str | None:
    return ClientHelloReader().feed(stream)


def fed_in_pieces(pieces: list[bytes]) -> tuple[str | None, bytes]:
    reader = ClientHelloReader()
    name = None
    for piece in pieces:
        assert name is None, "more was asked for than the message has"
        name = reader.feed(piece)
    return name, bytes(reader.stream)


@pytest.mark.parametrize("tls12", [True, False])
@pytest.mark.parametrize("alpn", [True, False])
def test_real_hellos(*, tls12: bool, alpn: bool) -> None:
    assert name_in(real_hello(HOST, tls12=tls12, alpn=alpn)) == HOST


def test_a_real_hello_without_a_name() -> None:
    with pytest.raises(InvalidHello, match="no server name"):
        name_in(real_hello(None))


def test_cut_at_every_byte_into_segments() -> None:
    for cut in range(1, len(HELLO)):
        assert fed_in_pieces([HELLO[:cut], HELLO[cut:]]) == (HOST, HELLO)


def test_byte_by_byte() -> None:
    assert fed_in_pieces([HELLO[at : at + 1] for at in range(len(HELLO))]) == (HOST, HELLO)


def test_cut_at_every_byte_into_records() -> None:
    handshake = handshake_of(HELLO)
    for cut in range(1, len(handshake)):
        assert name_in(records(handshake, cut)) == HOST


def test_records_of_one_byte_each_that_come_byte_by_byte() -> None:
    handshake = handshake_of(HELLO)
    stream = records(handshake, *[1] * len(handshake))
    assert fed_in_pieces([stream[at : at + 1] for at in range(len(stream))]) == (HOST, stream)


def test_every_beginning_of_a_hello_waits_for_more() -> None:
    for end in range(len(HELLO)):
        assert name_in(HELLO[:end]) is None


def test_what_follows_the_message_is_kept_to_be_passed_on() -> None:
    # Early data, in records of its own.
    reader = ClientHelloReader()
    assert reader.feed(HELLO + b"\x17\x03\x03\x00\x05early") == HOST
    assert reader.stream == HELLO + b"\x17\x03\x03\x00\x05early"


def test_the_name_is_told_in_lower_case() -> None:
    assert name_in(records(message(server_name(b"PLUGINS.Example.ORG")))) == HOST


@pytest.mark.parametrize(
    "name",
    [b"", b".", b"plugins.example.org.", b"plugins.example.org\0", b"plugins.example.org\0.evil.example", b"127.0.0.1",
     b"2130706433", b"::1", b"[::1]", b"localhost", b"plugins.example.org:443", b"user@plugins.example.org",
     b"*.example.org", b"plugins.example.org ", "plu\u212ains.example.org".encode(), b"\xff.example.org",
     b"a" * 64 + b".example.org", b"a." * 130 + b"org"],
)  # fmt: skip  # a table of one column reads best in rows
def test_names_that_are_no_host_names(name: bytes) -> None:
    with pytest.raises(InvalidHello, match="no plain host name"):
        name_in(records(message(server_name(name))))


@pytest.mark.parametrize(
    ("handshake", "problem"),
    [
        (message(None), "no server name"),
        (message(b""), "no server name"),
        (message(extension(16, b"\0\x03\x02h2")), "no server name"),
        (message(NAME + NAME), "an extension twice"),
        (message(NAME + extension(16, b"") + extension(16, b"")), "an extension twice"),
        (message(NAME + extension(0xFE0D, b"\0" * 40)), "an encrypted server name"),
        (message(extension(0xFE0D, b"") + NAME), "an encrypted server name"),
        (message(NAME + extension(0xFFCE, b"")), "an encrypted server name"),
        (message(server_name(HOST.encode(), b"evil.example")), "other server names than one"),
        (message(server_name(HOST.encode(), kind=1)), "other server names than one"),
        (message(extension(0, b"")), "a field beyond the end"),
        (message(extension(0, b"\0\0")), "a field beyond the end"),
        (message(extension(0, NAME[4:] + b"\0")), "other server names than one"),
        (message(extension(0, b"\0\x17" + NAME[6:])), "a field beyond the end"),
        (message(NAME, tail=b"\0"), "something behind the extensions"),
        (message(NAME[:-1]), "a field beyond the end"),
        (message(NAME, version=0x0300), "an unknown version"),
        (message(NAME, version=0x0304), "an unknown version"),
        (message(NAME, session_id=b"s" * 33), "a field of a bad size"),
        (message(NAME, ciphers=b""), "a field of a bad size"),
        (message(NAME, ciphers=b"\x13\x01\x13"), "a field of a bad size"),
        (message(NAME, compressions=b""), "a field of a bad size"),
        (b"\x01\0\0\0", "a field beyond the end"),
        (b"\x02" + message(NAME)[1:], "another message"),
        (b"\x01\x7f\xff\xff" + message(NAME)[4:], "too long"),
        (message(NAME) + b"\x01", "something behind the ClientHello"),
        (message(NAME) + message(server_name(b"evil.example")), "something behind the ClientHello"),
    ],
)
def test_hellos_that_are_refused(handshake: bytes, problem: str) -> None:
    with pytest.raises(InvalidHello, match=problem):
        name_in(records(handshake))


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        (b"GET / HTTP/1.1\r\n", "no TLS"),
        (b"S", "no TLS"),
        (b"\x80\x2e\x01\x03\x01", "no TLS"),
        (b"\x16\x02\x00\x00\x10", "no TLS"),
        (b"\x17\x03\x03\x00\x10", "no TLS"),
        (b"\x16\x03\x01\x00\x00", "bad size"),
        (b"\x16\x03\x01\x40\x01", "bad size"),
        pytest.param(
            records(handshake_of(HELLO)[:50]) + b"\x15\x03\x01\x00\x02\x01\x00", "no TLS", id="alert in a hello"
        ),
        (records(b"\x01\x00\x40\x00" + b"\0" * 16_300, 1000), "too long"),
        (records(b"\x01\x00\x3f\x00" + b"\0" * 9_000, *[1] * 9_000), "too long"),
    ],
)
def test_streams_that_are_refused(stream: bytes, problem: str) -> None:
    with pytest.raises(InvalidHello, match=problem):
        name_in(stream)


def test_a_stream_without_end_is_not_kept() -> None:
    reader = ClientHelloReader()
    reader.feed(records(b"\x01\x00\x3f\x00"))
    with pytest.raises(InvalidHello, match="too long"):
        any(reader.feed(records(b"\0")) for _ in range(MAX_STREAM_BYTES))
    assert len(reader.stream) <= MAX_STREAM_BYTES + 6


def test_only_what_speaks_tls_hears_an_alert() -> None:
    for stream, is_tls in ((b"GET", False), (records(message(None)), True)):
        with pytest.raises(InvalidHello) as refused:
            name_in(stream)
        assert refused.value.is_tls is is_tls


@given(st.binary(max_size=400))
def test_fuzz_bytes(data: bytes) -> None:
    accepted(data)
    accepted(b"\x16\x03\x01" + data)
    accepted(records(b"\x01" + len(data).to_bytes(3) + data))


@given(st.data())
def test_fuzz_a_real_hello_with_some_bytes_changed(data: st.DataObject) -> None:
    stream = bytearray(HELLO)
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    accepted(bytes(stream))


@given(st.lists(st.sampled_from([NAME, server_name(b"evil.example"), extension(16, b"x"), b"\0", b"\0\0\0\0"])))
def test_fuzz_extensions(pieces: list[bytes]) -> None:
    name = accepted(records(message(b"".join(pieces))))
    # The law: a name that is accepted is the only one there is.
    assert name is None or (pieces.count(NAME) + pieces.count(server_name(b"evil.example")) <= 1)


def accepted(stream: bytes) -> str | None:
    """The name; nothing but a plain host name, InvalidHello or a wish for more may come out."""
    try:
        name = name_in(stream)
    except InvalidHello:
        return None
    assert name is None or is_host_name(name)
    return name
