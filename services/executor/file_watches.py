"""Watches of directories: what sandboxd tells of changes, for as long as the sandbox runs and somebody listens."""

from __future__ import annotations

import enum
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from services.executor.agent.frames import Header, as_count, as_text, text_field
from services.executor.errors import (
    AgentUnavailableError,
    FileCallError,
    InvalidFieldError,
    LimitError,
    OldAgentError,
    ProtocolError,
)
from services.executor.files import MAX_DEPTH
from services.executor.sandboxes import RECONNECT_TIMEOUT_S, Sandbox, Sandboxes

MAX_WATCHES = 8
_ROW_FIELDS = 7
_LOOK_S = 0.1


class ChangeKind(enum.StrEnum):
    """What happened at a path."""

    CREATED = "created"
    MODIFIED = "modified"
    REMOVED = "removed"
    MOVED = "moved"


class EndReason(enum.StrEnum):
    """Why there is nothing to watch any more."""

    PATH_GONE = "path_gone"
    TOO_LARGE = "too_large"
    WATCH_LIMIT = "watch_limit"
    STOPPED = "stopped"
    REMOVED = "removed"


# What becomes of the sandbox itself is not sandboxd's to say.
_SAID_ENDS = frozenset({EndReason.PATH_GONE, EndReason.TOO_LARGE, EndReason.WATCH_LIMIT})


class Sign(enum.Enum):
    """READY: from here on nothing is missed. OVERFLOW: the same, and something was."""

    READY = "ready"
    OVERFLOW = "overflow"


@dataclass(frozen=True, kw_only=True)
class FileChange:
    """A path below the directory that is watched, and what is there; bytes, nanoseconds."""

    kind: ChangeKind
    path: str
    from_path: str
    file_kind: str
    size: int
    mtime_ns: int
    executable: bool


@dataclass(frozen=True, kw_only=True)
class WatchSpec:
    """What is watched."""

    path: str
    depth: int
    patterns: Sequence[str]
    ignored_names: Sequence[str]


WatchEvent = Sign | Sequence[FileChange] | EndReason


def check_watch_depth(depth: int) -> int:
    """The depth to watch; 0 stands for all that there is. InvalidFieldError."""
    if depth > MAX_DEPTH:
        raise InvalidFieldError("depth", f"must be at most {MAX_DEPTH}")
    return depth or MAX_DEPTH


async def watch(sandboxes: Sandboxes, sandbox_id: str, spec: WatchSpec) -> AsyncGenerator[WatchEvent]:
    """What changes, from `Sign.READY` on; an EndReason is the last.

    SandboxNotFoundError, LimitError, FileCallError, OldAgentError; AgentUnavailableError if sandboxd went and came
    back: watch again.
    """
    sandbox = await sandboxes.ready(sandbox_id)
    with _counted(sandbox):
        try:
            async for event in _events(sandbox, spec):
                yield event
        except AgentUnavailableError:
            reason = await _fate(sandbox)
            if reason is None:
                raise
            yield reason


async def _events(sandbox: Sandbox, spec: WatchSpec) -> AsyncIterator[WatchEvent]:
    fields = {
        "path": spec.path,
        "depth": spec.depth,
        "patterns": list(spec.patterns),
        "ignored_names": list(spec.ignored_names),
    }
    try:
        async with sandbox.agent.call("watch", user="program", **fields) as call:
            while (item := await call.next()) is not None:
                yield parsed_event(*item)
            yield parsed_end(await call.result())
    except FileCallError as error:
        if (error.kind, error.detail) == ("io", "no such operation"):
            raise OldAgentError(sandbox.record.id) from error
        if (error.kind, error.detail) == ("io", "the call's process was killed"):
            # For memory, as a rule: another may fare better.
            raise AgentUnavailableError(sandbox.record.id, "its watcher was killed") from error
        raise


@contextmanager
def _counted(sandbox: Sandbox) -> Iterator[None]:
    if sandbox.watches >= MAX_WATCHES:
        raise LimitError("watches of this sandbox", MAX_WATCHES)
    sandbox.watches += 1
    try:
        yield
    finally:
        sandbox.watches -= 1


async def _fate(sandbox: Sandbox) -> EndReason | None:
    """What became of a sandbox whose agent went: None if that comes back."""
    deadline = time.monotonic() + RECONNECT_TIMEOUT_S
    while time.monotonic() < deadline:
        if sandbox.removed:
            return EndReason.REMOVED
        if not sandbox.running:
            return EndReason.STOPPED
        if sandbox.agent.is_connected:
            return None
        with suppress(AgentUnavailableError):
            await sandbox.agent.wait_connected(_LOOK_S)
    return None


def parsed_event(header: Header, payload: bytes) -> WatchEvent:
    """What sandboxd tells. ProtocolError if that cannot be."""
    kind = text_field(header, "kind")
    if kind != "changes":
        try:
            return Sign(kind)
        except ValueError:
            raise ProtocolError("a watch that tells of something unknown") from None
    try:
        rows = json.loads(payload)
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        raise ProtocolError("changes that are not an array")
    return [_change(row) for row in rows]


def _change(row: Any) -> FileChange:
    if not isinstance(row, list) or len(row) != _ROW_FIELDS or row[0] not in list(ChangeKind):
        raise ProtocolError("a change of another shape")
    return FileChange(
        kind=ChangeKind(row[0]),
        path=as_text(row[1], "path"),
        from_path=as_text(row[2], "from"),
        file_kind=as_text(row[3], "file_kind"),
        size=as_count(row[4], "size"),
        mtime_ns=as_count(row[5], "mtime_ns"),
        executable=row[6] is True,
    )


def parsed_end(result: Header) -> EndReason:
    """Why sandboxd says it is over. ProtocolError if that cannot be."""
    reason = text_field(result, "end")
    if reason not in _SAID_ENDS:
        raise ProtocolError("a watch that ends for no known reason")
    return EndReason(reason)
