"""A gateway on a real socket whose programs are Python functions: what clients of inputs and terminals are tried on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server

SANDBOX = "sb_" + "a" * 26
PATIENCE = 20.0


class ScriptedExec:
    """One exec: what was told of it, and what was done to it."""

    def __init__(self, request: pb.ExecRequest) -> None:
        self.request = request
        self.changed = threading.Condition()
        self.events: list[pb.ExecEvent] = []
        self.input = bytearray()
        self.input_closed = False
        self.writers = 0
        self.sizes: list[tuple[int, int]] = []
        self.signals: list[int] = []
        self.cancelled = False
        self._read = 0
        self._lengths: dict[int, int] = {}
        self._sequence = 0

    def tell(self, **event: Any) -> None:
        with self.changed:
            numbered = not ("heartbeat" in event or "output" in event)
            self._sequence += numbered
            self.events.append(pb.ExecEvent(sequence=self._sequence if numbered else 0, **event))
            self.changed.notify_all()

    def write(self, data: bytes, stream: pb.Stream.ValueType | None = None) -> None:
        if stream is None:
            stream = pb.STREAM_TERMINAL if self.request.HasField("terminal") else pb.STREAM_STDOUT
        offset = self._lengths.get(stream, 0)
        self._lengths[stream] = offset + len(data)
        self.tell(output=pb.Output(phase=pb.PHASE_RUN, stream=stream, offset=offset, data=data))

    def read(self) -> bytes:
        """What came in since the last time; empty at the end, or when the exec is cancelled or signalled."""
        with self.changed:
            signals = len(self.signals)
            self.changed.wait_for(
                lambda: (
                    len(self.input) > self._read or self.input_closed or self.cancelled or len(self.signals) > signals
                ),
                PATIENCE,
            )
            data = bytes(self.input[self._read :])
            self._read += len(data)
            return data

    @property
    def over(self) -> bool:
        return bool(self.events) and self.events[-1].HasField("ended")


Program = Callable[[ScriptedExec], int]


def cat(execution: ScriptedExec) -> int:
    while data := execution.read():
        execution.write(data)
    return 0


def shell(execution: ScriptedExec) -> int:
    """Echoes lines; knows `size`, `exit N`; writes ^C for the byte."""
    line = b""
    execution.write(b"$ ")
    while data := execution.read():
        for byte in data:
            if byte == ord("\r"):
                words = line.split()
                if words[:1] == [b"exit"]:
                    return int(words[1])
                if words == [b"size"]:
                    execution.write(b"size is %d %d\r\n" % execution.sizes[-1])
                line = b""
                execution.write(b"\r\n$ ")
            elif byte == 3:
                execution.write(b"<interrupt>")
            else:
                line += bytes([byte])
                execution.write(b"[%c]" % byte)
    return 0


class ScriptedGateway(GatewayServiceServicer):
    """Attributes: `break_input_at`, the length at which a writer's stream breaks once, before it is acknowledged."""

    def __init__(self) -> None:
        self.programs: dict[str, Program] = {"cat": cat, "bash": shell, "sleep": lambda running: len(running.read())}
        self.execs: dict[str, ScriptedExec] = {}
        self.break_input_at: int | None = None
        self.epoch = 0
        self.attaches: list[pb.AttachExecRequest] = []
        self.attached = threading.Event()
        self.removed: list[str] = []
        self.files: dict[str, bytes] = {}

    def break_streams(self) -> None:
        """Every stream that is open ends UNAVAILABLE."""
        self.epoch += 1
        for execution in self.execs.values():
            with execution.changed:
                execution.changed.notify_all()

    def CreateSandbox(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        return pb.CreateSandboxResponse(sandbox=pb.Sandbox(id=SANDBOX))

    def RemoveSandbox(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.removed.append(request.sandbox_id)
        return pb.RemoveSandboxResponse()

    def ListSandboxes(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        return pb.ListSandboxesResponse(sandboxes=[pb.Sandbox(id=SANDBOX, language="python")])

    def WriteFile(self, request_iterator, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        header = next(request_iterator).header
        self.files[header.path] = b"".join(part.chunk for part in request_iterator)
        return pb.WriteFileResponse(size=len(self.files[header.path]), sha256="0" * 64)

    def Exec(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        execution = self.execs.get(request.exec_id)
        if execution is None:
            execution = self.execs[request.exec_id] = ScriptedExec(request)
            execution.tell(created=pb.ExecCreated(sandbox_id=request.sandbox_id, exec_id=request.exec_id))
            threading.Thread(target=self._live, args=[execution], daemon=True).start()
        for event in self._watch(execution, pb.AttachExecRequest(), context):
            yield pb.ExecResponse(event=event)
            if request.detach:
                return

    def AttachExec(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.attaches.append(request)
        self.attached.set()
        for event in self._watch(self._exec(request, context), request, context):
            yield pb.AttachExecResponse(event=event)

    def ListExecs(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        first = int(request.page_token or "0")
        rows = [
            pb.Exec(id=name, sandbox_id=SANDBOX, phase=pb.PHASE_RUN, ended=item.events[-1].ended if item.over else None)
            for name, item in reversed(self.execs.items())
            if not (request.running_only and item.over)
        ]
        page = rows[first : first + (request.page_size or 2)]
        more = first + len(page) < len(rows)
        return pb.ListExecsResponse(execs=page, next_page_token=str(first + len(page)) if more else "")

    def WriteStdin(self, request_iterator, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        execution = self._exec(next(request_iterator).header, context)
        if not (execution.request.stdin or execution.request.HasField("terminal")):
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "STDIN_NOT_OPEN")
        with execution.changed:
            execution.writers += 1
            writer = execution.writers
        yield pb.WriteStdinResponse(accepted=len(execution.input))
        for request in request_iterator:
            if execution.writers != writer:
                refuse(context, grpc.StatusCode.ABORTED, "STDIN_TAKEN_OVER")
            if execution.over:
                refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "EXEC_ENDED")
            self._take(execution, request, context)
            yield pb.WriteStdinResponse(accepted=len(execution.input))
            if request.HasField("end"):
                return

    def _take(self, execution: ScriptedExec, request: pb.WriteStdinRequest, context: Any) -> None:
        chunk = request.chunk
        with execution.changed:
            if chunk.offset > len(execution.input):
                refuse(context, grpc.StatusCode.OUT_OF_RANGE, "STDIN_GAP")
            if chunk.data and execution.input_closed:
                refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "STDIN_ENDED")
            execution.input += chunk.data[len(execution.input) - chunk.offset :] if chunk.data else b""
            execution.input_closed |= request.HasField("end")
            execution.changed.notify_all()
        if self.break_input_at is not None and len(execution.input) >= self.break_input_at:
            self.break_input_at = None
            refuse(context, grpc.StatusCode.UNAVAILABLE, "RESTARTING")

    def ResizeTerminal(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        execution = self._exec(request, context)
        with execution.changed:
            execution.sizes.append((request.terminal.rows, request.terminal.columns))
            execution.changed.notify_all()
        return pb.ResizeTerminalResponse()

    def SignalExec(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        execution = self._exec(request, context)
        with execution.changed:
            execution.signals.append(request.signal)
            execution.changed.notify_all()
        return pb.SignalExecResponse()

    def CancelExec(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        execution = self._exec(request, context)
        with execution.changed:
            execution.cancelled = True
            execution.changed.notify_all()
        return pb.CancelExecResponse()

    def _exec(self, request: Any, context: Any) -> ScriptedExec:
        if request.exec_id not in self.execs:
            refuse(context, grpc.StatusCode.NOT_FOUND, "EXEC_NOT_FOUND")
        return self.execs[request.exec_id]

    def _live(self, execution: ScriptedExec) -> None:
        request = execution.request
        if request.HasField("terminal"):
            execution.sizes.append((request.terminal.rows, request.terminal.columns))
        execution.tell(phase_started=pb.PhaseStarted(phase=pb.PHASE_RUN))
        name = request.command.argv[0] if request.command.argv else request.program.file
        code = self.programs[name](execution)
        if execution.cancelled:
            execution.tell(ended=pb.ExecEnded(cancelled=pb.Cancelled()))
        elif execution.signals:
            execution.tell(ended=pb.ExecEnded(signaled=execution.signals[-1]))
        else:
            execution.tell(ended=pb.ExecEnded(exited=code))

    def _watch(self, execution: ScriptedExec, position: pb.AttachExecRequest, context: Any) -> Iterator[pb.ExecEvent]:
        epoch, index = self.epoch, 0
        while True:
            with execution.changed:
                self._await(execution, index, epoch)
                if self.epoch != epoch:
                    refuse(context, grpc.StatusCode.UNAVAILABLE, "RESTARTING")
                fresh = execution.events[index:]
            index += len(fresh)
            for event in fresh:
                if left := _left(event, position):
                    yield left
                if event.HasField("ended"):
                    return

    def _await(self, execution: ScriptedExec, seen: int, epoch: int) -> None:
        execution.changed.wait_for(lambda: len(execution.events) > seen or self.epoch != epoch, PATIENCE)


def _left(event: pb.ExecEvent, position: pb.AttachExecRequest) -> pb.ExecEvent | None:
    """What of an event is behind a position."""
    if not event.HasField("output"):
        fresh = event.sequence > position.after_sequence or event.HasField("heartbeat")
        return event if fresh else None
    name = pb.Stream.Name(event.output.stream).removeprefix("STREAM_").lower()
    seen = max(getattr(getattr(position, "from"), name) - event.output.offset, 0)
    if seen >= len(event.output.data):
        return None
    rest = pb.ExecEvent()
    rest.CopyFrom(event)
    rest.output.offset += seen
    rest.output.data = event.output.data[seen:]
    return rest


def refuse(context: Any, code: grpc.StatusCode, reason: str) -> None:
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(domain="qila", reason=reason))
    number = code.value[0]
    context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=number, message=reason, details=[info])))


@contextmanager
def served(gateway: ScriptedGateway) -> Iterator[str]:
    """Its address while it is served."""
    server = grpc.server(ThreadPoolExecutor(16))
    add_GatewayServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        gateway.break_streams()
        server.stop(0).wait()
