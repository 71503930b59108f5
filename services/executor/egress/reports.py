"""The records on their way from the doors to the executor: none is dropped, and a slow executor slows the sandboxes."""

import asyncio
from collections import deque

import structlog

from services.executor.egress.control import ChannelClosed, ControlChannel
from services.executor.egress.records import EgressRecord

_log = structlog.get_logger()

_MAX_WAITING = 1024


class Reports:
    """A queue that `room` keeps short: whoever starts something that ends in a record waits there first."""

    def __init__(self, channel: ControlChannel) -> None:
        self._channel = channel
        self._waiting: deque[EgressRecord] = deque()
        self._added = 0
        self._sent = 0
        self._changed = asyncio.Condition()
        self._closed = False
        self._wake = asyncio.Event()

    async def room(self) -> None:
        """Wait until fewer than 1,024 records wait."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or len(self._waiting) < _MAX_WAITING)

    def add(self, record: EgressRecord) -> None:
        """Queue a record; the queue is bounded by `room`, which every visit has passed before."""
        if self._closed:
            _log_itself(record)
        else:
            self._waiting.append(record)
            self._added += 1
            self._wake.set()

    async def told(self) -> None:
        """Wait until every record that was added before has been sent."""
        added = self._added
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._sent >= added)

    async def send_all(self) -> None:
        """Send records until cancelled or until the executor is gone."""
        try:
            while True:
                await self._wake.wait()
                while self._waiting:
                    await self._channel.send(self._waiting[0].to_message())
                    async with self._changed:
                        self._waiting.popleft()
                        self._sent += 1
                        self._changed.notify_all()
                self._wake.clear()
        except ChannelClosed:
            _log.warning("records not told", count=len(self._waiting))
        finally:
            self._closed = True
            for record in self._waiting:
                _log_itself(record)
            self._waiting.clear()
            async with self._changed:
                self._changed.notify_all()


def _log_itself(record: EgressRecord) -> None:
    """Log what the executor, which logs every record that it gets, will never hear of."""
    _log.info("egress", **{key: value for key, value in record.to_message().items() if key != "type"})
