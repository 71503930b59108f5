"""A pool of worker processes: each call has a deadline, and a worker that misses it is killed and replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.resolver.calls import ANSWERS, ERRORS, FAULT, OUT_OF_MEMORY, Envelope, Fault
from services.resolver.codec import LENGTH, MAX_MESSAGE_BYTES, CodecError, pack, unpack

START_SECONDS = 30.0

_LAST_BREATH_SECONDS = 2.0


@dataclass(kw_only=True, eq=False)
class WorkerTimeoutError(Exception):
    """A call did not end within its deadline."""

    seconds: float

    def __str__(self) -> str:
        """Say how long it had."""
        return f"the files could not be read within {self.seconds:g} s; are they meant to be read?"


@dataclass(kw_only=True, eq=False)
class WorkerCrashedError(Exception):
    """A call ended its worker: `resource` is `memory` or `cpu` where a limit struck, else empty."""

    resource: str
    detail: str = ""

    def __str__(self) -> str:
        """Name the limit, if it was one."""
        return f"the files need more {self.resource} than a plan may use" if self.resource else "a worker crashed"


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerLimits:
    """What one call may use: seconds by the clock, seconds of processor time, bytes of address space."""

    deadline_seconds: float = 30.0
    cpu_seconds: int = 20
    memory_bytes: int = 1536 * 1024 * 1024


class Worker:
    """One worker process."""

    def __init__(self, process: asyncio.subprocess.Process, limits: WorkerLimits) -> None:
        self._process = process
        self._limits = limits
        self._is_spent = False

    @classmethod
    async def start(cls, limits: WorkerLimits) -> Worker:
        """Start a process and wait until it is ready; raises WorkerCrashedError or WorkerTimeoutError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.resolver.worker",
            str(limits.memory_bytes),
            str(limits.cpu_seconds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # Nothing of the service's own environment: no secret can end up in an answer.
            env={"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path), "PYTHONHASHSEED": "0"},
        )
        worker = cls(process, limits)
        try:
            async with asyncio.timeout(START_SECONDS):
                await worker._read_message()
        except TimeoutError:
            await worker.stop()
            raise WorkerTimeoutError(seconds=START_SECONDS) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            await worker.stop()
            raise WorkerCrashedError(resource="") from None
        return worker

    @property
    def is_alive(self) -> bool:
        """Whether it can take a call."""
        return not self._is_spent and self._process.returncode is None

    async def run(self, call: Any) -> Any:
        """Answer one call. Afterwards the worker may be dead: see `is_alive`."""
        name = type(call).__name__
        try:
            async with asyncio.timeout(self._limits.deadline_seconds):
                kind, body = await self._exchange(pack(Envelope(kind=name)) + pack(call))
                return self._result(name, kind, body)
        except TimeoutError:
            await self.stop()
            raise WorkerTimeoutError(seconds=self._limits.deadline_seconds) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            # It is ending by itself: a kill at this moment could take the place of the true reason.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _LAST_BREATH_SECONDS)
            await self.stop()
            struck = self._process.returncode == -signal.SIGXCPU
            raise WorkerCrashedError(resource="cpu" if struck else "memory") from None
        except CodecError as error:
            await self.stop()
            raise WorkerCrashedError(resource="", detail=str(error)) from error
        except asyncio.CancelledError:
            # Its answer would be taken for that of the next call.
            self._kill()
            raise

    async def stop(self) -> None:
        """Kill the process and wait for its end."""
        self._kill()
        await self._process.wait()

    def _kill(self) -> None:
        # The end of a process is known later than it is asked for.
        self._is_spent = True
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _exchange(self, request: bytes) -> tuple[str, bytes]:
        assert self._process.stdin is not None
        self._process.stdin.write(request)
        await self._process.stdin.drain()
        envelope = unpack(Envelope, await self._read_message())
        return envelope.kind, await self._read_message()

    async def _read_message(self) -> bytes:
        assert self._process.stdout is not None
        (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
        if length > MAX_MESSAGE_BYTES:
            raise CodecError(f"a message of {length} bytes")
        return await self._process.stdout.readexactly(length)

    def _result(self, name: str, kind: str, body: bytes) -> Any:
        if kind == name:
            return unpack(ANSWERS[name], body)
        if kind in ERRORS:
            raise unpack(ERRORS[kind], body)
        fault = unpack(Fault, body)
        if kind == OUT_OF_MEMORY:
            # What is left of its memory is not known.
            self._kill()
            raise WorkerCrashedError(resource="memory")
        if kind != FAULT:
            raise CodecError(f"an answer of unknown kind {kind[:40]!r}")
        raise WorkerCrashedError(resource="", detail=fault.detail)


class WorkerPool:
    """A fixed number of workers; a call waits for a free one, and its deadline starts when it has one."""

    def __init__(self, size: int, limits: WorkerLimits) -> None:
        self._size = size
        self._limits = limits
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._workers: set[Worker] = set()

    async def start(self) -> None:
        """Start all workers; to be awaited before gRPC starts its threads."""
        for worker in await asyncio.gather(*(Worker.start(self._limits) for _ in range(self._size))):
            self._workers.add(worker)
            self._idle.put_nowait(worker)

    async def run(self, call: Any) -> Any:
        """Answer a call of services.resolver.calls.

        Raises what the call's `run` raises, WorkerTimeoutError, or WorkerCrashedError.
        """
        worker = await self._idle.get()
        try:
            if not worker.is_alive:
                worker = await self._replace(worker)
            return await worker.run(call)
        finally:
            # A dead one is replaced by the call that gets it next.
            self._idle.put_nowait(worker)

    async def stop(self) -> None:
        """Kill all workers."""
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        self._workers.clear()

    async def _replace(self, worker: Worker) -> Worker:
        await worker.stop()
        self._workers.discard(worker)
        replacement = await Worker.start(self._limits)
        self._workers.add(replacement)
        return replacement
