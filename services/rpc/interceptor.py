"""The one interceptor of every server: request id, error, log; for all four shapes of call."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog
from grpc_status import rpc_status

from services.rpc import log_ids
from services.rpc.errors import QilaError, internal, to_status
from services.rpc.log import write_later

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]

_LOG: Final = structlog.get_logger("services.rpc")
_BOUND_FIELDS: Final = ("sandbox_id", "exec_id", "process_id")
# Health and reflection are grpc's own servicers, called by probes all the time.
_LIBRARY_PREFIX: Final = "/grpc."


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method: binds ids for the log, turns errors into statuses, writes one line a call.

    Servicers are async; a method that answers a stream is an async generator.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps the method's handler in the shape that it has."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_LIBRARY_PREFIX):
            return handler
        return _wrap(handler, method)


def _wrap(handler: Handler, method: str) -> Handler:
    make, behaviour = _shape(handler)
    assert behaviour is not None
    wrapped = _stream_answer(method, behaviour) if handler.response_streaming else _single_answer(method, behaviour)
    return make(  # type: ignore[no-any-return]  # four makers, one result
        wrapped,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _shape(handler: Handler) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler, handler.stream_stream
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler, handler.stream_unary
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.unary_unary_rpc_method_handler, handler.unary_unary


def _single_answer(method: str, behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def answer(request: Any, context: Context) -> Any:
        async with _call(method, context):
            return await behaviour(_bind(request), context)

    return answer


def _stream_answer(
    method: str, behaviour: Callable[[Any, Context], AsyncIterator[Any]]
) -> Callable[..., AsyncIterator[Any]]:
    async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
        async with _call(method, context):
            async for response in behaviour(_bind(request), context):
                yield response

    return answer


@asynccontextmanager
async def _call(method: str, context: Context) -> AsyncIterator[None]:
    started = time.perf_counter()
    # Services speak over unix sockets that nobody else can reach; clients come over TCP.
    log_ids.bind_from(dict(context.invocation_metadata() or ()), from_service=context.peer().startswith("unix:"))
    # Stays so if the call is cancelled, whichever exception tells of it: cancellation itself is left alone.
    code = "CANCELLED"
    failure: QilaError | None = None
    try:
        yield
        code = "OK"
    except grpc.aio.AbortError:
        code = "ABORTED_BY_HANDLER"
        raise
    except QilaError as error:
        failure = error
        code = error.code.name
    except Exception:  # noqa: BLE001  # whatever it is, its text must not reach the caller
        _LOG.exception("call_crashed", method=method)
        failure = internal("INTERNAL", "a fault in Qila; its log tells more under the request id")
        code = failure.code.name
    finally:
        duration_ms = round((time.perf_counter() - started) * 1000, 2)
        reason = {} if failure is None else {"reason": failure.reason}
        write_later(_LOG.info, "call", method=method, code=code, duration_ms=duration_ms, **reason)
    if failure is not None:
        await context.abort_with_status(rpc_status.to_status(to_status(failure)))


def _bind(request: Any) -> Any:
    """Binds the ids in the request, or in the first message of a stream of requests."""
    if not hasattr(request, "__aiter__"):
        _bind_ids(request)
        return request
    return _bind_first(request)


async def _bind_first(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    first = True
    async for request in requests:
        if first:
            first = False
            _bind_ids(request)
        yield request


def _bind_ids(request: Any) -> None:
    message = getattr(request, "header", request)
    found = {name: getattr(message, name, "") for name in _BOUND_FIELDS}
    # What a stranger sent goes to the log only in part.
    structlog.contextvars.bind_contextvars(**{name: str(value)[:64] for name, value in found.items() if value})
