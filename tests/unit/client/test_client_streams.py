"""Downloads and ports of the client, against a gateway on a socket."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from qila.client import AsyncClient, AsyncFileWatch, Client, FailedPreconditionError, FileEvent, QilaError
from qila.client.errors import from_rpc_error
from qila.client.port_streams import Forwarder, listen
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server

from .fakes_server import FakesServer

SANDBOX = "sb_" + "a" * 26
CONTENT = b"0123456789"
CLOSED_PORT = 1
PATIENCE = 10.0


class Gateway(GatewayServiceServicer):
    def __init__(self) -> None:
        self.connected = threading.Event()
        self.left = threading.Event()

    def ConnectPort(self, request_iterator: Iterator[Any], context: Any) -> Iterator[pb.ConnectPortResponse]:  # noqa: N802 - gRPC's
        if next(request_iterator).header.port == CLOSED_PORT:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nothing listens")
        context.add_callback(self.left.set)
        yield pb.ConnectPortResponse(connected=pb.PortConnected())
        self.connected.set()
        self.left.wait(PATIENCE)

    def ReadFile(self, request: pb.ReadFileRequest, context: Any) -> Iterator[pb.ReadFileResponse]:  # noqa: N802 - gRPC's
        yield pb.ReadFileResponse(header=pb.ReadFileHeader(size=len(CONTENT)))
        if not request.offset:
            yield pb.ReadFileResponse(chunk=CONTENT[:5])
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        rest = CONTENT[request.offset :]
        yield pb.ReadFileResponse(chunk=rest)
        yield pb.ReadFileResponse(end=pb.ReadFileEnd(sha256=hashlib.sha256(rest).hexdigest()))


@pytest.fixture
def gateway() -> Iterator[tuple[Gateway, str]]:
    servicer = Gateway()  # type: ignore[abstract]  # two calls are asked for here
    server = grpc.server(ThreadPoolExecutor(8))
    add_GatewayServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait()


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_a_reader_that_takes_its_time_is_not_a_gateway_that_is_silent(
    gateway: tuple[Gateway, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("qila.client.downloads.time.monotonic", lambda: now)
    with Client(gateway[1]) as client:
        taken = b""
        for chunk in client.get(SANDBOX, "file"):
            taken += chunk
            now += 1000.0
    assert taken == CONTENT


def test_a_refused_connection_leaves_no_thread(gateway: tuple[Gateway, str]) -> None:
    def senders() -> int:
        # As gRPC names its own.
        return sum(thread.name.endswith("(_run)") for thread in threading.enumerate())

    with Client(gateway[1]) as client:
        assert b"".join(client.get(SANDBOX, "file")) == CONTENT
        before = senders()
        for _ in range(40):
            with pytest.raises(FailedPreconditionError):
                client.connect_port(SANDBOX, CLOSED_PORT)
        eventually(lambda: senders() <= before)


def test_a_local_client_that_resets_its_connection_is_let_go(gateway: tuple[Gateway, str]) -> None:
    servicer, address = gateway
    told: list[QilaError] = []
    with Client(address) as client, listen(0) as listener:
        forwarder = Forwarder(lambda: client.connect_port(SANDBOX, 2), listener, told.append)
        threading.Thread(target=forwarder.serve, daemon=True).start()
        local = socket.create_connection(listener.getsockname())
        assert servicer.connected.wait(PATIENCE)
        # No end, but a reset.
        local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        local.close()
        assert servicer.left.wait(PATIENCE / 2)
        forwarder.close()
    assert told == []


def test_a_call_that_is_cancelled_while_it_fails_is_an_error_of_ours() -> None:
    told = status_pb2.Status(code=9, message="the exec has ended").SerializeToString()
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", told))
    error = grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, grpc.aio.Metadata(), metadata, details="cancelled here")
    found = from_rpc_error(error)
    assert (found.code, found.reason, found.message) == (grpc.StatusCode.CANCELLED, "CANCELLED", "cancelled here")


async def next_of(watch: AsyncFileWatch) -> FileEvent:
    return await anext(watch)


async def test_a_watcher_of_files_that_is_cancelled_after_the_close_is_cancelled(fakes: FakesServer) -> None:
    async with AsyncClient(fakes.address) as client:
        made = await client.create("python")
        watch = await client.watch(made.id).start()
        waiting = asyncio.create_task(next_of(watch))
        await asyncio.sleep(0)
        await watch.close()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
