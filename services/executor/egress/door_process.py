"""The executor's side of the doors: starts the process, keeps it alive, tells it what to open."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from services.executor.egress.config import DoorsConfig
from services.executor.egress.control import ChannelClosed, ControlChannel, InvalidMessage
from services.executor.egress.policy import EgressPolicy
from services.executor.egress.records import EgressRecord, InvalidRecord

_log = structlog.get_logger()

OnEgress = Callable[[EgressRecord], None]

_PROJECT_ROOT = Path(__file__).resolve().parents[3]
_START_SECONDS = 30.0
_COMMAND_SECONDS = 30.0
_STOP_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 5.0


class DoorsUnavailable(Exception):
    """The doors process does not run or does not answer; nothing gets out of any sandbox meanwhile."""

    def __init__(self, *, doing: str, exit_code: int | None = None) -> None:
        super().__init__(doing, exit_code)
        self.doing = doing
        self.exit_code = exit_code

    def __str__(self) -> str:
        ending = "" if self.exit_code is None else f" (it exited with {self.exit_code}; its last log line says why)"
        return f"the doors process failed to {self.doing}{ending}"


class UnknownSandbox(Exception):
    """No door is open for this sandbox."""

    def __init__(self, *, sandbox_id: str) -> None:
        super().__init__(sandbox_id)
        self.sandbox_id = sandbox_id

    def __str__(self) -> str:
        return f"no door is open for {self.sandbox_id}"


class DoorControl(Protocol):
    """What the executor does with the doors; `Doors` and `FakeDoors` both are one."""

    async def start(self) -> None:
        """Be ready, or raise DoorsUnavailable."""

    async def open(self, sandbox_id: str, listener: socket.socket, policy: EgressPolicy) -> None:
        """Serve a listening unix socket (the caller keeps its own copy); again: in place of the earlier one."""

    async def close(self, sandbox_id: str) -> None:
        """Stop serving a sandbox and cut its connections; nothing if it is not open."""

    async def set_install_phase(self, sandbox_id: str, is_open: bool) -> None:  # noqa: FBT001  # reads well at every caller
        """Say whether uid 1001 is an install; raises UnknownSandbox."""

    async def set_policy(self, sandbox_id: str, policy: EgressPolicy) -> None:
        """Replace a sandbox's policy; when this returns, nothing that it refuses is under way. UnknownSandbox."""

    async def stop(self) -> None:
        """Let requests under way end, then stop."""


@dataclass(kw_only=True)
class _Door:
    listener: socket.socket
    policy: EgressPolicy
    install_open: bool = False


