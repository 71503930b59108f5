"""Conducts execs: admits them, takes them through their phases, and records how they end.

An exec lives in a task of its own, apart from those who watch it. Whatever it does may be repeated: after a restart of
the gateway each exec that had not ended is taken up again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import structlog
from google.protobuf.duration_pb2 import Duration
from google.rpc import status_pb2
from sqlalchemy.exc import SQLAlchemyError

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.board import InstallBoard
from services.gateway.config import ConductorConfig
from services.gateway.convert import digest_of, phase_started
from services.gateway.importable import CurrentLocks, Importable
from services.gateway.installing import InstallPorts
from services.gateway.journal import now, stamped, stored
from services.gateway.live import LiveExec, process_id_of
from services.gateway.ports import ExecutorPort, ResolverPort
from services.gateway.running import Runner
from services.gateway.store.port import ExecRecord, SandboxMissingError, Store
from services.rpc.errors import ErrorCode, QilaError, already_exists, resource_exhausted, to_status, unavailable
from services.rpc.log import write_later

_LOG: Final = structlog.get_logger("services.gateway")
_RECOVERY_PAUSE_SECONDS: Final = 0.5
_PAGE_EVENTS: Final = 1000
# By then the end has left for its watchers, whom to record it would hold up.
_TELLING_SECONDS: Final = 0.002


class Conductor:
    """Every exec of this gateway that has not ended."""

    def __init__(
        self, *, executor_port: ExecutorPort, resolver_port: ResolverPort, store: Store, config: ConductorConfig
    ) -> None:
        self._executor = executor_port
        self._store = store
        self._config = config
        self._current = CurrentLocks(store)
        self._live: dict[tuple[str, str], LiveExec] = {}
        # Sandboxes that were on record: so nobody has to look, and what was removed meanwhile is refused all the same.
        self._present: set[str] = set()
        self._ports = InstallPorts(
            executor=executor_port,
            resolver=resolver_port,
            store=store,
            patience=config.patience,
            in_use=self._fingerprints_in_use,
        )
        self._board = InstallBoard(self._ports)
        self._runner = Runner(self._ports, self._board, self._current, config)

    async def start(self, request: pb.ExecRequest) -> LiveExec:
        """Starts an exec, or joins the one that has its id. When it returns, the exec is on record.

        Raises:
            QilaError: INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, RESOURCE_EXHAUSTED, as the proto says.
        """
        checks.check_exec_request(request)
        key = (request.sandbox_id, request.exec_id or checks.mint_exec_id())
        if key not in self._live and self._is_full(request.sandbox_id):
            existing = await self._store.exec(*key) if request.exec_id else None
            if existing is None:
                raise self._too_many(request.sandbox_id)
        # No await between this look and the entry: two calls with one id must find each other.
        live = self._live.get(key)
        if live is None:
            live = await self._admit(key, request)
        else:
            await live.admitted.wait()
            if live.refusal is not None:
                raise live.refusal
        if live.journal.record.digest != digest_of(request):
            message = f"{key[1]} stands for another request; choose another id"
            raise already_exists("EXEC_EXISTS", message, exec_id=key[1])
        return live

    async def find(self, sandbox_id: str, exec_id: str) -> LiveExec:
        """The exec, running or ended. NOT_FOUND if there is none."""
        checks.check_sandbox_id(sandbox_id)
        live = self._live.get((sandbox_id, exec_id))
        if live is not None:
            await live.admitted.wait()
            if live.refusal is None:
                return live
        record = await self._store.exec(sandbox_id, exec_id)
        if record is None:
            if await self._store.sandbox(sandbox_id) is None:
                raise checks.no_such_sandbox(sandbox_id)
            raise checks.no_such_exec(sandbox_id, exec_id)
        return self._ended(record)

    async def cancel(self, sandbox_id: str, exec_id: str) -> None:
        """Cancels in whatever phase the exec is; of one that has ended, the children that live on."""
        live = await self.find(sandbox_id, exec_id)
        if live.journal.ended:
            await self._cancel_children(live)
            return
        live.cancel_requested = True
        if live.preparing is not None and live.task is not None:
            live.preparing.cancel()
            # What a client was told must survive this process.
            await asyncio.wait([live.task])
        elif live.run in live.started:
            await self._executor.cancel_process(sandbox_id, live.process_id)
            if live.request.install_missing and live.task is not None:
                # Its process may have ended by itself: a further run must not begin, whatever happens here.
                await asyncio.wait([live.task])

    async def _cancel_children(self, live: LiveExec) -> None:
        """Kills what outlived the processes of an exec that has ended."""
        for run in range(live.run + 1):
            try:
                await self._executor.cancel_process(live.sandbox_id, process_id_of(live.exec_id, run))
            except QilaError as error:
                # It never started, or ended so long ago that the executor has forgotten it.
                if error.code is not ErrorCode.NOT_FOUND:
                    raise

    async def forget_sandbox(self, sandbox_id: str) -> None:
        """Ends the execs of a sandbox that was removed."""
        self._current.forget(sandbox_id)
        self._present.discard(sandbox_id)
        execs = [live for key, live in self._live.items() if key[0] == sandbox_id and live.task is not None]
        for live in execs:
            assert live.task is not None
            live.task.cancel()
            await asyncio.wait([live.task])
            if not live.journal.ended:
                await self._finish(live, pb.ExecEnded(sandbox_lost=pb.SandboxLost(detail="the sandbox was removed")))

    def ended(self, sandbox_id: str) -> Mapping[str, ExecRecord]:
        """The execs whose end is told, and may not be recorded yet."""
        here = [live for key, live in self._live.items() if key[0] == sandbox_id]
        return {live.exec_id: live.journal.record for live in here if live.journal.ended}

    async def adopt(self) -> None:
        """Takes the execs that an earlier process of the gateway left; from now on they can be watched."""
        for record in await self._store.unended_execs():
            live = LiveExec(self._store, replace(record, attempt=record.attempt + 1))
            live.ring.forgo()
            await self._recount(live)
            await self._store.save_exec(live.journal.record, [])
            live.admitted.set()
            self._live[record.sandbox_id, record.exec_id] = live

    async def recover(self) -> None:
        """Goes on with the adopted execs, as soon as the executor answers."""
        adopted = [live for live in self._live.values() if live.recovered]
        if not adopted:
            return
        existing = await self._sandboxes_there()
        for live in adopted:
            _LOG.info("exec_taken_up_again", sandbox_id=live.sandbox_id, exec_id=live.exec_id)
            if live.sandbox_id in existing:
                live.task = asyncio.create_task(self._conduct(live))
            else:
                lost = pb.SandboxLost(detail="the sandbox was gone when the gateway started again")
                await self._finish(live, pb.ExecEnded(sandbox_lost=lost))

    async def close(self) -> None:
        """Stops conducting. Nothing that runs in a sandbox is touched; the next gateway goes on."""
        execs = list(self._live.values())
        tasks = [live.task for live in execs if live.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._board.close()
        for live in execs:
            try:
                await live.journal.settle()
            except SQLAlchemyError:
                # The next gateway takes it up again, and learns it anew.
                _LOG.exception("end_not_recorded", exec_id=live.exec_id)

    # Admission

    async def _admit(self, key: tuple[str, str], request: pb.ExecRequest) -> LiveExec:
        sandbox_id, exec_id = key
        phase = pb.PHASE_RESOLVE if request.HasField("program") else pb.PHASE_RUN
        record = ExecRecord(
            sandbox_id=sandbox_id,
            exec_id=exec_id,
            request=self._completed(request).SerializeToString(),
            digest="",
            create_time_ns=time.time_ns(),
            phase=phase,
            last_sequence=2,
        )
        live = LiveExec(self._store, record)
        self._live[key] = live
        try:
            if phase == pb.PHASE_RUN:
                await self._order(live, id_is_chosen=bool(request.exec_id))
            existing = await self._begin_record(live, request)
        except BaseException as error:
            del self._live[key]
            live.refusal = _refusal_of(error, sandbox_id)
            live.admitted.set()
            await self._withdraw(live)
            if isinstance(error, SandboxMissingError | SQLAlchemyError):
                raise live.refusal from error
            raise
        if existing is not None:
            del self._live[key]
            live = self._ended(existing)
        elif live.task is None:
            live.task = asyncio.create_task(self._conduct(live))
        self._present.add(sandbox_id)
        live.admitted.set()
        return live

    async def _begin_record(self, live: LiveExec, request: pb.ExecRequest) -> ExecRecord | None:
        """Records an exec with its first events; gives the one that has its id already, if any."""
        phase = pb.Phase.ValueType(live.journal.record.phase)
        created = pb.ExecEvent(created=pb.ExecCreated(sandbox_id=live.sandbox_id, exec_id=live.exec_id))
        events = (stamped(created, 1), stamped(phase_started(phase), 2))
        importable = await self._of_command(live.sandbox_id) if phase == pb.PHASE_RUN else ""
        live.journal.begin(events, digest=digest_of(request), importable=importable)
        first = [stored(event) for event in events]
        existing = await self._store.add_exec(live.journal.record, first)
        if existing is not None and existing.digest == live.journal.record.digest and _may_be_repeated(existing):
            # Later than what an earlier attempt may have left in the sandbox.
            live.journal.record = replace(live.journal.record, attempt=existing.attempt + 1)
            await self._store.remove_exec(live.sandbox_id, live.exec_id)
            existing = await self._store.add_exec(live.journal.record, first)
        return existing

    async def _order(self, live: LiveExec, *, id_is_chosen: bool) -> None:
        """Has a command begin, unless its id is taken: it starts while it is recorded here.

        Nobody hears of it before it is. If this process dies in between, its id, if the client chose it, leads to what
        was begun: the executor joins the same command under the same id.
        """
        is_new = live.sandbox_id in self._present and not id_is_chosen
        if is_new or await self._store.has_room_for(live.sandbox_id, live.exec_id):
            live.task = asyncio.create_task(self._conduct(live))
            # In this turn of the loop the order goes out.
            await asyncio.sleep(0)

    async def _withdraw(self, live: LiveExec) -> None:
        """Takes back what was begun and could not be recorded."""
        if live.task is None:
            return
        live.task.cancel()
        await asyncio.wait([live.task])
        try:
            await self._executor.cancel_process(live.sandbox_id, live.process_id)
        except QilaError as error:
            _LOG.warning("exec_not_withdrawn", sandbox_id=live.sandbox_id, exec_id=live.exec_id, error=str(error))

    async def _of_command(self, sandbox_id: str) -> str:
        """What a command can import: each ecosystem's current environment. Nobody looks into the workspace for it."""
        locks = await self._current.of(sandbox_id)
        digests = tuple(lock.digest for _, lock in sorted(locks.items()))
        return Importable(locks=digests, unmanaged_unknown=True).to_text()

    def _completed(self, request: pb.ExecRequest) -> pb.ExecRequest:
        """With the installation's defaults, so that they stay what they were for this exec."""
        completed = pb.ExecRequest()
        completed.CopyFrom(request)
        for field, seconds in (
            ("run_timeout", self._config.run_timeout),
            ("install_timeout", self._config.install_timeout),
        ):
            if getattr(completed, field) == Duration():
                getattr(completed, field).FromNanoseconds(int(seconds * 1e9))
        completed.output_limit_bytes = completed.output_limit_bytes or self._config.output_limit_bytes
        return completed

    def _is_full(self, sandbox_id: str) -> bool:
        running = sum(key[0] == sandbox_id and not live.journal.ended for key, live in self._live.items())
        return running >= self._config.execs_per_sandbox

    def _too_many(self, sandbox_id: str) -> QilaError:
        limit = self._config.execs_per_sandbox
        message = f"{limit} execs run in sandbox {sandbox_id}; wait for one to end, or cancel one"
        return resource_exhausted("TOO_MANY_EXECS", message, sandbox_id=sandbox_id, limit=str(limit))

    def _ended(self, record: ExecRecord) -> LiveExec:
        live = LiveExec(self._store, record)
        live.ring.forgo()
        live.ring.close()
        live.admitted.set()
        return live

    def _fingerprints_in_use(self, sandbox_id: str) -> set[str]:
        here = [live for key, live in self._live.items() if key[0] == sandbox_id]
        return {live.journal.record.fingerprint for live in here}.union(*(live.environments for live in here))

    async def _sandboxes_there(self) -> set[str]:
        while True:
            try:
                return {sandbox.id for sandbox in await self._executor.list_sandboxes()}
            except QilaError as error:
                _LOG.warning("recovery_waits_for_executor", error=str(error))
            await asyncio.sleep(_RECOVERY_PAUSE_SECONDS)

    async def _recount(self, live: LiveExec) -> None:
        sequence = 0
        while page := await self._store.events(live.sandbox_id, live.exec_id, sequence, _PAGE_EVENTS):
            for item in page:
                live.recount(pb.ExecEvent.FromString(item.payload))
            sequence = page[-1].sequence

    # Phases

    async def _conduct(self, live: LiveExec) -> None:
        structlog.contextvars.bind_contextvars(sandbox_id=live.sandbox_id, exec_id=live.exec_id)
        try:
            end = await self._runner.outcome(live)
        except Exception:  # noqa: BLE001  # a task that nobody awaits: whatever it is, the exec must end
            _LOG.exception("exec_crashed")
            end = pb.ExecEnded(sandbox_lost=pb.SandboxLost(detail="a fault in Qila; its log tells more"))
        await self._finish(live, end)

    async def _finish(self, live: LiveExec, end: pb.ExecEnded) -> None:
        """Records the end; one that the executor keeps is told meanwhile, any other only then."""
        live.ring.close()
        await live.admitted.wait()
        failure = b"" if live.failure is None else to_status(live.failure).SerializeToString()
        changes = {"end_time_ns": now().ToNanoseconds(), "ended": end.SerializeToString(), "failure": failure}
        event = pb.ExecEvent(ended=end)
        try:
            if live.end_is_kept:
                await live.journal.show(event, **changes)
                await asyncio.sleep(_TELLING_SECONDS)
                await self._record(live)
            else:
                await self._record(live, event, **changes)
        finally:
            if live.journal.ended:
                self._live.pop((live.sandbox_id, live.exec_id), None)
        write_later(
            _LOG.info, "exec_ended", end=end.WhichOneof("end"), exec_id=live.exec_id, sandbox_id=live.sandbox_id
        )

    async def _record(self, live: LiveExec, *events: pb.ExecEvent, **changes: Any) -> None:
        while True:
            try:
                return await live.journal.flush(*events, **changes)
            except SQLAlchemyError:
                # A full disk, say: it stays pending until it can be kept.
                _LOG.exception("end_not_recorded", exec_id=live.exec_id)
                events = ()
            await asyncio.sleep(_RECOVERY_PAUSE_SECONDS)


def _refusal_of(error: BaseException, sandbox_id: str) -> QilaError:
    """What those are told whose exec is not on record."""
    if isinstance(error, SandboxMissingError):
        return checks.no_such_sandbox(sandbox_id)
    _LOG.error("exec_not_recorded", sandbox_id=sandbox_id, error=repr(error)[:500])
    message = "the exec could not be recorded, and was taken back; repeat the call, with another exec id"
    return unavailable("EXEC_NOT_RECORDED", message)


def _may_be_repeated(record: ExecRecord) -> bool:
    """Whether its caller was told to repeat the call, because a service did not answer."""
    status = status_pb2.Status.FromString(record.failure)
    return bool(status.code == ErrorCode.UNAVAILABLE.value)
