"""Watches of directories as messages of protos/qila/executor/v1."""

from __future__ import annotations

from qila.executor.v1 import executor_pb2 as pb
from services.executor.file_watches import (
    ChangeKind,
    EndReason,
    FileChange,
    Sign,
    WatchEvent,
    WatchSpec,
    check_watch_depth,
)
from services.executor.file_wire import FILE_KINDS
from services.executor.files import check_path, check_patterns
from services.executor.trees import check_ignored_names

_CHANGE_KINDS = {
    ChangeKind.CREATED: pb.FILE_CHANGE_KIND_CREATED,
    ChangeKind.MODIFIED: pb.FILE_CHANGE_KIND_MODIFIED,
    ChangeKind.REMOVED: pb.FILE_CHANGE_KIND_REMOVED,
    ChangeKind.MOVED: pb.FILE_CHANGE_KIND_MOVED,
}
_END_REASONS = {
    EndReason.PATH_GONE: pb.WATCH_END_REASON_PATH_GONE,
    EndReason.STOPPED: pb.WATCH_END_REASON_SANDBOX_STOPPED,
    EndReason.REMOVED: pb.WATCH_END_REASON_SANDBOX_REMOVED,
    EndReason.TOO_LARGE: pb.WATCH_END_REASON_TOO_LARGE,
    EndReason.WATCH_LIMIT: pb.WATCH_END_REASON_WATCH_LIMIT,
}


def unpack_watch(request: pb.WatchFilesRequest) -> WatchSpec:
    """What is to be watched. InvalidFieldError."""
    return WatchSpec(
        path=check_path(request.path, empty_allowed=True),
        depth=check_watch_depth(request.depth),
        patterns=check_patterns(request.patterns),
        ignored_names=check_ignored_names(request.ignored_names),
    )


def pack_watch_event(event: WatchEvent) -> pb.WatchFilesResponse:
    """One answer to WatchFiles."""
    match event:
        case EndReason():
            return pb.WatchFilesResponse(ended=pb.WatchEnded(reason=_END_REASONS[event]))
        case Sign.READY:
            return pb.WatchFilesResponse(ready=pb.WatchReady())
        case Sign.OVERFLOW:
            return pb.WatchFilesResponse(overflow=pb.WatchOverflow())
        case changes:
            return pb.WatchFilesResponse(changes=pb.FileChanges(changes=[_pack(change) for change in changes]))


def _pack(change: FileChange) -> pb.FileChange:
    return pb.FileChange(
        kind=_CHANGE_KINDS[change.kind],
        path=change.path,
        from_path=change.from_path,
        file_kind=FILE_KINDS.get(change.file_kind, pb.FILE_KIND_OTHER),
        size=change.size,
        mtime_ns=change.mtime_ns,
        executable=change.executable,
    )
