"""One way to call another service: deadlines, the ids for the log, and errors in Qila's own vocabulary."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from services.rpc import log_ids
from services.rpc.errors import from_rpc_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

MAX_MESSAGE_BYTES: Final = 4 << 20
DEFAULT_DEADLINE_SECONDS: Final = 30.0
_OPTIONS: Final = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A service that restarts is found again within half a second.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # What may be repeated is repeated by its caller; grpc's own machinery for it costs each call.
    ("grpc.enable_retries", 0),
    # Never through a proxy that the environment names.
    ("grpc.enable_http_proxy", 0),
)


class Channel(grpc.aio.Channel):
    """A channel whose every call carries the ids for the log, and a deadline where it was given none.

    It wraps the methods instead of intercepting the calls: an interceptor of `grpc.aio` makes tasks and queues of each
    call, which is a good part of what a warm exec costs.
    """

    def __init__(self, channel: grpc.aio.Channel, deadline: float) -> None:
        self._channel = channel
        self._deadline = deadline

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """As grpc's."""
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002  # grpc's
        """As grpc's."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As grpc's."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """As grpc's."""
        await self._channel.channel_ready()

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """As the generated stubs ask for it."""
        return _completing(self._channel.unary_unary(method, *arguments, **options), self._deadline)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """As the generated stubs ask for it."""
        return _completing(self._channel.stream_unary(method, *arguments, **options), self._deadline)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """As the generated stubs ask for it."""
        return _completing(self._channel.unary_stream(method, *arguments, **options), None)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """As the generated stubs ask for it."""
        return _completing(self._channel.stream_stream(method, *arguments, **options), None)


def build_channel(
    address: str, *, deadline: float = DEFAULT_DEADLINE_SECONDS, max_message_bytes: int = MAX_MESSAGE_BYTES
) -> Channel:
    """A channel to `unix:/path` or `HOST:PORT`. It connects when it is first used.

    Args:
        address: of the service.
        deadline: seconds for a call with a single answer that was given no `timeout`; streams have none.
        max_message_bytes: of one message, either way.
    """
    size = max_message_bytes
    options = (*_OPTIONS, ("grpc.max_receive_message_length", size), ("grpc.max_send_message_length", size))
    return Channel(grpc.aio.insecure_channel(address, options=options), deadline)


def _completing(method: Callable[..., Any], deadline: float | None) -> Callable[..., Any]:
    def call(
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        **options: Any,
    ) -> Any:
        complete = {**log_ids.metadata(), **dict(metadata)}
        limit = deadline if timeout is None else timeout
        return method(request, timeout=limit, metadata=tuple(complete.items()), **options)

    return call


@contextmanager
def translated(peer: str) -> Iterator[None]:
    """Turns what a call of `peer` raises into `QilaError`; also around the reading of a stream."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer) from error
