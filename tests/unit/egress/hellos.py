"""ClientHellos: real ones, made by OpenSSL, and the pieces to make odd ones of."""

import ssl
import struct


def real_hello(host: str | None, *, tls12: bool = False, alpn: bool = True) -> bytes:
    """What Python's own client would send first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if alpn:
        context.set_alpn_protocols(["h2", "http/1.1"])
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError


def extension(kind: int, body: bytes) -> bytes:
    return struct.pack(">HH", kind, len(body)) + body


def server_name(*names: bytes, kind: int = 0) -> bytes:
    entries = b"".join(bytes([kind]) + struct.pack(">H", len(name)) + name for name in names)
    return extension(0, struct.pack(">H", len(entries)) + entries)


def message(
    extensions: bytes | None,
    *,
    version: int = 0x0303,
    session_id: bytes = b"",
    ciphers: bytes = b"\x13\x01",
    compressions: bytes = b"\0",
    tail: bytes = b"",
) -> bytes:
    """A ClientHello as a handshake message."""
    body = struct.pack(">H", version) + b"r" * 32 + bytes([len(session_id)]) + session_id
    body += struct.pack(">H", len(ciphers)) + ciphers + bytes([len(compressions)]) + compressions
    if extensions is not None:
        body += struct.pack(">H", len(extensions)) + extensions
    body += tail
    return b"\x01" + len(body).to_bytes(3) + body


def records(handshake: bytes, *sizes: int) -> bytes:
    """The message in records of these sizes, and what is left of it in one more."""
    pieces = []
    for size in sizes:
        pieces.append(handshake[:size])
        handshake = handshake[size:]
    if handshake:
        pieces.append(handshake)
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(piece)) + piece for piece in pieces)


def handshake_of(stream: bytes) -> bytes:
    """The message inside one record."""
    assert len(stream) == 5 + int.from_bytes(stream[3:5])
    return stream[5:]
