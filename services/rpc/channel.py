"""One way to call another service: deadlines, the ids for the log, and errors in Qila's own vocabulary."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from services.rpc import log_ids
from services.rpc.errors import from_rpc_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_MESSAGE_BYTES: Final = 4 << 20
DEFAULT_DEADLINE_SECONDS: Final = 30.0
_OPTIONS: Final = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A service that restarts is found again within half a second.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Never through a proxy that the environment names.
    ("grpc.enable_http_proxy", 0),
)


def build_channel(address: str, *, deadline: float = DEFAULT_DEADLINE_SECONDS) -> grpc.aio.Channel:
    """A channel to `unix:/path` or `HOST:PORT`. It connects when it is first used.

    Args:
        address: of the service.
        deadline: seconds for a call with a single answer that was given no `timeout`; streams have none.
    """
    return grpc.aio.insecure_channel(
        address,
        options=_OPTIONS,
        interceptors=[
            _UnaryUnary(deadline),
            _StreamUnary(deadline),
            _UnaryStream(None),
            _StreamStream(None),
        ],
    )


@contextmanager
def translated(peer: str) -> Iterator[None]:
    """Turns what a call of `peer` raises into `QilaError`; also around the reading of a stream."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer) from error


class _Completing:
    """Adds the ids for the log, and a deadline where there is none."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline

    def _complete(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        for key, value in log_ids.metadata().items():
            if metadata.get(key) is None:
                metadata.add(key, value)
        return grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=self._deadline if details.timeout is None else details.timeout,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _UnaryUnary(_Completing, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._complete(client_call_details), request)


class _StreamUnary(_Completing, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return await continuation(self._complete(client_call_details), request_iterator)


class _UnaryStream(_Completing, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._complete(client_call_details), request)


class _StreamStream(_Completing, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return await continuation(self._complete(client_call_details), request_iterator)
