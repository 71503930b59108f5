"""Connect and gRPC-Web, for browsers: the very calls of the proto, by the Connect project's own library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import contextmanager
from typing import Any, Final

import structlog
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_codecs
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf.message_factory import GetMessageClass
from protobuf.wkt import Any as AnyMessage
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.http.answers import error_response
from services.gateway.http.operation import Services
from services.gateway.servicer import GatewayServicer
from services.rpc.errors import ErrorCode, QilaError, internal, invalid_argument, to_status

_LOG: Final = structlog.get_logger("services.gateway.http")
_SERVICE: Final = pb.DESCRIPTOR.services_by_name["GatewayService"]
CONNECT_PATH: Final = f"/{_SERVICE.full_name}"
# A unary message or one of a stream; two lockfiles of the largest size are the largest.
_MAX_MESSAGE_BYTES: Final = 40 << 20
_PAUSE_SECONDS: Final = 60.0
_CODES: Final = {code: Code[code.name] for code in ErrorCode if code is not ErrorCode.CANCELLED} | {
    ErrorCode.CANCELLED: Code.CANCELED
}
_DISCONNECT: Final[Message] = {"type": "http.disconnect"}


def connect_app(services: Services) -> ASGIApp:
    """The calls of GatewayService below `CONNECT_PATH`."""
    application = _Application(
        service=services.gateway,
        endpoints=_endpoints,
        read_max_bytes=_MAX_MESSAGE_BYTES,
        codecs=google_protobuf_codecs(),
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        if kind.startswith(b"application/grpc") and not kind.startswith(b"application/grpc-web"):
            message = "gRPC itself is spoken at QILA_GATEWAY_ADDRESS; here it is gRPC-Web or Connect"
            await error_response(invalid_argument("PROTOCOL_UNSUPPORTED", message))(scope, receive, send)
            return
        asgi: Any = application
        await asgi(scope, _bounded(receive, services.stopping), send)

    return app


class _Application(ConnectASGIApplication[GatewayServicer]):
    @property
    def path(self) -> str:
        """Of the service."""
        return CONNECT_PATH


def _bounded(receive: Receive, stopping: asyncio.Event) -> Receive:
    """A request whose body stands still, or a door that closes, looks like a client that left."""
    whole = False

    async def bounded() -> Message:
        nonlocal whole
        coming = asyncio.ensure_future(receive())
        stop = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait(
                {coming, stop}, timeout=None if whole else _PAUSE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if not coming.done():
                return _DISCONNECT
            message = await coming
            whole = not message.get("more_body", False)
            return message
        finally:
            for task in (coming, stop):
                task.cancel()
            await asyncio.gather(coming, stop, return_exceptions=True)

    return bounded


def _endpoints(gateway: GatewayServicer) -> Mapping[str, Any]:
    """What a generator would write, made from the proto's own descriptor."""
    endpoints: dict[str, Any] = {}
    for method in _SERVICE.methods:
        handle = getattr(gateway, method.name)
        kinds: Mapping[tuple[bool, bool], tuple[StreamType, Callable[..., Any], Callable[..., Any]]] = {
            (False, False): (StreamType.UNARY, Endpoint.unary, _single(handle)),
            (True, False): (StreamType.CLIENT_STREAM, Endpoint.client_stream, _single(handle)),
            (False, True): (StreamType.SERVER_STREAM, Endpoint.server_stream, _several(handle)),
        }
        if (method.client_streaming, method.server_streaming) not in kinds:
            # Both ways at once takes HTTP/2, which this door does not speak.
            continue
        stream_type, make, function = kinds[method.client_streaming, method.server_streaming]
        info: MethodInfo[Any, Any] = MethodInfo(
            name=method.name,
            service_name=_SERVICE.full_name,
            input=GetMessageClass(method.input_type),
            output=GetMessageClass(method.output_type),
            # Never by GET: a link must do nothing.
            idempotency_level=IdempotencyLevel.UNKNOWN,
            stream_type=stream_type,
        )
        endpoints[f"{CONNECT_PATH}/{method.name}"] = make(info, function)
    return endpoints


def _single(handle: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    async def answer(request: Any, _context: Any) -> Any:
        with _as_connect():
            return await handle(request, None)

    return answer


def _several(handle: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def answer(request: Any, _context: Any) -> AsyncIterator[Any]:
        with _as_connect():
            async for response in handle(request, None):
                yield response

    return answer


@contextmanager
def _as_connect() -> Any:
    try:
        yield
    except QilaError as error:
        raise _connect_error(error) from error
    except ConnectError:
        raise
    except Exception as error:
        # Whatever it is, its text must not reach the caller.
        _LOG.exception("call_crashed")
        fault = internal("INTERNAL", "a fault in Qila; its log tells more under the request id")
        raise _connect_error(fault) from error


def _connect_error(error: QilaError) -> ConnectError:
    details = to_status(error).details
    packed = [ErrorDetail(AnyMessage(type_url=detail.type_url, value=detail.value)) for detail in details]
    return ConnectError(_CODES[error.code], error.message, packed)
