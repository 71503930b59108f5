"""What both wire clients need: a request stream whose own failure is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from services.rpc.channel import translated
from services.rpc.errors import QilaError


async def send_stream(
    method: Callable[..., Any],
    requests: AsyncIterator[Any],
    *,
    peer: str,
    timeout: float,  # noqa: ASYNC109  # gRPC's own
) -> Any:
    """Calls a method that takes a stream; if `requests` raises, the call is cancelled and that error raised here."""
    failures: list[Exception] = []

    try:
        with translated(peer):
            return await method(_guarded(requests, failures), timeout=timeout)
    except (asyncio.CancelledError, QilaError):
        if failures:
            raise failures[0] from None
        raise


async def exchange_streams(
    method: Callable[..., Any],
    requests: AsyncIterator[Any],
    *,
    peer: str,
    timeout: float,  # noqa: ASYNC109  # gRPC's own
) -> AsyncGenerator[Any, None]:
    """As `send_stream`, of a method that answers with a stream."""
    failures: list[Exception] = []
    call = method(_guarded(requests, failures), timeout=timeout)
    try:
        with translated(peer):
            async for response in call:
                yield response
    except (asyncio.CancelledError, QilaError):
        if failures:
            raise failures[0] from None
        raise
    finally:
        call.cancel()


async def _guarded(requests: AsyncIterator[Any], failures: list[Exception]) -> AsyncIterator[Any]:
    try:
        async for request in requests:
            yield request
    except Exception as error:
        # gRPC would only cancel the call and lose the reason.
        failures.append(error)
        raise
