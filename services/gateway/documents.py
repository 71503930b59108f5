"""Locks, comparisons of locks and SBOMs: from the records, with the resolver's help."""

from __future__ import annotations

import shlex
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final

from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway import checks
from services.gateway.importable import Importable, what_was_importable
from services.gateway.joined import joined_lock
from services.gateway.ports import ResolverPort
from services.gateway.store.port import ExecRecord, GivenLock, LockRecord, Store
from services.rpc.errors import QilaError, failed_precondition, invalid_argument, not_found

_QILA_LOCK: Final = "qila.lock.json"
_SECOND_NS: Final = 10**9


class Documents:
    """What an auditor asks for."""

    def __init__(self, store: Store, resolver_port: ResolverPort) -> None:
        self._store = store
        self._resolver = resolver_port

    async def check_given(self, lock: pb.Lockfile) -> GivenLock:
        """The lock that a sandbox is to be made with.

        Raises:
            QilaError: INVALID_ARGUMENT, LOCK_INVALID, with the line, if it cannot be read.
        """
        checks.check_lock("lock", lock)
        await self._resolver.diff_locks([resolver.Lockfile(name=lock.name, content=lock.content)], [])
        return GivenLock(name=lock.name, content=lock.content)

    async def lock(self, sandbox_id: str, exec_id: str) -> pb.GetLockResponse:
        """The lock of an exec; of the newest that has one if no exec is named."""
        record = await self._exec(sandbox_id, exec_id)
        importable = None if record is None else await what_was_importable(self._store, record)
        if record is None or importable is None or not importable.locks:
            raise _no_lock(sandbox_id)
        if importable.projects:
            return await self._locks_of_projects(record, importable)
        found = await self._kept_lock(record.sandbox_id, importable.locks[0])
        return pb.GetLockResponse(
            lock=found.lock,
            native_lock=found.native_lock,
            native_lock_name=found.native_lock_name,
            exec_id=record.exec_id,
        )

    async def _locks_of_projects(self, record: ExecRecord, importable: Importable) -> pb.GetLockResponse:
        response = pb.GetLockResponse(exec_id=record.exec_id)
        for item in importable.projects:
            found = await self._kept_lock(record.sandbox_id, item.digest)
            response.projects.add(
                project=item.project,
                ecosystem=item.ecosystem,
                lock=found.lock,
                native_lock=found.native_lock,
                native_lock_name=found.native_lock_name,
            )
            if (item.ecosystem, item.fingerprint) == (record.ecosystem, record.fingerprint):
                response.native_lock, response.native_lock_name = found.native_lock, found.native_lock_name
        response.lock = joined_lock(response.projects)
        return response

    async def diff(self, request: pb.DiffLocksRequest) -> pb.DiffLocksResponse:
        """What two execs or lockfiles hold, compared."""
        before = await self._locks_of("before", request.before)
        after = await self._locks_of("after", request.after)
        found = await self._resolver.diff_locks(before, after)
        return pb.DiffLocksResponse(
            changes=[_change(change) for change in found.changes], unchanged_count=found.unchanged_count
        )

    async def sbom(self, sandbox_id: str, exec_id: str, form: pb.SbomFormat.ValueType) -> AsyncGenerator[bytes, None]:
        """The chunks of an exec's SBOM; of the newest exec whose run has begun if none is named."""
        record = await self._exec_that_ran(sandbox_id, exec_id)
        if record is None or not (record.importable or record.phase == pb.PHASE_RUN):
            name = "no exec of this sandbox" if record is None else record.exec_id
            message = f"the run of {name} has not begun, so that nobody knows yet what it can import"
            raise failed_precondition("SBOM_NOT_READY", message, sandbox_id=sandbox_id)
        importable = await what_was_importable(self._store, record)
        locks = [await self._kept_lock(sandbox_id, digest) for digest in importable.locks]
        header = resolver.RenderSbomHeader(
            # The two enumerations have the same numbers.
            format=resolver.SbomFormat.ValueType(form or pb.SBOM_FORMAT_CYCLONEDX_1_6),
            sandbox_id=sandbox_id,
            exec_id=record.exec_id,
            time=record.create_time_ns // _SECOND_NS,
            program=_program(record),
            unmanaged_unknown=importable.unmanaged_unknown,
        )
        async for chunk in self._resolver.render_sbom(header, self._parts(sandbox_id, locks, importable)):
            yield chunk

    async def _parts(
        self, sandbox_id: str, locks: Sequence[LockRecord], importable: Importable
    ) -> AsyncIterator[tuple[resolver.SbomPart, bytes]]:
        for lock in locks:
            yield resolver.SbomPart(lock=True), lock.lock
        for key in importable.inventories:
            inventory = await self._store.inventory(sandbox_id, key)
            if inventory is not None:
                yield resolver.SbomPart(unmanaged_ecosystem=key.ecosystem), inventory

    async def _locks_of(self, field: str, reference: pb.LockReference) -> list[resolver.Lockfile]:
        match reference.WhichOneof("kind"):
            case "lock":
                checks.check_lock(f"{field}.lock", reference.lock)
                return [resolver.Lockfile(name=reference.lock.name, content=reference.lock.content)]
            case "exec":
                return await self._locks_of_exec(reference.exec)
            case _:
                raise invalid_argument("FIELD_INVALID", f"{field}: must be an exec or a lock", field=field)

    async def _locks_of_exec(self, reference: pb.ExecReference) -> list[resolver.Lockfile]:
        record = await self._exec(reference.sandbox_id, reference.exec_id)
        if record is None:
            raise _no_lock(reference.sandbox_id)
        importable = await what_was_importable(self._store, record)
        locks = [await self._kept_lock(record.sandbox_id, digest) for digest in importable.locks]
        return [resolver.Lockfile(name=_QILA_LOCK, content=lock.lock) for lock in locks]

    async def _kept_lock(self, sandbox_id: str, digest: str) -> LockRecord:
        lock = await self._store.lock(sandbox_id, digest)
        if lock is None:
            message = "its lock is no longer kept: those of a sandbox are, up to 256 MiB, and the oldest go first"
            raise not_found("NO_LOCK", message, sandbox_id=sandbox_id)
        return lock

    async def _exec_that_ran(self, sandbox_id: str, exec_id: str) -> ExecRecord | None:
        if exec_id:
            return await self._named(sandbox_id, exec_id)
        await self._check_sandbox(sandbox_id)
        return await self._store.newest_run_exec(sandbox_id)

    async def _exec(self, sandbox_id: str, exec_id: str) -> ExecRecord | None:
        """The exec that is named, or the newest that has a lock."""
        if exec_id:
            return await self._named(sandbox_id, exec_id)
        await self._check_sandbox(sandbox_id)
        return await self._store.newest_locked_exec(sandbox_id)

    async def _named(self, sandbox_id: str, exec_id: str) -> ExecRecord:
        await self._check_sandbox(sandbox_id)
        record = await self._store.exec(sandbox_id, exec_id)
        if record is None:
            raise checks.no_such_exec(sandbox_id, exec_id)
        return record

    async def _check_sandbox(self, sandbox_id: str) -> None:
        checks.check_sandbox_id(sandbox_id)
        if await self._store.sandbox(sandbox_id) is None:
            raise checks.no_such_sandbox(sandbox_id)


def _no_lock(sandbox_id: str) -> QilaError:
    return not_found("NO_LOCK", "nothing was installed for it, so there is no lock", sandbox_id=sandbox_id)


def _program(record: ExecRecord) -> str:
    """What it ran, as a person would type it."""
    request = pb.ExecRequest.FromString(record.request)
    if request.HasField("command"):
        return shlex.join(request.command.argv)
    plan = resolver.Plan.FromString(record.plan)
    return shlex.join([*plan.launch.argv, *request.program.args])


def _change(change: resolver.PackageChange) -> pb.PackageChange:
    return pb.PackageChange(
        before=_package(change.before) if change.HasField("before") else None,
        after=_package(change.after) if change.HasField("after") else None,
    )


def _package(package: resolver.LockedPackage) -> pb.LockedPackage:
    return pb.LockedPackage(
        purl=package.purl,
        name=package.name,
        version=package.version,
        hashes=package.hashes,
        license=package.license,
        license_text=package.license_text,
        direct=package.direct,
        required_by=package.required_by,
    )
