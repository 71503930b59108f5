"""The INSTALL phase: one install per sandbox at a time, which any number of execs may share."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog
from google.protobuf.duration_pb2 import Duration

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.convert import InstallFailedError, SandboxLostError
from services.gateway.egress import explained
from services.gateway.explaining import StepExplainer
from services.gateway.install_ends import as_outcome, judge, timed_out
from services.gateway.links import switch
from services.gateway.live import LiveExec
from services.gateway.patience import patiently
from services.gateway.ports import ExecutorPort, ResolverPort
from services.gateway.resolver_client import chunked
from services.gateway.stepping import run_to_end
from services.gateway.store.port import EnvironmentRecord, Store
from services.rpc.errors import ErrorCode, QilaError

_LOG: Final = structlog.get_logger("services.gateway")
_STEP_OUTPUT_BYTES: Final = 4 << 20
_INVENTORY_BYTES: Final = 64 << 20
_INVENTORY_SECONDS: Final = 120
_NATIVE_LOCK_BYTES: Final = 16 << 20
# Of what the steps of a preliminary plan leave: it goes to the resolver in one message.
_ANSWER_BYTES: Final = 512 << 10
_AFTERWORK_SECONDS: Final = 180.0
_KEPT_BEYOND_CURRENT: Final = 2


@dataclass(frozen=True, kw_only=True)
class InstallPorts:
    """What an install works with. `in_use` names the fingerprints that running execs of a sandbox started with."""

    executor: ExecutorPort
    resolver: ResolverPort
    store: Store
    patience: float
    in_use: Callable[[str], Collection[str]]


class Install:
    """One install. It runs as long as one exec wants it; what it says goes to each of them, from the beginning."""

    def __init__(
        self,
        ports: InstallPorts,
        leader: LiveExec,
        plan: resolver.Plan,
        summary: executor.SurveySummary,
        compiling: set[asyncio.Task[None]],
        *,
        leads: bool,
    ) -> None:
        self._ports = ports
        self._plan = plan
        self._summary = summary
        self._compiling = compiling
        self._sandbox_id = leader.sandbox_id
        self._exec_id = leader.exec_id
        # Of an exec that installs several projects, or asks something first, each install has processes of its own.
        several = bool(plan.project) or plan.preliminary
        self._suffix = leader.suffix + (f"-{plan.fingerprint[:8]}" if several else "")
        self._leads = leads
        self._deadline = time.monotonic() + leader.request.install_timeout.ToTimedelta().total_seconds()
        self._stage = f".qila/stage/{self._exec_id}"
        self._environment = f".qila/env/{plan.ecosystem}/{plan.fingerprint}"
        self._participants: set[LiveExec] = set()
        self._history: list[pb.ExecEvent] = []
        self._abandoned = False
        self._egress_before = 0
        self.key = (plan.ecosystem, plan.fingerprint)
        self.task = asyncio.create_task(self._run())

    def join(self, live: LiveExec) -> None:
        """Gives the exec all that was said, and from now on what is said."""
        for event in self._history:
            live.add_install_event(event)
        self._participants.add(live)

    async def leave(self, live: LiveExec) -> None:
        """The exec wants it no more; when nobody does, it is stopped and what it began is removed."""
        self._participants.discard(live)
        if not self._participants and not self.task.done():
            self._abandoned = True
            self.task.cancel()
            await asyncio.wait([self.task])

    def _emit(self, event: pb.ExecEvent) -> None:
        self._history.append(event)
        for live in self._participants:
            live.add_install_event(event)

    async def _run(self) -> None:
        limit = max(self._deadline - time.monotonic(), 0) + _AFTERWORK_SECONDS
        try:
            async with asyncio.timeout(limit):
                await self._install()
        except asyncio.CancelledError:
            # A gateway that stops leaves all as it is: the next one takes the exec up again.
            if self._abandoned:
                await self._clean_up()
            raise
        except TimeoutError:
            await self._clean_up()
            raise timed_out() from None
        except QilaError as error:
            outcome = as_outcome(error)
            await self._clean_up()
            raise outcome from error
        except InstallFailedError as error:
            # Closing the phase, which this begins with, brings every decision of the doors into the record.
            await self._clean_up()
            raise await self._explained(error) from error
        except SandboxLostError:
            await self._clean_up()
            raise

    async def _install(self) -> None:
        await self._set_phase(open_=False)
        for path in (self._environment, self._stage):
            await self._remove(path)
        self._egress_before = await self._set_phase(open_=True)
        for file in self._plan.staged:
            await self._write(f"{self._stage}/{file.path}", file.content)
        for number, step in enumerate(self._plan.steps, start=1):
            await self._step(number, step)
        # A build script is a stranger's code: nothing of it may live while its work is read and verified.
        await self._set_phase(open_=False)
        if self._plan.preliminary:
            await self._keep_answer()
            return
        native_lock = await self._native_lock()
        rendered = await self._render_lock(native_lock)
        await self._complete(native_lock, rendered)

    async def _step(self, number: int, step: resolver.InstallStep) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise timed_out()
        spec = executor.ProcessSpec(
            argv=step.argv,
            # What an installer keeps, and what a build script leaves at home, is gone with the stage: the next install,
            # whose files are to be the registry's, finds none of it.
            env={**step.env, "HOME": f"/sandbox/{self._stage}"},
            working_directory=f"/sandbox/{self._stage}",
            user=executor.USER_INSTALL,
            output_limit_bytes=_STEP_OUTPUT_BYTES,
        )
        spec.timeout.CopyFrom(_duration(left))
        explainer = StepExplainer(self._ports.resolver, self._plan, step.kind, self._emit)

        def take(output: executor.Output) -> None:
            self._emit(pb.ExecEvent(output=pb.Output(stream=pb.Stream.ValueType(output.stream), data=output.data)))
            explainer.feed(output)

        following = asyncio.create_task(explainer.follow())
        try:
            ended = await self._process(f"install-{number}", spec, take, installs=True)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await explainer.explain()
        await judge(ended, explainer)

    async def _process(
        self,
        name: str,
        spec: executor.ProcessSpec,
        take: Callable[[executor.Output], None],
        *,
        installs: bool = False,
    ) -> executor.ProcessEnded:
        process_id = f"{self._exec_id}.{name}{self._suffix}"
        request = executor.RunProcessRequest(sandbox_id=self._sandbox_id, process_id=process_id, spec=spec)

        async def reconnect() -> None:
            if installs:
                # An executor that was restarted may have closed it.
                await self._ports.executor.set_install_phase(self._sandbox_id, open_=True)

        try:
            return await run_to_end(
                self._ports.executor, request, take, patience=self._ports.patience, reconnect=reconnect
            )
        except asyncio.CancelledError:
            if self._abandoned:
                await self._cancel_process(process_id)
            raise

    async def _native_lock(self) -> bytes:
        """What decided the install, from the plan itself where no step has changed it."""
        name = self._plan.native_lock_name
        if self._plan.native_lock_staged:
            return next(file.content for file in self._plan.staged if file.path == name)
        return await self._read_left(name, _NATIVE_LOCK_BYTES)

    async def _keep_answer(self) -> None:
        """What the steps left is for the next plan: nothing is installed."""
        content = await self._read_left(self._plan.native_lock_name, _ANSWER_BYTES)
        await self._ports.store.save_answer(self._sandbox_id, *self.key, content)
        await self._remove(self._stage)

    async def _read_left(self, name: str, limit: int) -> bytes:
        request = executor.ReadFilesRequest(
            sandbox_id=self._sandbox_id,
            paths=[f"{self._stage}/{name}"],
            max_file_bytes=limit,
            user=executor.USER_INSTALL,
        )

        async def read() -> bytes:
            content = b""
            async with aclosing(self._ports.executor.read_files(request)) as responses:
                async for response in responses:
                    if response.HasField("error"):
                        detail = f"the install left no readable {name}: {response.error.message}"
                        raise InstallFailedError(pb.INSTALL_FAILURE_REASON_BUILD_FAILED, detail)
                    content += response.chunk
            return content

        return await patiently(read, self._ports.patience)

    async def _render_lock(self, native_lock: bytes) -> resolver.RenderLockResponse:
        spec = executor.ProcessSpec(
            argv=self._plan.inventory_argv,
            # Programs may run meanwhile, and one with its user's rights could write its output.
            user=executor.USER_INSTALL,
            output_limit_bytes=_INVENTORY_BYTES,
            end_at_output_limit=True,
        )
        spec.timeout.CopyFrom(_duration(_INVENTORY_SECONDS))
        inventory, complaint = bytearray(), bytearray()

        def take(output: executor.Output) -> None:
            (inventory if output.stream == executor.STREAM_STDOUT else complaint).extend(output.data)

        ended = await self._process("inventory", spec, take)
        if ended.WhichOneof("end") != "exited" or ended.exited:
            if ended.WhichOneof("end") == "sandbox_lost":
                raise SandboxLostError(ended.sandbox_lost.detail)
            words = bytes(complaint[-4096:]).decode(errors="replace")
            detail = f"the inventory of what was installed could not be taken: {words}"
            raise InstallFailedError(pb.INSTALL_FAILURE_REASON_BUILD_FAILED, detail)
        header = resolver.RenderLockHeader(
            ecosystem=self._plan.ecosystem,
            toolchains=self._summary.toolchains,
            requirements=self._plan.requirements,
            registry_urls=self._summary.registry_urls,
        )
        content = bytes(inventory)
        try:
            return await patiently(
                lambda: self._ports.resolver.render_lock(header, native_lock, content), self._ports.patience
            )
        except QilaError as error:
            if error.code is ErrorCode.UNAVAILABLE:
                raise
            # What the resolver cannot work with is what the install left: the sandbox is as sound as before.
            raise InstallFailedError(pb.INSTALL_FAILURE_REASON_BUILD_FAILED, error.message) from error

    async def _complete(self, native_lock: bytes, rendered: resolver.RenderLockResponse) -> None:
        plan = self._plan
        await self._write(f"{self._environment}/{plan.native_lock_name}", native_lock)
        await self._write(f"{self._environment}/qila.lock.json", rendered.lock)
        marker = {"ecosystem": plan.ecosystem, "fingerprint": plan.fingerprint}
        await self._write(f"{self._environment}/.complete", json.dumps(marker, sort_keys=True).encode() + b"\n")
        now = time.time_ns()
        await self._ports.store.save_environment(
            EnvironmentRecord(
                sandbox_id=self._sandbox_id,
                ecosystem=plan.ecosystem,
                fingerprint=plan.fingerprint,
                lock=rendered.lock,
                native_lock=rendered.native_lock or native_lock,
                native_lock_name=plan.native_lock_name,
                create_time_ns=now,
                switch_time_ns=now if self._leads else 0,
            )
        )
        if self._leads:
            own = self._summary.own_directories
            await switch(self._ports.executor, self._sandbox_id, plan, own, patience=self._ports.patience)
        await self._remove(self._stage)
        await self._collect()
        self._compile()

    async def _collect(self) -> None:
        """Removes environments beyond each ecosystem's current one, those in use, and the last two."""
        records = await self._ports.store.present_environments(self._sandbox_id)
        current = await self._ports.store.current_locks(self._sandbox_id)
        kept = {(name, lock.fingerprint) for name, lock in current.items() if name != self._plan.ecosystem}
        kept.add(self.key)
        others = [record for record in records if (record.ecosystem, record.fingerprint) not in kept]
        in_use = self._ports.in_use(self._sandbox_id)
        for record in others[_KEPT_BEYOND_CURRENT:]:
            if record.fingerprint not in in_use:
                # First the record: a marker without one is void, so that a half-removed environment is never used.
                await self._ports.store.mark_collected(self._sandbox_id, record.ecosystem, record.fingerprint)
                await self._remove(f".qila/env/{record.ecosystem}/{record.fingerprint}")

    def _compile(self) -> None:
        if self._plan.compile_argv:
            task = asyncio.create_task(self._start_compiling())
            self._compiling.add(task)
            task.add_done_callback(self._compiling.discard)

    async def _start_compiling(self) -> None:
        request = executor.RunProcessRequest(
            sandbox_id=self._sandbox_id,
            process_id=f"{self._exec_id}.compile{self._suffix}",
            spec=executor.ProcessSpec(argv=self._plan.compile_argv, user=executor.USER_INSTALL, background=True),
        )
        try:
            async with aclosing(self._ports.executor.run_process(request)) as events:
                # Once it has started, it needs no watcher.
                await anext(events)
        except (QilaError, StopAsyncIteration) as error:
            _LOG.warning("compile_not_started", sandbox_id=self._sandbox_id, error=str(error))

    async def _clean_up(self) -> None:
        """Nothing half-installed remains; what cannot be removed now is removed before the next try."""
        try:
            await self._set_phase(open_=False)
            for path in (self._environment, self._stage):
                await self._remove(path)
        except QilaError as error:
            _LOG.warning("install_not_cleaned_up", sandbox_id=self._sandbox_id, error=str(error))

    async def _cancel_process(self, process_id: str) -> None:
        try:
            await self._ports.executor.cancel_process(self._sandbox_id, process_id)
        except QilaError as error:
            # Closing the phase, which follows, kills it too.
            _LOG.info("install_process_not_cancelled", process_id=process_id, error=str(error))

    async def _explained(self, failure: InstallFailedError) -> InstallFailedError:
        return await explained(
            self._ports.executor,
            self._sandbox_id,
            self._exec_id,
            after=self._egress_before,
            failure=failure,
            patience=self._ports.patience,
        )

    async def _set_phase(self, *, open_: bool) -> int:
        return await patiently(
            lambda: self._ports.executor.set_install_phase(self._sandbox_id, open_=open_), self._ports.patience
        )

    async def _write(self, path: str, content: bytes) -> None:
        header = executor.WriteFileHeader(sandbox_id=self._sandbox_id, path=path, user=executor.USER_INSTALL)

        async def chunks() -> AsyncIterator[bytes]:
            for chunk in chunked(content):
                yield chunk

        await patiently(lambda: self._ports.executor.write_file(header, chunks()), self._ports.patience)

    async def _remove(self, path: str) -> None:
        async def remove() -> None:
            try:
                await self._ports.executor.remove_file(self._sandbox_id, path, executor.USER_INSTALL)
            except QilaError as error:
                if error.code is not ErrorCode.NOT_FOUND:
                    raise

        await patiently(remove, self._ports.patience)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
