"""A program's imports against what is there: before its run by its lock, after it by what it said on stderr."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.convert import missing_import
from services.gateway.ports import ResolverPort
from services.gateway.store.port import Store
from services.rpc.errors import QilaError

_LOG: Final = structlog.get_logger("services.gateway")
_REMEMBERED_LOCKS: Final = 64
_TAIL_BYTES: Final = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A package of a lock."""

    version: str
    direct: bool


class ImportChecker:
    """Holds a plan's findings against the lock; each lock is parsed once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._packages: OrderedDict[str, Mapping[str, Locked]] = OrderedDict()

    async def check(self, sandbox_id: str, plan: resolver.Plan, lock_digest: str) -> pb.ExecEvent | None:
        """What there is to tell before the run; None if there is nothing. `lock_digest` is empty without a lock."""
        findings = [*plan.undeclared, *plan.unknown]
        if not findings:
            return None
        packages = await self._of_lock(sandbox_id, lock_digest)
        checked = pb.ImportsChecked()
        for finding in findings:
            locked = packages.get(finding.package) if finding.package else None
            if locked is None:
                checked.missing.append(missing_import(finding))
            elif not locked.direct:
                checked.transitive.append(missing_import(finding, transitive_version=locked.version))
        if not checked.missing and not checked.transitive:
            return None
        return pb.ExecEvent(imports_checked=checked)

    async def _of_lock(self, sandbox_id: str, digest: str) -> Mapping[str, Locked]:
        if not digest:
            return {}
        packages = self._packages.get(digest)
        if packages is None:
            record = await self._store.lock(sandbox_id, digest)
            packages = {} if record is None else _packages(record.lock)
            self._packages[digest] = packages
            if len(self._packages) > _REMEMBERED_LOCKS:
                self._packages.popitem(last=False)
        self._packages.move_to_end(digest)
        return packages


def _packages(lock: bytes) -> Mapping[str, Locked]:
    packages: dict[str, Locked] = {}
    for entry in json.loads(lock)["packages"]:
        # Of a name that is there in several versions the direct one counts.
        if not (entry["name"] in packages and packages[entry["name"]].direct):
            packages[entry["name"]] = Locked(version=entry["version"], direct=entry["direct"])
    return packages


class StderrTail:
    """The end of what a program writes on stderr, at most 64 KiB; on the stream that it shares, if it does.

    Args:
        request: says where stderr goes.
    """

    def __init__(self, request: pb.ExecRequest) -> None:
        self._stream = _stream_of_errors(request)
        self._chunks: deque[bytes] = deque()
        self._bytes = 0

    def take(self, output: executor.Output) -> None:
        """Takes output as it comes."""
        if output.stream != self._stream:
            return
        self._chunks.append(output.data)
        self._bytes += len(output.data)
        while self._bytes - len(self._chunks[0]) >= _TAIL_BYTES:
            self._bytes -= len(self._chunks.popleft())

    @property
    def data(self) -> bytes:
        """The bytes, from somewhere in the middle of a line on if there were more."""
        return b"".join(self._chunks)[-_TAIL_BYTES:]


def _stream_of_errors(request: pb.ExecRequest) -> executor.Stream.ValueType:
    if request.HasField("terminal"):
        return executor.STREAM_TERMINAL
    return executor.STREAM_STDOUT if request.merge_output else executor.STREAM_STDERR


async def explain_run(
    resolver_port: ResolverPort, plan: resolver.Plan, end: pb.ExecEnded, stderr: bytes
) -> Sequence[pb.MissingImport]:
    """The imports that a program did not find; a courtesy, which nothing but a log line depends on."""
    if end.WhichOneof("end") != "exited" or not end.exited or not stderr:
        return ()
    request = resolver.ExplainRunRequest(ecosystem=plan.ecosystem, output=stderr, manifests=plan.manifests)
    try:
        response = await resolver_port.explain_run(request)
    except QilaError as error:
        _LOG.warning("run_not_explained", reason=error.reason, message=error.message)
        return ()
    return [missing_import(item) for item in response.missing]
