"""What an exec's watchers read: its control events, and the newest of its output.

Events are durable before they are seen; but for an end that the executor keeps, which is found again whatever happens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.store.port import ExecRecord, Store, StoredEvent

_LOG: Final = structlog.get_logger("services.gateway")
_TAIL_EVENTS: Final = 256
# A watcher that does not read holds as many, of up to 64 KiB each.
_PAGE_EVENTS: Final = 16
_RING_BYTES: Final = 2 << 20
# What a piece of output takes beside its bytes, roughly.
_OUTPUT_COST: Final = 256
_OUTPUT_BYTES: Final = 64 << 10


class Bell:
    """Wakes all who wait. A waiter looks at the state first and waits at once after, so no ring is missed."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wakes those who wait now."""
        if not self._waiters:
            return
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Returns at the next ring."""
        await self.wake(asyncio.get_running_loop().create_future())

    async def wake(self, waiter: asyncio.Future[None]) -> None:
        """Returns at the next ring, or when somebody else has set the waiter and had it forgotten."""
        self._waiters.add(waiter)
        try:
            await waiter
        except BaseException:
            # One that went away must not stay here for a ring that may never come.
            self.forget(waiter)
            raise

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """The waiter waits no more."""
        self._waiters.discard(waiter)


class OutputRing:
    """The newest output of the run phase, at most 2 MiB; older output is with the executor's spool."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        # By number: a watcher finds its place at once, however many there are.
        self._outputs: dict[int, executor.Output] = {}
        self._first = 0
        self._next = 0
        self._bytes = 0
        self.closed = False

    def append(self, output: executor.Output) -> None:
        """Adds output and lets the oldest go."""
        self._outputs[self._next] = output
        self._next += 1
        self._bytes += len(output.data) + _OUTPUT_COST
        while self._bytes > _RING_BYTES:
            self._bytes -= len(self._outputs.pop(self._first).data) + _OUTPUT_COST
            self._first += 1
        self._bell.ring()

    def close(self) -> None:
        """No more output comes."""
        self.closed = True
        self._bell.ring()

    def forgo(self) -> None:
        """The beginning is not here: watchers start with the spool."""
        self._first = self._next = 1

    def at(self, index: int) -> executor.Output | None:
        """One output, counted from the first one ever; None if it has not come, or is gone."""
        return self._outputs.get(index)

    def has_lost(self, index: int) -> bool:
        """Whether an output is gone."""
        return index < self._first


class Journal:
    """The control events of one exec and its record. Events that come while a commit runs go into the next one."""

    def __init__(self, store: Store, record: ExecRecord, bell: Bell) -> None:
        self._store = store
        self._bell = bell
        self._tail: deque[pb.ExecEvent] = deque(maxlen=_TAIL_EVENTS)
        self._pending: list[pb.ExecEvent] = []
        self._lock = asyncio.Lock()
        self._flusher: asyncio.Task[None] | None = None
        self._sequence = record.last_sequence
        self.record = record
        # What the store has, and the events that were seen before it has them.
        self._written = record
        self._shown: list[pb.ExecEvent] = []

    @property
    def ended(self) -> bool:
        """Whether the end is recorded."""
        return bool(self.record.end_time_ns)

    def begin(self, events: Sequence[pb.ExecEvent], **facts: Any) -> None:
        """Takes the first events, which the record counts already, and facts into it, before the store has it."""
        self._tail.extend(events)
        self.record = self._written = replace(self.record, **facts)

    def append(self, event: pb.ExecEvent) -> None:
        """Adds an event; it is written soon, and seen when it is written."""
        self._take(event)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_soon())

    async def flush(self, *events: pb.ExecEvent, **changes: Any) -> None:
        """Writes what is pending, these events and changes of the record, in one transaction, and then returns."""
        for event in events:
            self._take(event)
        async with self._lock:
            batch, self._pending = self._pending, []
            last = batch[-1].sequence if batch else self.record.last_sequence
            record = replace(self.record, last_sequence=last, **changes)
            if not batch and record == self._written:
                return
            try:
                await self._store.save_exec(record, [stored(event) for event in (*self._shown, *batch)])
            except BaseException:
                self._pending = batch + self._pending
                raise
            self.record = self._written = record
            self._shown.clear()
            self._tail.extend(batch)
        self._bell.ring()

    async def show(self, *events: pb.ExecEvent, **changes: Any) -> None:
        """As `flush`, but these are seen at once, and written by the next `flush`: only for what can be found again."""
        if self._pending:
            await self.flush()
        for event in events:
            self._take(event)
        async with self._lock:
            batch, self._pending = self._pending, []
            self.record = replace(self.record, last_sequence=batch[-1].sequence, **changes)
            self._shown += batch
            self._tail.extend(batch)
        self._bell.ring()

    async def after(self, sequence: int) -> Sequence[pb.ExecEvent]:
        """The next durable events; none if there are none yet."""
        if sequence >= self.record.last_sequence:
            return ()
        if self._tail and self._tail[0].sequence <= sequence + 1:
            skipped = sequence + 1 - self._tail[0].sequence
            return list(islice(self._tail, skipped, skipped + _PAGE_EVENTS))
        record = self.record
        page = await self._store.events(record.sandbox_id, record.exec_id, sequence, _PAGE_EVENTS)
        return [pb.ExecEvent.FromString(item.payload) for item in page]

    async def at(self, sequence: int) -> pb.ExecEvent | None:
        """One durable event; None if there is none."""
        record = self.record
        if not 0 < sequence <= record.last_sequence:
            return None
        if self._tail and self._tail[0].sequence <= sequence:
            return self._tail[sequence - self._tail[0].sequence]
        page = await self._store.events(record.sandbox_id, record.exec_id, sequence - 1, 1)
        return pb.ExecEvent.FromString(page[0].payload) if page else None

    async def settle(self) -> None:
        """Returns when no write is under way, and what was seen is written."""
        if self._flusher is not None:
            await asyncio.wait([self._flusher])
        if self._shown:
            await self.flush()

    async def _flush_soon(self) -> None:
        try:
            while self._pending:
                await self.flush()
        except Exception:  # noqa: BLE001  # a task that nobody awaits
            # Still pending: the conductor's own next flush raises it again.
            _LOG.exception("journal_write_failed", exec_id=self.record.exec_id)

    def _take(self, event: pb.ExecEvent) -> None:
        if not self._joined_to_last(event):
            self._sequence += 1
            self._pending.append(stamped(event, self._sequence))

    def _joined_to_last(self, event: pb.ExecEvent) -> bool:
        """Coalesces output that continues output which is not written yet."""
        if not self._pending or not event.HasField("output") or not self._pending[-1].HasField("output"):
            return False
        if self._pending[-1].project != event.project:
            return False
        last, new = self._pending[-1].output, event.output
        fits = len(last.data) + len(new.data) <= _OUTPUT_BYTES
        if last.stream != new.stream or last.offset + len(last.data) != new.offset or not fits:
            return False
        last.data += new.data
        return True


def stamped(event: pb.ExecEvent, sequence: int) -> pb.ExecEvent:
    """A copy of the event with its place and the time."""
    copy = pb.ExecEvent()
    copy.CopyFrom(event)
    copy.sequence = sequence
    copy.time.CopyFrom(now())
    return copy


def stored(event: pb.ExecEvent) -> StoredEvent:
    """The event as the store keeps it."""
    return StoredEvent(sequence=event.sequence, payload=event.SerializeToString())


def now() -> Timestamp:
    """The present."""
    timestamp = Timestamp()
    timestamp.GetCurrentTime()
    return timestamp