class Doors:
    """The doors process, kept alive: after a crash it is started again and handed every listener again.

    `on_egress` is called in the event loop for each record of an open sandbox and must not block.
    """

    def __init__(self, config: DoorsConfig, *, on_egress: OnEgress) -> None:
        self._config = config
        self._on_egress = on_egress
        self._doors: dict[str, _Door] = {}
        self._session: _Session | None = None
        self._up = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The doors process's id; None while it is down."""
        return self._session.process.pid if self._session is not None and self._up.is_set() else None

    async def start(self) -> None:
        """Start the process.

        Raises:
            DoorsUnavailable: it ended, or was not ready within 30 s.
        """
        session = await self._launch()
        self._session = session
        self._up.set()
        self._supervisor = asyncio.create_task(self._supervise(session))

    async def open(self, sandbox_id: str, listener: socket.socket, policy: EgressPolicy) -> None:
        """Serve a listening unix socket, of which this keeps a copy.

        Raises:
            DoorsUnavailable: the process did not confirm within 30 s.
        """
        earlier = self._doors.get(sandbox_id)
        install_open = earlier.install_open if earlier else False
        door = _Door(listener=listener.dup(), policy=policy, install_open=install_open)
        self._doors[sandbox_id] = door
        if earlier is not None:
            earlier.listener.close()
        await self._command(_open_message(sandbox_id, door), "opened", door.listener)

    async def close(self, sandbox_id: str) -> None:
        """Stop serving a sandbox and cut its connections; nothing if it is not open.

        Raises:
            DoorsUnavailable: the process did not confirm within 30 s.
        """
        door = self._doors.pop(sandbox_id, None)
        if door is not None:
            door.listener.close()
            await self._command({"type": "close", "sandbox": sandbox_id}, "closed")

    async def set_install_phase(self, sandbox_id: str, is_open: bool) -> None:  # noqa: FBT001  # see DoorControl
        """Say whether the connections of uid 1001 are an install's.

        Raises:
            UnknownSandbox: no door is open for the sandbox.
            DoorsUnavailable: the process did not confirm within 30 s.
        """
        door = self._doors.get(sandbox_id)
        if door is None:
            raise UnknownSandbox(sandbox_id=sandbox_id)
        door.install_open = is_open
        await self._command({"type": "phase", "sandbox": sandbox_id, "install": is_open}, "phase_set")

    async def set_policy(self, sandbox_id: str, policy: EgressPolicy) -> None:
        """Replace a sandbox's policy.

        Raises:
            UnknownSandbox: no door is open for the sandbox.
            DoorsUnavailable: the process did not confirm within 30 s.
        """
        door = self._doors.get(sandbox_id)
        if door is None:
            raise UnknownSandbox(sandbox_id=sandbox_id)
        door.policy = policy
        message: dict[str, object] = {"type": "policy", "sandbox": sandbox_id, "policy": policy.to_message()}
        await self._command(message, "policy_set")

    async def stop(self) -> None:
        """Close the channel, wait 10 s for the process to drain, then kill it."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        self._up.clear()
        if self._session is not None:
            await self._session.stop()
            self._session = None
        for door in self._doors.values():
            door.listener.close()
        self._doors.clear()

    async def _command(self, message: dict[str, object], answer: str, listener: socket.socket | None = None) -> None:
        """Send until a living process has confirmed: each command may be repeated without harm."""
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                while True:
                    await self._up.wait()
                    assert self._session is not None
                    session = self._session
                    with suppress(ChannelClosed):
                        await session.request(message, answer, listener)
                        return
                    await session.ended.wait()
                    # The supervisor clears the event first thing after the end that was just waited for.
                    await asyncio.sleep(0)
        except TimeoutError as error:
            raise DoorsUnavailable(doing=str(message["type"])) from error

    async def _supervise(self, session: "_Session") -> None:
        while True:
            await session.ended.wait()
            self._up.clear()
            _log.error("doors process ended", exit_code=session.process.returncode)
            await session.stop()
            session = await self._restart()
            self._session = session
            self._up.set()

    async def _restart(self) -> "_Session":
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                session = await self._launch()
                await self._hand_all(session)
            except (DoorsUnavailable, ChannelClosed) as error:
                _log.error("doors process not restarted", error=str(error), pause_seconds=pause)
            else:
                _log.info("doors process restarted", pid=session.process.pid, sandboxes=len(self._doors))
                return session
            self._refuse_waiting()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _hand_all(self, session: "_Session") -> None:
        try:
            for sandbox_id, door in list(self._doors.items()):
                if self._doors.get(sandbox_id) is not door:
                    continue
                await session.request(_open_message(sandbox_id, door), "opened", door.listener)
        except ChannelClosed:
            await session.stop()
            raise

    def _refuse_waiting(self) -> None:
        """Turn away who has dialled a door that nobody will answer soon, without reading a byte."""
        for door in self._doors.values():
            door.listener.setblocking(False)
            with suppress(OSError):
                while True:
                    door.listener.accept()[0].close()

    async def _launch(self) -> "_Session":
        return await _Session.launch(self._config, on_egress=self._take_record)

    def _take_record(self, record: EgressRecord) -> None:
        if record.sandbox not in self._doors:
            _log.warning("egress record of a sandbox without a door", sandbox=record.sandbox)
            return
        try:
            self._on_egress(record)
        except Exception:  # noqa: BLE001  # a caller's mistake must not take the doors down
            _log.exception("egress record not taken", sandbox=record.sandbox)


class _Session:
    """One life of the doors process."""

    def __init__(self, process: asyncio.subprocess.Process, channel: ControlChannel, on_egress: OnEgress) -> None:
        self.process = process
        self.ended = asyncio.Event()
        self._channel = channel
        self._on_egress = on_egress
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected: dict[tuple[str, str], list[asyncio.Future[None]]] = {}
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def launch(cls, config: DoorsConfig, *, on_egress: OnEgress) -> "_Session":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "services.executor.egress",
                "--control-fd", str(theirs.fileno()), "--config", config.to_argument(),
                pass_fds=[theirs.fileno()], env=_environment(), cwd="/", stdin=asyncio.subprocess.DEVNULL,
                # A terminal's Ctrl-C is for the executor, which then lets the doors drain.
                start_new_session=True,
            )  # fmt: skip  # a command line reads best as lines of one
        session = cls(process, ControlChannel(ours), on_egress)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await session._ready
        except (TimeoutError, ChannelClosed) as error:
            await session.stop()
            raise DoorsUnavailable(doing="start", exit_code=process.returncode) from error
        except BaseException:
            await session.stop()
            raise
        return session

    async def request(self, message: dict[str, object], answer: str, listener: socket.socket | None) -> None:
        """Send a command and wait for its answer; ChannelClosed if the process ends first."""
        if self.ended.is_set():
            raise ChannelClosed
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Answers come in the order of the commands.
        self._expected.setdefault((answer, str(message["sandbox"])), []).append(answered)
        await self._channel.send(message, None if listener is None else listener.fileno())
        await answered

    async def stop(self) -> None:
        """Close the channel and see the process end."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._channel.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()

    async def _read(self) -> None:
        try:
            while (message := await self._channel.receive()) is not None:
                if message.descriptor is not None:
                    os.close(message.descriptor)
                    raise InvalidMessage(problem="an unexpected descriptor")  # noqa: TRY301  # ends the session below
                if message.type == "egress":
                    self._on_egress(EgressRecord.from_message(message.fields))
                elif message.type == "ready":
                    if not self._ready.done():
                        self._ready.set_result(None)
                else:
                    self._settle(message.type, str(message.fields.get("sandbox")))
        except (InvalidMessage, InvalidRecord) as error:
            _log.error("doors process broke the protocol", error=str(error))
            with suppress(ProcessLookupError):
                self.process.kill()
        finally:
            self._end()

    def _settle(self, kind: str, sandbox: str) -> None:
        waiting = self._expected.get((kind, sandbox))
        if not waiting:
            raise InvalidMessage(problem=f"unexpected {kind!r}")
        answered = waiting.pop(0)
        if not waiting:
            del self._expected[kind, sandbox]
        if not answered.done():
            answered.set_result(None)

    def _end(self) -> None:
        for future in [self._ready, *(f for waiting in self._expected.values() for f in waiting)]:
            if not future.done():
                future.set_exception(ChannelClosed())
                future.exception()
        self._expected.clear()
        self.ended.set()


def _open_message(sandbox_id: str, door: _Door) -> dict[str, object]:
    policy = door.policy.to_message()
    return {"type": "open", "sandbox": sandbox_id, "install": door.install_open, "policy": policy}


def _environment() -> dict[str, str]:
    """All that the doors get to know: where to find the code and whom to trust."""
    environment = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(_PROJECT_ROOT)}
    trust_store = os.environ.get("SSL_CERT_FILE")
    if trust_store is not None:
        environment["SSL_CERT_FILE"] = trust_store
    return environment
