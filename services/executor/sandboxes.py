"""Sandboxes: made, started when they are needed, adopted after a restart, stopped when idle, removed."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from services.executor.agent.agent import Agent, bind_listener
from services.executor.agent.frames import count_field
from services.executor.audit import Audit
from services.executor.egress.door_process import DoorControl, DoorsUnavailable, UnknownSandbox
from services.executor.egress.policy import DEFAULT, Ceiling, EgressPolicy
from services.executor.errors import (
    AgentUnavailableError,
    DoorsError,
    EngineError,
    ExecutorError,
    HostNotAllowedError,
    ImageMissingError,
    LimitError,
    SandboxNotFoundError,
)
from services.executor.ids import mint_sandbox_id
from services.executor.images import Image, Images
from services.executor.limit_variables import limit_variables
from services.executor.processes import ProcessTable
from services.executor.profile import Limits
from services.executor.runtime.port import Runtime, SandboxSpec, SandboxStatus
from services.executor.sandbox_record import SandboxRecord, read_record, write_record
from services.executor.space import UNWATCHED, HostSpace
from services.executor.trust import TrustStore

CONNECT_TIMEOUT_S = 20
# sandboxd dials again after half a second at most; who is silent for longer is stuck.
RECONNECT_TIMEOUT_S = 10
IDLE_LOOK_S = 15

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where and how sandboxes live. Times in seconds."""

    images: Images
    state_directory: Path
    run_directory: Path
    max_sandboxes: int
    idle_stop_s: float
    ceiling: Ceiling
    # Digest of the operator's package policy; empty if there is none.
    package_policy: str
    # From a door's address inside a sandbox to the public registry's.
    registry_urls: Mapping[str, str] = field(default_factory=dict)


