"""The processes of one sandbox: started once by id, spooled, watched by any number, ended in exactly one way."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from services.executor.agent.frames import (
    Header,
    as_count,
    count_field,
    mapping_field,
    optional_text_field,
    text_field,
)
from services.executor.errors import (
    AgentUnavailableError,
    LimitError,
    OffsetError,
    ProcessEndedError,
    ProcessExistsError,
    ProcessNotFoundError,
    ProtocolError,
    StdinNotOpenError,
)
from services.executor.ids import is_process_id
from services.executor.kept import KeptProcesses
from services.executor.process import Process, ProcessEnd, ProcessSpec, Started
from services.executor.process_log import ProcessLog
from services.executor.spool import STREAMS, Chunk, Cursor, Spool, held_of
from services.executor.stdin import Send, Stdin, StdinWriter
from services.rpc.log import write_later

MAX_RUNNING = 16
SIGNAL_LIMIT = 128
# A watcher of a busy stream gets a few large chunks instead of thousands of small ones; the first byte after a quiet
# moment is never held back.
COALESCE_S = 0.004
DEFAULT_OUTPUT_LIMIT_BYTES = 64 << 20

log = structlog.get_logger()


class ProcessTable:
    """Implements what the agent reports to; `send` reaches sandboxd, `kill_container` ends what cannot be killed.

    `environment` are variables of every process; those of its spec win.
    """

    def __init__(
        self,
        sandbox_id: str,
        directory: Path,
        *,
        environment: Mapping[str, str],
        send: Send,
        kill_container: Callable[[str], None],
        on_disconnect: Callable[[], None],
    ) -> None:
        self._sandbox_id = sandbox_id
        self._directory = directory
        self._environment = environment
        self._send = send
        self._kill_container = kill_container
        self._on_disconnect = on_disconnect
        self._processes: dict[str, Process] = {}
        # Those that have not ended: each start looks at them, and beside them hundreds are kept.
        self._running: dict[str, Process] = {}
        self._ended = KeptProcesses()
        self._unstarted: list[Process] = []
        self._log = ProcessLog(directory.with_suffix(".jsonl"))
        self._recover()

    @property
    def running(self) -> Sequence[Process]:
        """Processes that have not ended."""
        return list(self._running.values())

    @property
    def all(self) -> Sequence[Process]:
        """Those that run and those that are kept, oldest first."""
        return list(self._processes.values())

    def find(self, process_id: str) -> Process:
        """ProcessNotFoundError if there is none."""
        process = self._processes.get(process_id)
        if process is None:
            raise ProcessNotFoundError(self._sandbox_id, process_id)
        return process

    def known(self, process_id: str, spec: ProcessSpec) -> Process | None:
        """The process of that id, if it was started. ProcessExistsError if it has another spec."""
        process = self._processes.get(process_id)
        if process is not None and process.spec.digest() != spec.digest():
            raise ProcessExistsError(process_id)
        return process

    def start(self, process_id: str, spec: ProcessSpec) -> Process:
        """Starts a process, or returns the one that has this id and spec. LimitError, ProcessExistsError."""
        process = self.known(process_id, spec)
        if process is not None:
            return process
        if not spec.background and sum(not p.spec.background for p in self.running) >= MAX_RUNNING:
            raise LimitError("processes running in one sandbox", MAX_RUNNING)
        self._prune()
        self._log.write(process_id, "spec", vars(spec))
        try:
            # First: the rest can be done while it starts. If it cannot be sent, it is when sandboxd is there again.
            self._send_start(process_id, spec)
        finally:
            process = self._add(process_id, spec)
            process.log_ids = structlog.contextvars.get_contextvars()
        return process

    async def watch(
        self, process: Process, offsets: Mapping[str, int]
    ) -> AsyncGenerator[Started | Chunk | ProcessEnd, None]:
        """Events from the offsets on, until the end.

        OffsetError: one lies beyond the end of an ended stream. ProcessNotFoundError: its output is no longer kept.
        """
        if process.end is not None:
            for stream in STREAMS:
                if offsets[stream] > process.end.lengths[stream]:
                    raise OffsetError(stream, offsets[stream], process.end.lengths[stream])
        cursor = Cursor(position=dict(offsets))
        said_started = False
        last_chunk = 0.0
        while True:
            changed, end = process.changed, process.end
            chunk = self._read(process, cursor, ended=end is not None)
            if not said_started and (chunk is not None or (process.start_time and end is None)):
                said_started = True
                yield Started(time=process.start_time or _now())
            while chunk is not None:
                last_chunk = time.monotonic()
                yield chunk
                chunk = self._read(process, cursor, ended=end is not None)
            if end is not None:
                yield end
                return
            await changed.wait()
            pause = last_chunk + COALESCE_S - time.monotonic()
            if pause > 0 and process.end is None:
                await asyncio.sleep(pause)

    def _read(self, process: Process, cursor: Cursor, *, ended: bool) -> Chunk | None:
        try:
            return process.spool.read(cursor, ended=ended)
        except FileNotFoundError:
            # It was the oldest when another one started, or went with its sandbox.
            raise ProcessNotFoundError(self._sandbox_id, process.id) from None

    def cancel(self, process_id: str, verdict: str = "cancelled") -> None:
        """Kills all that the process started; it ends with the verdict."""
        process = self.find(process_id)
        if process.end is None and process.verdict is None:
            process.verdict = verdict
        self._send({"type": "cancel", "process": process_id})

    def write_stdin(self, process: Process) -> StdinWriter:
        """Who writes its input from now on; whoever did before may not. StdinNotOpenError, ProcessEndedError."""
        if not process.spec.has_input:
            raise StdinNotOpenError(process.id)
        if process.end is not None or process.stdin is None:
            raise ProcessEndedError(process.id)
        return StdinWriter(process.id, process.stdin, self._send, hangs_up=process.spec.terminal is None)

    def resize(self, process: Process, rows: int, columns: int) -> None:
        """Sets the size of its terminal. NoTerminalError, ProcessEndedError."""
        process.check_terminal()
        self._send({"type": "resize", "process": process.id, "rows": rows, "columns": columns})

    def signal(self, process: Process, number: int) -> None:
        """Signals its group, or the one in the foreground of its terminal. ProcessEndedError."""
        process.check_running()
        self._send({"type": "signal", "process": process.id, "signal": number})

    def lose(self, detail: str) -> None:
        """The container is gone: whatever ran has ended in a way that nobody knows."""
        for process in self.running:
            try:
                self._finish(process, kind="sandbox_lost", lengths=process.spool.received, detail=detail)
            except OSError as error:
                # Whoever watches must hear of it all the same. A later executor finds it lost, too.
                log.error("an end cannot be stored", process_id=process.id, error=str(error))  # noqa: TRY400 - a full disk
                self._tell_end(process, ProcessEnd.lost(process.spool.received, detail, _now()))

    def close(self) -> None:
        """Closes the spools; nothing can be watched afterwards."""
        self._log.close()
        for process in self._processes.values():
            process.spool.close()

    def welcome(self, processes: Sequence[Header]) -> Mapping[str, Mapping[str, int]]:
        """See ProcessEvents. What sandboxd does not know any more, and did start, is lost."""
        there = {text_field(row, "process"): row for row in processes if isinstance(row, dict)}
        resume: dict[str, Mapping[str, int]] = {}
        self._unstarted = []
        for process in self.running:
            if process.id in there:
                resume[process.id] = process.spool.resume(held_of(there[process.id]))
                if process.stdin is not None and "input" in there[process.id]:
                    process.stdin.resume(mapping_field(there[process.id], "input"))
            elif process.start_time:
                self._finish(
                    process, kind="sandbox_lost", lengths=process.spool.received, detail="the sandbox was restarted"
                )
            else:
                self._unstarted.append(process)
        return resume

    def connected(self) -> None:
        """See ProcessEvents. Sends what was recorded, but could not be sent before."""
        for process in self._unstarted:
            self._send_start(process.id, process.spec)
            if process.verdict is not None:
                self._send({"type": "cancel", "process": process.id})

    def started(self, process_id: str) -> None:
        """See ProcessEvents."""
        process = self._processes.get(process_id)
        if process is not None and not process.start_time:
            process.start_time = _now()
            self._log.write(process_id, "started", {"time": process.start_time})
            process.notify()

    def output(self, process_id: str, stream: str, offset: int, data: bytes) -> Mapping[str, int]:
        """See ProcessEvents."""
        process = self._processes.get(process_id)
        if process is None or process.end is not None:
            raise ProtocolError("output of a process that does not run")
        process.spool.append(stream, offset, data)
        process.notify()
        if process.spec.end_at_output_limit and process.spool.is_full and process.verdict is None:
            self.cancel(process_id, "output_limit")
        return process.spool.received

    def input(self, process_id: str, header: Header) -> None:
        """See ProcessEvents. Of a process that is not there any more, it is nobody's concern."""
        process = self._processes.get(process_id)
        if process is None or process.end is not None:
            return
        if process.stdin is None:
            raise ProtocolError("an input of a process that has none")
        process.stdin.tell(header)

    def ended(self, process_id: str, header: Header) -> None:
        """See ProcessEvents. A second report of the same end is answered by `forget` alone."""
        process = self._processes.get(process_id)
        if process is not None and process.end is None:
            self._end(process, header)
        # Behind its watchers: they are waited for.
        asyncio.get_running_loop().call_soon(self._let_forget, process_id)

    def _let_forget(self, process_id: str) -> None:
        # Without a connection there is nothing to say: the next one begins with what is kept here.
        with suppress(AgentUnavailableError):
            self._send({"type": "forget", "process": process_id})

    def disconnected(self) -> None:
        """See ProcessEvents."""
        for process in self.running:
            if process.stdin is not None:
                process.stdin.disconnect()
        self._on_disconnect()

    def _end(self, process: Process, header: Header) -> None:
        end = mapping_field(header, "end")
        offsets = mapping_field(header, "offsets")
        # An older sandboxd has no terminals.
        lengths = {stream: as_count(offsets.get(stream, 0), stream) for stream in STREAMS}
        if any(lengths[stream] < process.spool.received[stream] for stream in STREAMS):
            raise ProtocolError("an end before the output's end")
        kind, code = text_field(end, "kind"), 0
        if kind == "exited":
            code = count_field(end, "code")
        elif kind == "signaled":
            code = count_field(end, "signal")
        elif kind == "unkillable":
            self._kill_container("processes of an exec could not be killed")
            kind = "sandbox_lost"
        elif kind == "cancelled":
            kind = process.verdict or "cancelled"
        elif kind not in {"timed_out", "oom_killed", "start_failed"}:
            raise ProtocolError("an end of unknown kind")
        if (kind == "exited" and code > 255) or (kind == "signaled" and not 0 < code < SIGNAL_LIMIT):  # noqa: PLR2004 - an exit code is one byte
            raise ProtocolError("an end that no process can have")
        self._finish(
            process,
            kind=kind,
            lengths=lengths,
            code=code,
            oom_kills=min(count_field(header, "oom_kills"), 0xFFFFFFFF),
            error=optional_text_field(end, "error")[:64],
            detail=optional_text_field(end, "detail")[:1024],
            idle=kind == "timed_out" and end.get("idle") is True,
        )

    def _finish(
        self,
        process: Process,
        *,
        kind: str,
        lengths: Mapping[str, int],
        code: int = 0,
        oom_kills: int = 0,
        error: str = "",
        detail: str = "",
        idle: bool = False,
    ) -> None:
        process.spool.finish(dict(lengths))
        end = ProcessEnd(
            kind=kind,
            time=_now(),
            lengths=process.spool.received,
            dropped_bytes=process.spool.dropped,
            oom_kills=oom_kills,
            code=code,
            error=error,
            detail=detail,
            idle=idle,
        )
        self._log.write(process.id, "ended", vars(end))
        self._tell_end(process, end)

    def _tell_end(self, process: Process, end: ProcessEnd) -> None:
        self._note_end(process, end)
        process.notify()
        if process.stdin is not None:
            process.stdin.finish()
        ids = {**process.log_ids, "sandbox_id": self._sandbox_id, "process_id": process.id}
        write_later(log.info, "process ended", end=end.kind, code=end.code, **ids)

    def _note_end(self, process: Process, end: ProcessEnd) -> None:
        process.end = end
        self._running.pop(process.id, None)
        self._ended.add(process)

    def _send_start(self, process_id: str, spec: ProcessSpec) -> None:
        self._send({"type": "start", "process": process_id, **spec.order(self._environment)})

    def _add(self, process_id: str, spec: ProcessSpec) -> Process:
        directory = self._directory / process_id
        process = Process(
            id=process_id,
            spec=spec,
            directory=directory,
            spool=Spool(directory, spec.output_limit_bytes),
            stdin=Stdin() if spec.has_input else None,
        )
        self._processes[process_id] = self._running[process_id] = process
        return process

    def _prune(self) -> None:
        gone = []
        while (process := self._ended.surplus()) is not None:
            self._remove(process)
            gone.append(process.id)
        # Only now: on a full disk that made the room that the lines need.
        for process_id in gone:
            self._log.write(process_id, "removed", {})
        if self._log.is_long(len(self._processes)):
            self._log.rewrite(self._rows())

    def _remove(self, process: Process) -> None:
        del self._processes[process.id]
        self._ended.discard(process)
        process.spool.close()
        shutil.rmtree(process.directory, ignore_errors=True)

    def _recover(self) -> None:
        for process_id, what, fields in self._log.read():
            if what == "spec":
                assert is_process_id(process_id)
                self._add(process_id, ProcessSpec.recorded(fields))
            elif what == "started":
                self._processes[process_id].start_time = fields["time"]
            elif what == "ended":
                self._note_end(self._processes[process_id], ProcessEnd.recorded(fields))
            else:
                self._remove(self._processes[process_id])
        for process in [process for process in self._ended if process.is_gone]:
            self._remove(process)
        if self._log.exists:
            self._log.rewrite(self._rows())

    def _rows(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        for process in (*self._ended, *self._running.values()):
            yield process.id, "spec", vars(process.spec)
            if process.start_time:
                yield process.id, "started", {"time": process.start_time}
            if process.end is not None:
                yield process.id, "ended", vars(process.end)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()
