"""The bytes of a file or of a tree's archive, across lost connections."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import grpc

from qila.client.errors import QilaError, UnavailableError, translated
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
Head = TypeVar("Head", pb.ReadFileHeader, pb.ReadTreeHeader)


def download(stub: GatewayServiceStub, request: pb.ReadFileRequest, *, reconnect_seconds: float) -> Iterator[bytes]:
    """The bytes of a file that a request asks for, each once. QilaError."""

    def rest(taken: _Download[pb.ReadFileHeader]) -> Any:
        part = pb.ReadFileRequest(sandbox_id=request.sandbox_id, path=request.path, offset=request.offset + taken.size)
        part.length = request.length - taken.size if request.length else 0
        return stub.ReadFile(part)

    return _take(rest, _Download(path=request.path, length=request.length), reconnect_seconds)


def download_tree(
    stub: GatewayServiceStub, request: pb.ReadTreeRequest, *, reconnect_seconds: float
) -> Iterator[bytes]:
    """The bytes of the archive that a request asks for, each once. QilaError."""

    def rest(taken: _Download[pb.ReadTreeHeader]) -> Any:
        part = pb.ReadTreeRequest(sandbox_id=request.sandbox_id, path=request.path)
        if taken.header is not None:
            part.etag, part.offset = taken.header.etag, taken.size
        return stub.ReadTree(part)

    return _take(rest, _Download(path=request.path), reconnect_seconds)


def _take(
    rest: Callable[[_Download[Any]], Any],
    taken: _Download[Any],
    reconnect_seconds: float,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[bytes]:
    """What is to come, over as many connections as it takes, for so long without a byte."""
    deadline, seconds = time.monotonic() + reconnect_seconds, _FIRST_PAUSE_S
    while not taken.is_whole:
        call = rest(taken)
        try:
            with translated():
                for chunk in taken.chunks(call):
                    deadline, seconds = time.monotonic() + reconnect_seconds, _FIRST_PAUSE_S
                    yield chunk
        except UnavailableError:
            if taken.header is None or time.monotonic() >= deadline:
                raise
        else:
            return
        finally:
            # Who stops reading must not leave the stream behind.
            call.cancel()
        pause(seconds)
        seconds = min(seconds * 2, _LONGEST_PAUSE_S)


class _Download(Generic[Head]):
    """What came so far, over one connection after the other; `length` is how much is to come, if it is known."""

    def __init__(self, *, path: str, length: int = 0) -> None:
        self._path = path
        self._length = length
        self.header: Head | None = None
        self.size = 0

    @property
    def is_whole(self) -> bool:
        """Whether a new connection would have nothing to bring."""
        return bool(self._length) and self.size >= self._length

    def chunks(self, responses: Iterable[Any]) -> Iterator[bytes]:
        """The bytes of one connection. QilaError, if it is another file by now or they are not what was sent."""
        digest = hashlib.sha256()
        for response in responses:
            if response.HasField("header"):
                self._check_header(response.header)
            elif response.HasField("end"):
                if digest.hexdigest() != response.end.sha256:
                    raise _broken(
                        "DIGEST_MISMATCH", f"{self._path}: what came is not what was sent; repeat the download"
                    )
                return
            else:
                digest.update(response.chunk)
                self.size += len(response.chunk)
                yield response.chunk
        raise _broken("DOWNLOAD_CUT_OFF", f"{self._path}: the download ended before its end; repeat it")

    def _check_header(self, header: Head) -> None:
        if self.header is not None and self.header != header:
            raise _broken("FILE_CHANGED", f"{self._path}: the file changed during the download; repeat it")
        self.header = header


def _broken(reason: str, message: str) -> QilaError:
    return QilaError(code=grpc.StatusCode.ABORTED, reason=reason, message=message)
