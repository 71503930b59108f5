"""One piece of work for everybody who wants its result at the same time."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_Result = TypeVar("_Result")


@dataclass(kw_only=True)
class _Flight(Generic[_Result]):
    task: asyncio.Task[_Result]
    waiting: int = 0


class Flights(Generic[_Result]):
    """Work by key; it is dropped when nobody waits for it any more."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[_Result]] = {}

    async def join(self, key: str, start: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """The result of the work at `key`, which `start` begins if none is under way; it may raise what that raises."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(task=asyncio.create_task(start()))
            flight.task.add_done_callback(_retrieve)
        flight.waiting += 1
        try:
            # Not `await`, which would cancel the work of all when one goes.
            await asyncio.wait([flight.task])
        finally:
            flight.waiting -= 1
            if self._flights.get(key) is flight and (flight.task.done() or not flight.waiting):
                del self._flights[key]
                flight.task.cancel()
        return flight.task.result()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """An error that nobody waits for any more is nobody's business."""
    if not task.cancelled():
        task.exception()
