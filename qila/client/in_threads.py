"""Iterators that block, for an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Self

Item = TypeVar("Item")
_END: Final = object()


class InThreads(Generic[Item]):
    """An asynchronous iterator over a generator that reads files: each of its steps is made in a thread.

    As a context manager it waits at its end for a step that is under way, so that nothing reads on behind it.
    """

    def __init__(self, steps: Generator[Item, None, None]) -> None:
        self._steps = steps
        self._step: asyncio.Future[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        self._step = asyncio.ensure_future(asyncio.to_thread(next, self._steps, _END))
        # A thread cannot be cancelled.
        found: Any = await asyncio.shield(self._step)
        if found is _END:
            raise StopAsyncIteration
        item: Item = found
        return item

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._step is not None:
            await asyncio.gather(self._step, return_exceptions=True)
        self._steps.close()
