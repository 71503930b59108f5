# ruff: noqa: D102  # the port specifies the calls
"""The executor's watches in memory: what is in a directory now, against what was told of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from qila.executor.v1 import executor_pb2 as executor
from services.gateway.executor_fake_files import directories
from services.rpc.errors import failed_precondition, not_found, resource_exhausted

if TYPE_CHECKING:
    from services.gateway.executor_fake import FakeSandbox

MAX_WATCHES = 8
# By path: the kind, and what a file holds.
_State = Mapping[str, tuple[executor.FileKind.ValueType, bytes]]


class FakeWatches(ABC):
    """What `FakeExecutor` does with watches; whoever changes files rings the sandbox's bell."""

    async def watch_files(
        self, request: executor.WatchFilesRequest
    ) -> AsyncGenerator[executor.WatchFilesResponse, None]:
        sandbox = self._sandbox(request.sandbox_id)
        if request.path in sandbox.files:
            raise failed_precondition("FILE_NOT_A_DIRECTORY", f"{request.path}: Not a directory")
        if request.path and request.path not in directories(sandbox):
            raise not_found("FILE_NOT_FOUND", f"{request.path}: no such directory")
        if sandbox.watches >= MAX_WATCHES:
            raise resource_exhausted("LIMIT_REACHED", f"watches of this sandbox: the limit is {MAX_WATCHES}")
        sandbox.watches += 1
        try:
            async for response in self._watched(sandbox, request):
                yield response
        finally:
            sandbox.watches -= 1

    async def _watched(
        self, sandbox: FakeSandbox, request: executor.WatchFilesRequest
    ) -> AsyncGenerator[executor.WatchFilesResponse, None]:
        told, moves = _state(sandbox, request), len(sandbox.moves)
        yield executor.WatchFilesResponse(ready=executor.WatchReady())
        while (reason := self._end(sandbox, request)) is None:
            now = _state(sandbox, request)
            changes = _difference(told, now, _moves(sandbox, request, moves))
            told, moves = now, len(sandbox.moves)
            if changes:
                yield executor.WatchFilesResponse(changes=executor.FileChanges(changes=changes))
            else:
                await sandbox.bell.wait()
                self._check()
        yield executor.WatchFilesResponse(ended=executor.WatchEnded(reason=reason))

    def _end(
        self, sandbox: FakeSandbox, request: executor.WatchFilesRequest
    ) -> executor.WatchEndReason.ValueType | None:
        if not self._holds(sandbox):
            return executor.WATCH_END_REASON_SANDBOX_REMOVED
        if sandbox.stopped:
            return executor.WATCH_END_REASON_SANDBOX_STOPPED
        if request.path and request.path not in directories(sandbox):
            return executor.WATCH_END_REASON_PATH_GONE
        return None

    @abstractmethod
    def _sandbox(self, sandbox_id: str) -> FakeSandbox: ...

    @abstractmethod
    def _holds(self, sandbox: FakeSandbox) -> bool: ...

    @abstractmethod
    def _check(self) -> None: ...


def _state(sandbox: FakeSandbox, request: executor.WatchFilesRequest) -> _State:
    prefix = f"{request.path}/" if request.path else ""
    found = {path: (executor.FILE_KIND_FILE, content) for path, content in sandbox.files.items()}
    found |= dict.fromkeys(directories(sandbox), (executor.FILE_KIND_DIRECTORY, b""))
    # Roughly: here a star may match across names.
    patterns = [pattern.replace("**/", "*") for pattern in request.patterns] or ["*"]
    return {
        name: state
        for path, state in found.items()
        if path.startswith(prefix)
        and (name := path.removeprefix(prefix)).count("/") < (request.depth or 64)
        and not set(name.split("/")[:-1]) & set(request.ignored_names)
        and any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _moves(sandbox: FakeSandbox, request: executor.WatchFilesRequest, after: int) -> dict[str, str]:
    prefix = f"{request.path}/" if request.path else ""
    return {target.removeprefix(prefix): source.removeprefix(prefix) for source, target in sandbox.moves[after:]}


def _difference(before: _State, now: _State, moves: Mapping[str, str]) -> list[executor.FileChange]:
    gone = sorted(before.keys() - now.keys(), reverse=True)
    moved = {target: source for target, source in moves.items() if target in now and source in gone}
    removed = [path for path in gone if path not in moved.values()]
    changes = [
        executor.FileChange(kind=executor.FILE_CHANGE_KIND_REMOVED, path=path, file_kind=before[path][0])
        for path in removed
    ]
    for path in sorted(now):
        kind, content = now[path]
        change = executor.FileChange(path=path, file_kind=kind, size=len(content), from_path=moved.get(path, ""))
        if path in moved:
            change.kind = executor.FILE_CHANGE_KIND_MOVED
        elif path not in before:
            change.kind = executor.FILE_CHANGE_KIND_CREATED
        elif before[path] != now[path]:
            change.kind = executor.FILE_CHANGE_KIND_MODIFIED
        else:
            continue
        changes.append(change)
    return changes
