"""Connections to ports of sandboxes, between a client and the executor: the same messages on both sides."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.ports import ExecutorPort
from services.rpc.errors import invalid_argument


async def connect_port(
    executor_port: ExecutorPort,
    requests: AsyncIterator[pb.ConnectPortRequest],
    check_sandbox: Callable[[str], Awaitable[object]],
) -> AsyncGenerator[pb.ConnectPortResponse, None]:
    """Answers one ConnectPort call.

    Args:
        executor_port: reaches the sandbox.
        requests: the client's, the header first.
        check_sandbox: raises NOT_FOUND for a sandbox that is not there.

    Raises:
        QilaError: as the proto says.
    """
    first = await anext(aiter(requests), pb.ConnectPortRequest())
    if not first.HasField("header"):
        raise invalid_argument("HEADER_MISSING", "the first message must be the header")
    await check_sandbox(first.header.sandbox_id)
    async with aclosing(executor_port.connect_port(_forwarded(first.header, requests))) as responses:
        async for response in responses:
            match response.WhichOneof("part"):
                case "connected":
                    yield pb.ConnectPortResponse(connected=pb.PortConnected())
                case "chunk":
                    yield pb.ConnectPortResponse(chunk=response.chunk)
                case _:
                    yield pb.ConnectPortResponse(end=pb.PortEnd())


async def _forwarded(
    header: pb.PortHeader, requests: AsyncIterator[pb.ConnectPortRequest]
) -> AsyncIterator[executor.ConnectPortRequest]:
    """The client's requests as the executor takes them; it checks what is in them."""
    yield executor.ConnectPortRequest(header=executor.PortHeader(sandbox_id=header.sandbox_id, port=header.port))
    async for request in requests:
        match request.WhichOneof("part"):
            case "chunk":
                yield executor.ConnectPortRequest(chunk=request.chunk)
            case "end":
                yield executor.ConnectPortRequest(end=executor.PortEnd())
            case _:
                # A second header, or nothing: there is no such message between the services.
                yield executor.ConnectPortRequest()