class Sandbox:
    """One sandbox: its record, its agent and its processes."""

    def __init__(self, record: SandboxRecord, owner: Sandboxes, settings: Settings) -> None:
        self.record = record
        self.directory = settings.state_directory / "sandboxes" / record.id
        self.socket_directory = settings.run_directory / "sb" / record.id
        self.lock = asyncio.Lock()
        self.running = False
        self.removed = False
        self.users = 0
        # They are no use of it.
        self.watches = 0
        self.last_use = time.monotonic()
        self.processes = ProcessTable(
            record.id,
            self.directory / "processes",
            environment=limit_variables(record.limits),
            send=self.send,
            kill_container=lambda why: owner.condemn(self, why),
            on_disconnect=lambda: owner.disconnected(self),
        )
        self.agent = Agent(record.id, self.processes)

    def send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Sends a frame to the agent. AgentUnavailableError."""
        self.agent.send(header, payload)

    def touch(self) -> None:
        """It is in use."""
        self.last_use = time.monotonic()


class Sandboxes:
    """All sandboxes of this installation."""

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        doors: DoorControl,
        *,
        audit: Audit,
        trust: TrustStore,
        space: HostSpace = UNWATCHED,
    ) -> None:
        """`space` is what new work needs; by default nobody looks."""
        self._settings = settings
        self._runtime = runtime
        self._doors = doors
        self.audit = audit
        self._trust = trust
        self.space = space
        self._sandboxes: dict[str, Sandbox] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._creating = 0

    @property
    def settings(self) -> Settings:
        """Where and how sandboxes live."""
        return self._settings

    async def adopt(self) -> None:
        """Compares what should be with what is: adopts the living, removes unrecorded containers of this installation,
        and reports unrecorded volumes, which it never removes by itself.
        """  # noqa: D205 - one sentence
        statuses = {status.sandbox_id: status for status in await self._runtime.list()}
        root = self._settings.state_directory / "sandboxes"
        root.mkdir(parents=True, exist_ok=True)
        for path in sorted(root.iterdir()):
            record = read_record(path)
            status = statuses.get(path.name)
            if record is None or status is None or not status.has_volume:
                log.warning("a sandbox without a workspace is forgotten", sandbox_id=path.name)
                shutil.rmtree(path)
                continue
            await self._adopt(record, status)
        for status in statuses.values():
            if status.sandbox_id in self._sandboxes:
                continue
            if status.has_container:
                await self._runtime.remove_container(status.sandbox_id)
                log.warning("an unrecorded container was removed", sandbox_id=status.sandbox_id)
            if status.has_volume:
                log.warning("an unrecorded volume was found and left alone", sandbox_id=status.sandbox_id)
        await self._runtime.tidy()

    async def create(self, limits: Limits, egress: EgressPolicy = DEFAULT, image_name: str = "") -> Sandbox:
        """Makes a sandbox from the image of that name, by default the installation's own, and starts it.

        HostNotAllowedError, ImageUnknownError, LimitError, DiskLowError, EngineError, WorkspaceError,
        ImageMissingError, AgentUnavailableError.
        """
        image = self._settings.images.find(image_name)
        self._check_hosts(egress)
        self.space.check()
        if len(self._sandboxes) + self._creating >= self._settings.max_sandboxes:
            raise LimitError("sandboxes of this installation", self._settings.max_sandboxes)
        self._creating += 1
        try:
            return await self._create(limits, egress, image)
        finally:
            self._creating -= 1

    def find(self, sandbox_id: str) -> Sandbox:
        """SandboxNotFoundError if there is none."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise SandboxNotFoundError(sandbox_id)
        return sandbox

    def list(self) -> Sequence[Sandbox]:
        """All, oldest first."""
        return sorted(self._sandboxes.values(), key=lambda sandbox: sandbox.record.create_time)

    async def ready(self, sandbox_id: str) -> Sandbox:
        """The sandbox with its container running and its agent connected."""
        sandbox = self.find(sandbox_id)
        sandbox.touch()
        # Who holds the lock may be about to stop it.
        if sandbox.agent.is_connected and not sandbox.lock.locked():
            return sandbox
        async with sandbox.lock:
            self.find(sandbox_id)
            if not sandbox.agent.is_connected:
                await self._start(sandbox)
        return sandbox

    async def remove(self, sandbox_id: str) -> None:
        """Removes a sandbox with all that it has; OK if there is none."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        async with sandbox.lock:
            if self._sandboxes.get(sandbox_id) is not sandbox:
                return
            await self._remove(sandbox)

    async def set_install_phase(self, sandbox: Sandbox, *, install: bool) -> int:
        """Opens or closes the install phase; closing returns how many processes of the install user were killed.

        FileCallError if what the installer owns cannot be closed to programs.
        """
        killed = 0
        if not install:
            async with sandbox.agent.call("kill_user", user="install") as call:
                killed = count_field(await call.result(), "killed")
            # Afterwards only: what is alive could open it again.
            async with sandbox.agent.call("seal", user="install") as call:
                await call.result()
        with _doors_errors():
            await self._doors.set_install_phase(sandbox.record.id, install)
        return killed

    def egress_of(self, sandbox: Sandbox) -> EgressPolicy:
        """The egress policy in force."""
        return self._settings.ceiling.narrow(sandbox.record.egress)

    async def set_egress(self, sandbox_id: str, egress: EgressPolicy) -> EgressPolicy:
        """Replaces a sandbox's egress policy and returns the one in force. SandboxNotFoundError, HostNotAllowedError;
        DoorsError: it is on record, and holds when the doors are back.
        """  # noqa: D205 - one sentence
        sandbox = self.find(sandbox_id)
        self._check_hosts(egress)
        # Nobody opens the doors meanwhile with what the record was before.
        async with sandbox.lock:
            self.find(sandbox_id)
            record = replace(sandbox.record, egress=egress)
            write_record(sandbox.directory, record)
            sandbox.record = record
            with _doors_errors():
                await self._doors.set_policy(sandbox_id, self.egress_of(sandbox))
        log.info("egress policy set", sandbox_id=sandbox_id, **egress.to_message())
        return self.egress_of(sandbox)

    def disconnected(self, sandbox: Sandbox) -> None:
        """The agent's connection is gone: it comes back, or the container is found dead or stuck."""
        if self._sandboxes.get(sandbox.record.id) is sandbox:
            self._spawn(self._await_return(sandbox))

    def condemn(self, sandbox: Sandbox, why: str) -> None:
        """Kills a container that does not do what it is told."""
        log.error("a container is killed", sandbox_id=sandbox.record.id, why=why)
        self._spawn(self._kill(sandbox, why))

    async def stop_idle_forever(self) -> None:
        """Stops the containers of sandboxes that nobody uses; their workspaces stay."""
        while True:
            await asyncio.sleep(IDLE_LOOK_S)
            for sandbox in list(self._sandboxes.values()):
                try:
                    await self._stop_if_idle(sandbox)
                except ExecutorError as error:
                    log.warning("an idle sandbox could not be stopped", sandbox_id=sandbox.record.id, error=str(error))

    async def close(self) -> None:
        """Lets go of every sandbox; containers and their programs go on without the executor."""
        for task in self._tasks:
            task.cancel()
        sandboxes, self._sandboxes = self._sandboxes, {}
        for sandbox in sandboxes.values():
            await sandbox.agent.close()

    async def _adopt(self, record: SandboxRecord, status: SandboxStatus) -> None:
        # The engine's labels are the truth about containers.
        sandbox = self._keep(replace(record, image_name=status.image_name or record.image_name))
        sandbox.running = status.running
        await self._open_sockets(sandbox)
        if status.running and not self._settings.images.allows(sandbox.record.image_name):
            log.warning("a sandbox is stopped: its image is not allowed", sandbox_id=record.id)
            await self._kill(sandbox, "the operator no longer allows its image")
        elif not status.running:
            sandbox.processes.lose("the container was not running when the executor came back")
        elif sandbox.processes.running:
            self.disconnected(sandbox)
        log.info("sandbox adopted", sandbox_id=record.id, running=sandbox.running)

    def _check_hosts(self, egress: EgressPolicy) -> None:
        host = self._settings.ceiling.first_refused(egress.hosts)
        if host is not None:
            raise HostNotAllowedError(host)

    def _keep(self, record: SandboxRecord) -> Sandbox:
        sandbox = Sandbox(record, self, self._settings)
        self._sandboxes[record.id] = sandbox
        self.audit.open(record.id, sandbox.directory / "egress", sandbox.processes)
        return sandbox

    async def _create(self, limits: Limits, egress: EgressPolicy, image: Image) -> Sandbox:
        record = SandboxRecord(
            id=mint_sandbox_id(),
            image=image.reference,
            image_name=image.name,
            limits=limits,
            create_time=datetime.datetime.now(datetime.UTC).isoformat(),
            egress=egress,
        )
        write_record(self._settings.state_directory / "sandboxes" / record.id, record)
        sandbox = self._keep(record)
        try:
            async with sandbox.lock:
                await self._open_sockets(sandbox)
                await self._start(sandbox)
        except BaseException:
            # A sandbox whose id nobody was told would stay for ever.
            with suppress(ExecutorError):
                await self._remove(sandbox)
            raise
        log.info("sandbox created", sandbox_id=record.id, image=image.name)
        return sandbox

    async def _open_sockets(self, sandbox: Sandbox) -> None:
        directory = sandbox.socket_directory
        directory.mkdir(parents=True, exist_ok=True)
        # Programs pass through it to the trusted authorities; the sockets' own modes keep them from these.
        directory.chmod(0o711)
        await sandbox.agent.listen(bind_listener(directory / "control.sock"))
        listener = bind_listener(directory / "doors.sock")
        try:
            with _doors_errors():
                await self._doors.open(sandbox.record.id, listener, self.egress_of(sandbox))
        finally:
            listener.close()

    async def _start(self, sandbox: Sandbox) -> None:
        record = sandbox.record
        references = self._settings.images.references(record.id, record.image_name, record.image)
        # After a reboot /run is empty; an engine would make the missing directory with modes of its own.
        if not (sandbox.socket_directory / "control.sock").exists():
            await self._open_sockets(sandbox)
        await asyncio.to_thread(self._trust.give, sandbox.socket_directory)
        await self._create_container(sandbox, references)
        await self._runtime.start(sandbox.record.id)
        sandbox.running = True
        try:
            await sandbox.agent.wait_connected(CONNECT_TIMEOUT_S)
        except AgentUnavailableError as error:
            await self._kill(sandbox, error.detail)
            raise

    async def _create_container(self, sandbox: Sandbox, references: Sequence[str]) -> None:
        record = sandbox.record
        for reference in references:
            spec = SandboxSpec(
                sandbox_id=record.id,
                image=reference,
                image_name=record.image_name,
                limits=record.limits,
                socket_directory=sandbox.socket_directory,
            )
            try:
                return await self._runtime.create(spec)
            except ImageMissingError:
                if reference == references[-1]:
                    raise
        return None

    async def _remove(self, sandbox: Sandbox) -> None:
        sandbox_id = sandbox.record.id
        # Said before its container goes: who watches it hears why.
        sandbox.removed = True
        try:
            await self._runtime.remove(sandbox_id)
        except BaseException:
            sandbox.removed = False
            raise
        self._sandboxes.pop(sandbox_id, None)
        sandbox.running = False
        sandbox.processes.lose("the sandbox was removed")
        sandbox.processes.close()
        await sandbox.agent.close()
        self.audit.close(sandbox_id)
        with _doors_errors():
            await self._doors.close(sandbox_id)
        shutil.rmtree(sandbox.socket_directory, ignore_errors=True)
        shutil.rmtree(sandbox.directory)
        log.info("sandbox removed", sandbox_id=sandbox_id)

    async def _await_return(self, sandbox: Sandbox) -> None:
        deadline = time.monotonic() + RECONNECT_TIMEOUT_S
        while time.monotonic() < deadline:
            with suppress(AgentUnavailableError):
                return await sandbox.agent.wait_connected(0.25)
            try:
                if not await self._runtime.is_running(sandbox.record.id):
                    sandbox.running = False
                    sandbox.processes.lose("the container ended")
                    return None
            except EngineError as error:
                log.warning("the engine does not say what became of a sandbox", error=str(error))
        return await self._kill(sandbox, "its agent does not answer")

    async def _kill(self, sandbox: Sandbox, why: str) -> None:
        await self._runtime.kill(sandbox.record.id)
        sandbox.running = False
        # Its end may not have been read yet, and nobody must write to it any more.
        sandbox.agent.hang_up()
        sandbox.processes.lose(why)

    async def _stop_if_idle(self, sandbox: Sandbox) -> None:
        async with sandbox.lock:
            if sandbox.processes.running or sandbox.users:
                sandbox.touch()
            idle_s = time.monotonic() - sandbox.last_use
            if sandbox.running and idle_s >= self._settings.idle_stop_s:
                log.info("an idle sandbox is stopped", sandbox_id=sandbox.record.id)
                await self._kill(sandbox, "the sandbox was idle")

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextmanager
def _doors_errors() -> Iterator[None]:
    try:
        yield
    except (DoorsUnavailable, UnknownSandbox) as error:
        raise DoorsError(str(error)) from error


async def _logged(work: Any) -> None:
    try:
        await work
    except ExecutorError as error:
        log.exception("a sandbox could not be looked after", error=str(error))
