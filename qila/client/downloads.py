"""The bytes of a file or of a tree's archive, across lost connections. Both clients decide alike: by `_Download`."""

from __future__ import annotations

import asyncio
import hashlib
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc

from qila.client.errors import QilaError, UnavailableError, translated
from qila.client.position import Patience
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub, GatewayServiceStub

Head = TypeVar("Head", pb.ReadFileHeader, pb.ReadTreeHeader)


def download(
    stub: GatewayServiceStub, request: pb.ReadFileRequest | pb.ReadTreeRequest, *, reconnect_seconds: float
) -> Iterator[bytes]:
    """The bytes of the file, or of the archive, that a request asks for, each once. QilaError."""
    return _take(stub, _wanted(request, reconnect_seconds))


def async_download(
    stub: GatewayServiceAsyncStub, request: pb.ReadFileRequest | pb.ReadTreeRequest, *, reconnect_seconds: float
) -> AsyncIterator[bytes]:
    """The same, of the asynchronous client."""
    return _async_take(stub, _wanted(request, reconnect_seconds))


def _wanted(request: pb.ReadFileRequest | pb.ReadTreeRequest, reconnect_seconds: float) -> _Download[Any]:
    if isinstance(request, pb.ReadFileRequest):
        return _FileDownload(request, reconnect_seconds)
    return _TreeDownload(request, reconnect_seconds)


def _take(
    stub: GatewayServiceStub, taken: _Download[Any], pause: Callable[[float], None] = time.sleep
) -> Iterator[bytes]:
    while not taken.is_whole:
        call = taken.open(stub)
        try:
            with translated():
                for response in call:
                    if chunk := taken.take(response):
                        yield chunk
                        taken.progressed()
                    if taken.ended:
                        return
            raise taken.cut_off()
        except UnavailableError as error:
            seconds = taken.pause_after(error)
        finally:
            # Who stops reading must not leave the stream behind.
            call.cancel()
        pause(seconds)


async def _async_take(stub: GatewayServiceAsyncStub, taken: _Download[Any]) -> AsyncIterator[bytes]:
    while not taken.is_whole:
        call = taken.open(stub)
        try:
            with translated():
                async for response in call:
                    if chunk := taken.take(response):
                        yield chunk
                        taken.progressed()
                    if taken.ended:
                        return
            raise taken.cut_off()
        except UnavailableError as error:
            seconds = taken.pause_after(error)
        finally:
            call.cancel()
        await asyncio.sleep(seconds)


class _Download(ABC, Generic[Head]):
    """What came so far, over one connection after the other; `length` is how much is to come, if it is known.

    Attributes:
        ended: the present connection has told its end, and all that it brought is what was sent.
    """

    def __init__(self, *, path: str, length: int, reconnect_seconds: float) -> None:
        self._path = path
        self._length = length
        self._patience = Patience(reconnect_seconds)
        self._digest = hashlib.sha256()
        self.ended = False
        self._header: Head | None = None
        self._size = 0

    @property
    def is_whole(self) -> bool:
        """Whether a new connection would have nothing to bring."""
        return bool(self._length) and self._size >= self._length

    def open(self, stub: Any) -> Any:
        """Asks one of the clients' stubs for what is to come; the stubs name no type that their calls share."""
        self._digest, self.ended = hashlib.sha256(), False
        return self._rest(stub)

    @abstractmethod
    def _rest(self, stub: Any) -> Any: ...

    def take(self, response: Any) -> bytes:
        """The bytes of one message. QilaError, if it is another file by now or they are not what was sent."""
        if response.HasField("header"):
            self._check_header(response.header)
        elif response.HasField("end"):
            self.ended = True
            if self._digest.hexdigest() != response.end.sha256:
                raise _broken("DIGEST_MISMATCH", f"{self._path}: what came is not what was sent; repeat the download")
        else:
            self._digest.update(response.chunk)
            self._size += len(response.chunk)
        chunk: bytes = response.chunk
        return chunk

    def progressed(self) -> None:
        """A chunk was taken by its reader: whose time, until then, is not the gateway's."""
        self._patience.progressed()

    def cut_off(self) -> QilaError:
        """What a connection that ended by itself, before it told its end, fails with."""
        return _broken("DOWNLOAD_CUT_OFF", f"{self._path}: the download ended before its end; repeat it")

    def pause_after(self, error: UnavailableError) -> float:
        """Seconds until the next connection; raises the error if there is none."""
        pause = self._patience.next_pause()
        if self._header is None or pause is None:
            raise error
        return pause

    def _check_header(self, header: Head) -> None:
        if self._header is not None and self._header != header:
            raise _broken("FILE_CHANGED", f"{self._path}: the file changed during the download; repeat it")
        self._header = header


class _FileDownload(_Download[pb.ReadFileHeader]):
    def __init__(self, request: pb.ReadFileRequest, reconnect_seconds: float) -> None:
        super().__init__(path=request.path, length=request.length, reconnect_seconds=reconnect_seconds)
        self._request = request

    def _rest(self, stub: Any) -> Any:
        part = pb.ReadFileRequest(sandbox_id=self._request.sandbox_id, path=self._request.path)
        part.offset = self._request.offset + self._size
        part.length = self._length - self._size if self._length else 0
        return stub.ReadFile(part)


class _TreeDownload(_Download[pb.ReadTreeHeader]):
    def __init__(self, request: pb.ReadTreeRequest, reconnect_seconds: float) -> None:
        super().__init__(path=request.path, length=0, reconnect_seconds=reconnect_seconds)
        self._request = request

    def _rest(self, stub: Any) -> Any:
        part = pb.ReadTreeRequest(sandbox_id=self._request.sandbox_id, path=self._request.path)
        if self._header is not None:
            part.etag, part.offset = self._header.etag, self._size
        return stub.ReadTree(part)


def _broken(reason: str, message: str) -> QilaError:
    return QilaError(code=grpc.StatusCode.ABORTED, reason=reason, message=message)
