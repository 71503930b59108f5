"""A connection to a port of a sandbox, on the wire: requests in, responses out, each way with an end of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from qila.executor.v1 import executor_pb2 as pb
from services.executor.agent.ports import CHUNK_BYTES, PortConnection
from services.executor.errors import AgentUnavailableError, InvalidFieldError, PortBrokenError
from services.executor.sandboxes import Sandboxes

# sandboxd listens there for the sandbox's own requests to the registries.
OWN_PORTS: Final = frozenset({7480, 7481})
_LAST_PORT: Final = 65535


async def connect_port(
    sandboxes: Sandboxes, requests: AsyncIterator[pb.ConnectPortRequest]
) -> AsyncGenerator[pb.ConnectPortResponse, None]:
    """Answers one ConnectPort call; see the proto."""
    first = await anext(requests, None)
    if first is None or first.WhichOneof("part") != "header":
        raise InvalidFieldError("header", "must come in the first message")
    port = first.header.port
    if not 0 < port <= _LAST_PORT or port in OWN_PORTS:
        raise InvalidFieldError("port", "must be 1 to 65535, and not one of Qila's own, 7480 and 7481")
    sandbox = await sandboxes.ready(first.header.sandbox_id)
    sandbox.users += 1
    try:
        connection = await sandbox.agent.ports.connect(port)
        try:
            yield pb.ConnectPortResponse(connected=pb.PortConnected())
            async with aclosing(carry(connection, requests)) as responses:
                async for response in responses:
                    yield response
        finally:
            await sandbox.agent.ports.close(connection)
    finally:
        sandbox.users -= 1
        sandbox.touch()


async def carry(
    connection: PortConnection, requests: AsyncIterator[pb.ConnectPortRequest]
) -> AsyncGenerator[pb.ConnectPortResponse, None]:
    """Both ways, until both have ended. PortBrokenError, AgentUnavailableError, InvalidFieldError."""
    sending = asyncio.create_task(_send(connection, requests))
    receiving = asyncio.create_task(connection.receive())
    ended = False
    try:
        while not (ended and sending.done()):
            # What breaks one way must not be waited for on the other.
            await asyncio.wait([receiving] if sending.done() else [receiving, sending], return_when="FIRST_COMPLETED")
            if sending.done():
                _raise_fault(sending)
            if receiving.done():
                data = receiving.result()
                receiving = asyncio.create_task(connection.receive())
                ended = ended or not data
                yield pb.ConnectPortResponse(chunk=data) if data else pb.ConnectPortResponse(end=pb.PortEnd())
        sending.result()
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


def _raise_fault(sending: asyncio.Task[None]) -> None:
    """Raises what the caller did wrong. What the program did comes behind all that it said."""
    error = sending.exception()
    if error is not None and not isinstance(error, PortBrokenError | AgentUnavailableError):
        raise error


async def _send(connection: PortConnection, requests: AsyncIterator[pb.ConnectPortRequest]) -> None:
    async for request in requests:
        part = request.WhichOneof("part")
        if part == "end":
            break
        if part != "chunk" or len(request.chunk) > CHUNK_BYTES:
            raise InvalidFieldError(
                "chunk", f"must come in every message after the header, of at most {CHUNK_BYTES} bytes"
            )
        if request.chunk:
            await connection.send(request.chunk)
    await connection.shut()
