"""Connections to ports that programs in a sandbox listen on, and local ports that lead there."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import grpc

from qila.client.errors import QilaError, translated
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub

CHUNK_BYTES: Final = 64 << 10
# Chunks that wait to be sent; the gateway takes them as the program does.
_WAITING_CHUNKS: Final = 4
_MAX_CONNECTIONS: Final = 64


def header_message(sandbox_id: str, port: int) -> pb.ConnectPortRequest:
    """The first message of a connection."""
    return pb.ConnectPortRequest(header=pb.PortHeader(sandbox_id=sandbox_id, port=port))


def chunk_messages(data: bytes) -> Iterator[pb.ConnectPortRequest]:
    """Bytes for the program, as messages carry them."""
    view = memoryview(data)
    for start in range(0, len(view), CHUNK_BYTES):
        yield pb.ConnectPortRequest(chunk=bytes(view[start : start + CHUNK_BYTES]))


class PortStream:
    """One connection to a program: bytes both ways, each with an end of its own. A context manager.

    One thread may send while another receives.
    """

    def __init__(self, stub: GatewayServiceStub, sandbox_id: str, port: int) -> None:
        self._requests: queue.Queue[pb.ConnectPortRequest | None] = queue.Queue(_WAITING_CHUNKS)
        self._done = threading.Event()
        self._requests.put(header_message(sandbox_id, port))
        # The stubs name no public type for a call that is iterated over and cancelled.
        self._call: Any = stub.ConnectPort(iter(self._requests.get, None))
        self._call.add_callback(self._done.set)
        try:
            with translated():
                next(self._call)
        except BaseException:
            # The thread that waits for more to send would wait for ever.
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Sends bytes to the program, and waits while too many are on their way.

        Raises:
            QilaError: the connection is gone; what broke it.
        """
        for message in chunk_messages(data):
            self._put(message)

    def end(self) -> None:
        """Sends nothing more; what the program says still comes."""
        self._put(pb.ConnectPortRequest(end=pb.PortEnd()))

    def receive(self) -> bytes:
        """The program's next bytes, at most 64 KiB; none when it has ended its side.

        Raises:
            QilaError: the connection is gone; what broke it.
        """
        with translated():
            for response in self._call:
                if response.HasField("chunk"):
                    return bytes(response.chunk)
                break
        return b""

    def close(self) -> None:
        """Closes the connection, whatever is on its way."""
        self._call.cancel()
        with contextlib.suppress(queue.Full):
            self._requests.put_nowait(None)

    def _put(self, request: pb.ConnectPortRequest) -> None:
        while not self._done.is_set():
            with contextlib.suppress(queue.Full):
                self._requests.put(request, timeout=0.1)
                return
        with translated():
            for _ in self._call:
                continue


class Forwarder:
    """A listening socket of this machine whose connections lead to a port of a sandbox.

    Args:
        connect: opens a connection to the program.
        listener: bound and listening; owned from now on.
        report: called with what kept a connection from the program.
    """

    def __init__(
        self, connect: Callable[[], PortStream], listener: socket.socket, report: Callable[[QilaError], None]
    ) -> None:
        self._connect = connect
        self._listener = listener
        self._report = report
        self._room = threading.BoundedSemaphore(_MAX_CONNECTIONS)

    def serve(self) -> None:
        """Carries connections until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            # More than the gateway would take: they wait in the listener's queue.
            self._room.acquire()
            threading.Thread(target=self._serve_one, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve_one(self, client: socket.socket) -> None:
        gone = threading.Event()
        try:
            with client, self._connect() as program:
                uplink = threading.Thread(target=_send_all, args=(client, program, gone), daemon=True)
                uplink.start()
                while data := program.receive():
                    client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                uplink.join()
        except QilaError as error:
            if not gone.is_set():
                self._report(error)
        except OSError:
            # The local client has gone; the program sees its connection close.
            return
        finally:
            self._room.release()


def listen(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1; port 0 takes a free one. OSError if the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(_MAX_CONNECTIONS)
    except OSError:
        listener.close()
        raise
    return listener


def _send_all(client: socket.socket, program: PortStream, gone: threading.Event) -> None:
    try:
        # What breaks the connection is told by the side that receives.
        with contextlib.suppress(QilaError, grpc.RpcError):
            for data in _chunks(client):
                program.send(data)
            program.end()
    except OSError:
        # A program that says nothing would hold the connection for ever.
        gone.set()
        program.close()


def _chunks(client: socket.socket) -> Iterator[bytes]:
    while data := client.recv(CHUNK_BYTES):
        yield data
