"""The first message of TLS, read to learn the one thing that it says in the clear: the name of the server."""

from services.executor.egress.policy import is_host_name

# Of a real client 300 to 1,900 bytes; what is cut into small records takes more on the way.
MAX_HELLO_BYTES = 16 * 1024
MAX_STREAM_BYTES = 32 * 1024

# A handshake record, and the major version that every TLS has had.
_RECORD_START = b"\x16\x03"
_RECORD_HEADER_BYTES = 5
_MAX_RECORD_BYTES = 16 * 1024
_CLIENT_HELLO = 1
_HANDSHAKE_HEADER_BYTES = 4
_VERSIONS = {0x0301, 0x0302, 0x0303}
_RANDOM_BYTES = 32
_MAX_SESSION_ID_BYTES = 32
_SERVER_NAME = 0
_HOST_NAME = 0
# Both hide the true name of the server, or pretend to: encrypted_client_hello, and the draft that it replaced.
_HIDING = {0xFE0D, 0xFFCE}


class InvalidHello(Exception):
    """What came first is no ClientHello that says plainly which host it is for."""

    def __init__(self, *, problem: str, is_tls: bool = True) -> None:
        super().__init__(problem)
        self.problem = problem
        self.is_tls = is_tls

    def __str__(self) -> str:
        return self.problem


class ClientHelloReader:
    """Takes a stream as it comes, in pieces of any size, until its first message is whole.

    `stream` holds all that was fed, to be passed on as it is: the message, and whatever followed it.
    """

    def __init__(self) -> None:
        self.stream = bytearray()
        self._next_record = 0
        self._message = bytearray()

    def feed(self, data: bytes) -> str | None:
        """The server's name, in lower case, once the message is whole; None before.

        Raises:
            InvalidHello: it is none, is too long, hides the name or has none.
        """
        self.stream += data
        while self._take_record():
            if self._is_whole():
                return _server_name(bytes(self._message[_HANDSHAKE_HEADER_BYTES:]))
        if len(self.stream) >= MAX_STREAM_BYTES:
            raise InvalidHello(problem="too long")
        return None

    def _take_record(self) -> bool:
        header = bytes(self.stream[self._next_record : self._next_record + _RECORD_HEADER_BYTES])
        if not _RECORD_START.startswith(header[: len(_RECORD_START)]):
            raise InvalidHello(problem="no TLS", is_tls=bool(self._message))
        if len(header) < _RECORD_HEADER_BYTES:
            return False
        size = int.from_bytes(header[3:])
        if not 0 < size <= _MAX_RECORD_BYTES:
            raise InvalidHello(problem="a record of a bad size")
        start = self._next_record + _RECORD_HEADER_BYTES
        if len(self.stream) < start + size:
            return False
        self._message += self.stream[start : start + size]
        self._next_record = start + size
        return True

    def _is_whole(self) -> bool:
        """A client has no other message to send before the server's, so that nothing may share the last record."""
        if self._message[0] != _CLIENT_HELLO:
            raise InvalidHello(problem="another message than a ClientHello")
        if len(self._message) < _HANDSHAKE_HEADER_BYTES:
            return False
        size = _HANDSHAKE_HEADER_BYTES + int.from_bytes(self._message[1:_HANDSHAKE_HEADER_BYTES])
        if size > MAX_HELLO_BYTES:
            raise InvalidHello(problem="too long")
        if len(self._message) > size:
            raise InvalidHello(problem="something behind the ClientHello in its record")
        return len(self._message) == size


class _Fields:
    """A cursor over bytes that gives no more than there are."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise InvalidHello(problem="a field beyond the end")
        self._at += size
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, length_bytes: int) -> bytes:
        return self.take(self.number(length_bytes))


def _server_name(body: bytes) -> str:
    """Read a ClientHello's body to its last byte (RFC 8446, 4.1.2)."""
    fields = _Fields(body)
    if fields.number(2) not in _VERSIONS:
        raise InvalidHello(problem="an unknown version")
    fields.take(_RANDOM_BYTES)
    session_id, cipher_suites, compressions = fields.vector(1), fields.vector(2), fields.vector(1)
    if len(session_id) > _MAX_SESSION_ID_BYTES or not cipher_suites or len(cipher_suites) % 2 or not compressions:
        raise InvalidHello(problem="a field of a bad size")
    if fields.is_over:
        raise InvalidHello(problem="no server name")
    extensions = _extensions(fields.vector(2))
    if not fields.is_over:
        raise InvalidHello(problem="something behind the extensions")
    if not _HIDING.isdisjoint(extensions):
        raise InvalidHello(problem="an encrypted server name")
    if _SERVER_NAME not in extensions:
        raise InvalidHello(problem="no server name")
    return _single_name(extensions[_SERVER_NAME])


def _extensions(data: bytes) -> dict[int, bytes]:
    fields = _Fields(data)
    extensions: dict[int, bytes] = {}
    while not fields.is_over:
        kind = fields.number(2)
        if kind in extensions:
            raise InvalidHello(problem="an extension twice")
        extensions[kind] = fields.vector(2)
    return extensions


def _single_name(data: bytes) -> str:
    """The one host name of a server_name extension (RFC 6066, 3)."""
    fields = _Fields(data)
    names = _Fields(fields.vector(2))
    kind, name = names.number(1), names.vector(2)
    if kind != _HOST_NAME or not names.is_over or not fields.is_over:
        raise InvalidHello(problem="other server names than one")
    # Latin-1 gives every byte a character; what is no plain name is refused all the same.
    text = name.decode("latin-1")
    if not text.isascii() or not is_host_name(text.lower()):
        raise InvalidHello(problem="a server name that is no plain host name")
    return text.lower()
