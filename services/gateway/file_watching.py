"""What a watcher of a directory is sent: it goes on behind a restart of the executor, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.patience import PAUSE_SECONDS
from services.gateway.ports import ExecutorPort
from services.gateway.pulse import Pulse
from services.rpc.errors import ErrorCode, QilaError, unavailable

_RENEWAL_SECONDS = 1.0
# What keeps a watch that has begun from beginning again.
_ENDS = {
    "FILE_NOT_FOUND": pb.WATCH_END_REASON_PATH_GONE,
    "FILE_NOT_A_DIRECTORY": pb.WATCH_END_REASON_PATH_GONE,
    "FILE_TOO_LARGE": pb.WATCH_END_REASON_TOO_LARGE,
    "FILE_WATCH_LIMIT": pb.WATCH_END_REASON_WATCH_LIMIT,
    "SANDBOX_NOT_FOUND": pb.WATCH_END_REASON_SANDBOX_REMOVED,
}


async def watch_files(
    executor_port: ExecutorPort, request: executor.WatchFilesRequest, patience: float
) -> AsyncGenerator[pb.WatchFilesResponse, None]:
    """What changes below a directory, and heartbeats where nothing does.

    Args:
        executor_port: watches.
        request: what is to be watched.
        patience: seconds to wait for an executor that is restarted, once the watch has begun.

    Raises:
        QilaError: it could not begin, or the executor does not come back.
    """
    pulse = Pulse()
    try:
        async with (
            aclosing(_unbroken(executor_port, request, patience)) as events,
            aclosing(pulse.items(events)) as items,
        ):
            async for event in items:
                yield pb.WatchFilesResponse(heartbeat=pb.WatchHeartbeat()) if event is None else event
                pulse.told()
    finally:
        pulse.close()


async def _unbroken(
    executor_port: ExecutorPort, request: executor.WatchFilesRequest, patience: float
) -> AsyncGenerator[pb.WatchFilesResponse, None]:
    """One watch across restarts of the executor: behind each one, `overflow`."""
    begun = False
    began = 0.0
    deadline: float | None = None
    now = asyncio.get_running_loop().time
    while True:
        lost = unavailable("EXECUTOR_STREAM_BROKEN", "the executor broke off a watch; repeat the call")
        # One that breaks off again and again must not flood who watches.
        await asyncio.sleep(max(0.0, began + _RENEWAL_SECONDS - now()) if begun else 0.0)
        began = now()
        try:
            async with aclosing(executor_port.watch_files(request)) as responses:
                async for response in responses:
                    deadline = None
                    yield _pack(response, is_first=not begun)
                    begun = True
                    if response.HasField("ended"):
                        return
        except QilaError as error:
            if begun and error.reason in _ENDS:
                yield pb.WatchFilesResponse(ended=pb.WatchEnded(reason=_ENDS[error.reason]))
                return
            if error.code is not ErrorCode.UNAVAILABLE:
                raise
            lost = error
        deadline = now() + patience if deadline is None else deadline
        if not begun or now() >= deadline:
            raise lost
        await asyncio.sleep(PAUSE_SECONDS)


def _pack(response: executor.WatchFilesResponse, *, is_first: bool) -> pb.WatchFilesResponse:
    match response.WhichOneof("event"):
        case "ready" if is_first:
            return pb.WatchFilesResponse(ready=pb.WatchReady())
        case "changes":
            changes = [_pack_change(change) for change in response.changes.changes]
            return pb.WatchFilesResponse(changes=pb.FileChanges(changes=changes))
        case "ended":
            # The enumerations of both have the same numbers.
            reason = pb.WatchEndReason.ValueType(response.ended.reason)
            return pb.WatchFilesResponse(ended=pb.WatchEnded(reason=reason))
        case _:
            return pb.WatchFilesResponse(overflow=pb.WatchOverflow())


def _pack_change(change: executor.FileChange) -> pb.FileChange:
    return pb.FileChange(
        kind=pb.FileChangeKind.ValueType(change.kind),
        path=change.path,
        from_path=change.from_path,
        file_kind=pb.FileKind.ValueType(change.file_kind),
        size=change.size,
        mtime_ns=change.mtime_ns,
        executable=change.executable,
    )
