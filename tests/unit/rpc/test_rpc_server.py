from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from qila.executor.v1 import executor_pb2 as pb
from qila.executor.v1 import executor_pb2_grpc
from services.rpc import log_ids
from services.rpc.channel import build_channel, translated
from services.rpc.errors import ErrorCode, QilaError, failed_precondition, not_found
from services.rpc.server import AddressInUse, BadAddress, RpcServer, ServerConfig, build_server, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SERVICE = "qila.executor.v1.ExecutorService"
SECRET = "password=hunter2"


class Servicer(executor_pb2_grpc.ExecutorServiceServicer):
    """All four shapes fail or answer as the sandbox id asks."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.bound: list[dict[str, Any]] = []

    async def GetSandbox(self, request: Any, context: Any) -> Any:  # noqa: N802  # generated name
        self.bound.append(structlog.contextvars.get_contextvars())
        match request.sandbox_id:
            case "missing":
                raise not_found("SANDBOX_NOT_FOUND", "no sandbox 'missing'", sandbox_id="missing")
            case "crash":
                raise RuntimeError(SECRET)
            case "slow":
                self.entered.set()
                await self.release.wait()
            case "abort":
                await context.abort(grpc.StatusCode.ABORTED, "by hand")
        return pb.GetSandboxResponse(sandbox=pb.Sandbox(id=request.sandbox_id))

    async def SurveyWorkspace(self, request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: N802  # generated name
        yield pb.SurveyWorkspaceResponse(summary=pb.SurveySummary(digest="d"))
        if request.sandbox_id == "forever":
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        raise failed_precondition("BROKEN", "it broke in the middle")

    async def WriteFile(self, request_iterator: Any, _context: Any) -> Any:  # noqa: N802  # generated name
        size = 0
        async for request in request_iterator:
            size += len(request.chunk)
        if size == 0:
            raise RuntimeError(SECRET)
        return pb.WriteFileResponse(size=size)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="qila-") as name:
        yield Path(name)


@pytest.fixture
async def servicer() -> Servicer:
    return Servicer()  # type: ignore[abstract]  # the test serves three methods of the many


@pytest.fixture
def address(directory: Path) -> str:
    return f"unix:{directory}/x.sock"


@pytest.fixture
async def server(servicer: Servicer, address: str) -> AsyncIterator[RpcServer]:
    built = await _build(servicer, address)
    await built.start()
    yield built
    await built.stop(0)


@pytest.fixture
async def stub(server: RpcServer) -> AsyncIterator[Any]:
    async with build_channel(server.address) as channel:
        yield executor_pb2_grpc.ExecutorServiceStub(channel)


async def _build(servicer: Servicer, address: str) -> RpcServer:
    config = ServerConfig(address=address, service_names=(SERVICE,))
    return await build_server(
        config, [lambda server: executor_pb2_grpc.add_ExecutorServiceServicer_to_server(servicer, server)]
    )


async def test_domain_error_arrives_with_all_its_details(stub: Any) -> None:
    with pytest.raises(QilaError) as caught, translated("executor"):
        await stub.GetSandbox(pb.GetSandboxRequest(sandbox_id="missing"))
    error = caught.value
    assert (error.code, error.reason, error.message) == (
        ErrorCode.NOT_FOUND,
        "SANDBOX_NOT_FOUND",
        "no sandbox 'missing'",
    )
    assert dict(error.metadata) == {"sandbox_id": "missing"}


async def test_unknown_exception_is_hidden_and_logged(stub: Any) -> None:
    with capture_logs() as lines, pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSandbox(pb.GetSandboxRequest(sandbox_id="crash"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in repr(caught.value) + repr(caught.value.trailing_metadata())
    assert [line["event"] for line in lines] == ["call_crashed", "call"]
    assert lines[1]["code"] == "INTERNAL"


async def test_stream_gives_its_items_before_its_error(stub: Any) -> None:
    responses = aiter(stub.SurveyWorkspace(pb.SurveyWorkspaceRequest(sandbox_id="x")))
    assert (await anext(responses)).summary.digest == "d"
    with pytest.raises(QilaError) as caught, translated("executor"):
        await anext(responses)
    assert caught.value.reason == "BROKEN"


async def test_client_stream_is_read_and_its_crash_hidden(stub: Any) -> None:
    async def chunks(*parts: bytes) -> AsyncIterator[Any]:
        yield pb.WriteFileRequest(header=pb.WriteFileHeader(sandbox_id="x"))
        for part in parts:
            yield pb.WriteFileRequest(chunk=part)

    response = await stub.WriteFile(chunks(b"ab", b"c"))
    assert response.size == 3
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.WriteFile(chunks())
    assert SECRET not in str(caught.value)


async def test_abort_by_a_handler_is_left_alone(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSandbox(pb.GetSandboxRequest(sandbox_id="abort"))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.ABORTED, "by hand")


@pytest.mark.parametrize(("offered", "kept"), [("abc-1", True), ("has space", False), ("x" * 65, False)])
async def test_request_id_is_taken_only_if_well_formed(
    stub: Any,
    servicer: Servicer,
    offered: str,
    kept: bool,  # noqa: FBT001  # a table's column
) -> None:
    metadata = ((log_ids.REQUEST_ID_KEY, offered),)
    await stub.GetSandbox(pb.GetSandboxRequest(sandbox_id="x"), metadata=metadata)
    assert (servicer.bound[0]["request_id"] == offered) is kept
    assert servicer.bound[0]["request_id"]


@pytest.mark.parametrize("over", ["unix", "tcp"])
async def test_the_exec_id_is_taken_from_services_and_never_from_clients(
    over: str, address: str, servicer: Servicer
) -> None:
    server = await _build(servicer, address if over == "unix" else "127.0.0.1:0")
    await server.start()
    async with build_channel(server.address) as channel:
        stub: Any = executor_pb2_grpc.ExecutorServiceStub(channel)
        with structlog.contextvars.bound_contextvars(exec_id="ex_1", sandbox_id="has space"):
            await stub.GetSandbox(pb.GetSandboxRequest(sandbox_id="x"))
    await server.stop(0)
    assert servicer.bound[0].get("exec_id") == ("ex_1" if over == "unix" else None)
    assert servicer.bound[0]["sandbox_id"] == "x"


async def test_cancelled_stream_ends_the_handler(stub: Any, servicer: Servicer) -> None:
    call = stub.SurveyWorkspace(pb.SurveyWorkspaceRequest(sandbox_id="forever"))
    assert (await anext(aiter(call))).summary.digest == "d"
    call.cancel()
    await asyncio.wait_for(servicer.cancelled.wait(), 5)


async def test_default_deadline_ends_a_unary_call(server: RpcServer, servicer: Servicer) -> None:
    async with build_channel(server.address, deadline=0.05) as channel:
        stub: Any = executor_pb2_grpc.ExecutorServiceStub(channel)
        with pytest.raises(QilaError) as caught, translated("executor"):
            await stub.GetSandbox(pb.GetSandboxRequest(sandbox_id="slow"))
    assert caught.value.reason == "EXECUTOR_TIMED_OUT"
    assert servicer.entered.is_set()


async def test_dead_service_is_named(address: str) -> None:
    async with build_channel(address) as channel:
        stub: Any = executor_pb2_grpc.ExecutorServiceStub(channel)
        with pytest.raises(QilaError) as caught, translated("executor"):
            await stub.GetSandbox(pb.GetSandboxRequest(sandbox_id="x"))
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert "the executor does not answer" in caught.value.message


async def test_sigterm_answers_calls_in_flight(servicer: Servicer, address: str) -> None:
    built = await _build(servicer, address)
    serving = asyncio.create_task(serve(built, grace=5))
    async with build_channel(built.address) as channel:
        stub: Any = executor_pb2_grpc.ExecutorServiceStub(channel)
        call = asyncio.ensure_future(stub.GetSandbox(pb.GetSandboxRequest(sandbox_id="slow"), wait_for_ready=True))
        await asyncio.wait_for(servicer.entered.wait(), 5)
        health: Any = health_pb2_grpc.HealthStub(channel)
        watching = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        answers = aiter(watching)
        assert (await anext(answers)).status == health_pb2.HealthCheckResponse.SERVING
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await asyncio.wait_for(anext(answers), 5)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watching.cancel()
        servicer.release.set()
        assert (await call).sandbox.id == "slow"
    await asyncio.wait_for(serving, 5)
    assert not await asyncio.to_thread(Path(address.removeprefix("unix:")).exists)


async def test_health_says_serving_for_the_service(server: RpcServer) -> None:
    async with build_channel(server.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_socket_is_private_and_a_stale_one_replaced(directory: Path, servicer: Servicer) -> None:
    path = directory / "x.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    built = await _build(servicer, f"unix:{path}")
    await built.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(AddressInUse):
        await _build(servicer, f"unix:{path}")
    await built.stop(0)


async def test_busy_port_is_refused(servicer: Servicer) -> None:
    built = await _build(servicer, "127.0.0.1:0")
    await built.start()
    with pytest.raises(AddressInUse, match=built.address):
        await _build(servicer, built.address)
    await built.stop(0)


@pytest.mark.parametrize("bad", ["0.0.0.0:7450", "example.com:1", "127.0.0.1", "unix:relative", "unix:/" + "x" * 120])
async def test_address_that_is_not_local_is_refused(servicer: Servicer, bad: str) -> None:
    with pytest.raises(BadAddress):
        await _build(servicer, bad)


async def test_file_at_the_socket_is_never_removed(directory: Path, servicer: Servicer) -> None:
    path = directory / "x.sock"
    path.write_text("mine")
    with pytest.raises(BadAddress):
        await _build(servicer, f"unix:{path}")
    assert path.read_text() == "mine"
