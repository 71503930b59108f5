"""Threads for what would hold up the event loop: reading, writing, hashing."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Workers:
    """A few threads. Keep each piece of work short: cancelling waits for it."""

    def __init__(self, *, name: str, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(
        self, work: Callable[_Parameters, _Result], *arguments: _Parameters.args, **named: _Parameters.kwargs
    ) -> _Result:
        """Do `work` in a thread. Even if cancelled, this ends after the work, whose files may then be closed."""
        future = asyncio.wrap_future(self._pool.submit(work, *arguments, **named))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()
            raise

    def close(self) -> None:
        """Wait for the work under way."""
        self._pool.shutdown()
