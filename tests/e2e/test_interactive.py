"""Programs that are written to, on pipes and on terminals, while services are killed."""

from __future__ import annotations

import hashlib
import queue
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import grpc
import pytest
from test_chaos import attach, kill  # type: ignore[import-not-found]  # pytest puts this directory on the path

from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1 import gateway_pb2_grpc

if TYPE_CHECKING:
    import subprocess

    class Installation(Protocol):
        variables: dict[str, str]

        def qila(self, *arguments: str) -> subprocess.CompletedProcess[bytes]: ...


pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
CHUNK = 64 << 10
INPUT = b"".join(b"%07d\n" % number for number in range(1 << 20))


@pytest.fixture(name="gateway")
def connect(installation: Installation) -> Iterator[gateway_pb2_grpc.GatewayServiceStub]:
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500)]
    with grpc.insecure_channel(installation.variables["QILA_GATEWAY_ADDRESS"], options=options) as channel:
        yield gateway_pb2_grpc.GatewayServiceStub(channel)


def start(gateway: gateway_pb2_grpc.GatewayServiceStub, request: pb.ExecRequest) -> str:
    request.detach = True
    [created] = list(gateway.Exec(request))
    exec_id: str = created.event.created.exec_id
    return exec_id


class Keyboard:
    """A stream into an exec that stays open: what is typed goes at once."""

    def __init__(self, gateway: gateway_pb2_grpc.GatewayServiceStub, sandbox: str, exec_id: str) -> None:
        self._keys: queue.Queue[bytes] = queue.Queue()
        self._header = pb.WriteStdinHeader(sandbox_id=sandbox, exec_id=exec_id)
        self.answers = gateway.WriteStdin(self._requests(), wait_for_ready=True)
        self._offset = next(self.answers).accepted

    def type(self, data: bytes) -> None:
        self._keys.put(data)

    def _requests(self) -> Iterator[pb.WriteStdinRequest]:
        yield pb.WriteStdinRequest(header=self._header)
        while data := self._keys.get():
            yield pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=self._offset, data=data))
            self._offset += len(data)


class Screen:
    """What an exec's terminal shows."""

    def __init__(self, gateway: gateway_pb2_grpc.GatewayServiceStub, sandbox: str, exec_id: str) -> None:
        request = pb.AttachExecRequest(sandbox_id=sandbox, exec_id=exec_id)
        self._events = gateway.AttachExec(request, wait_for_ready=True)
        self.text = b""
        self.ended = pb.ExecEnded()

    def until(self, words: bytes) -> None:
        while words not in self.text:
            self._take(next(self._events).event)

    def rest(self) -> None:
        for response in self._events:
            self._take(response.event)

    def _take(self, event: pb.ExecEvent) -> None:
        if event.HasField("output"):
            assert (event.output.stream, event.output.offset) == (pb.STREAM_TERMINAL, len(self.text))
            self.text += event.output.data
        if event.HasField("ended"):
            self.ended = event.ended


def pour(gateway: gateway_pb2_grpc.GatewayServiceStub, sandbox: str, exec_id: str, stop: int) -> None:
    """Writes the input from where it stands to `stop`, as a client does whose connection may break."""
    start_at: queue.Queue[int] = queue.Queue()

    def requests() -> Iterator[pb.WriteStdinRequest]:
        yield pb.WriteStdinRequest(header=pb.WriteStdinHeader(sandbox_id=sandbox, exec_id=exec_id))
        for offset in range(start_at.get(), stop, CHUNK):
            data = INPUT[offset : min(offset + CHUNK, stop)]
            yield pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=offset, data=data))
        if stop == len(INPUT):
            yield pb.WriteStdinRequest(end=pb.StdinEnd(offset=stop))

    answers = gateway.WriteStdin(requests(), wait_for_ready=True)
    accepted = next(answers).accepted
    start_at.put(accepted)
    for answer in answers:
        accepted = answer.accepted
    assert accepted == stop


def test_input_goes_on_after_each_service_was_killed(
    installation: Installation, gateway: gateway_pb2_grpc.GatewayServiceStub, sandbox: str
) -> None:
    exec_id = start(gateway, pb.ExecRequest(sandbox_id=sandbox, command=pb.Command(argv=["sha256sum"]), stdin=True))
    half = len(INPUT) // 2
    pour(gateway, sandbox, exec_id, half // 2)
    kill(installation, "gateway")
    pour(gateway, sandbox, exec_id, half)
    # In the middle of a stream: the writer notices nothing.
    killing = threading.Timer(0.02, kill, (installation, "executor"))
    killing.start()
    pour(gateway, sandbox, exec_id, len(INPUT))
    killing.join()
    output, ended = attach(gateway, sandbox, exec_id)
    assert output[pb.PHASE_RUN].decode().split()[0] == hashlib.sha256(INPUT).hexdigest()
    assert ended.exited == 0


def test_shell_on_a_terminal_outlives_both_services(
    installation: Installation, gateway: gateway_pb2_grpc.GatewayServiceStub, sandbox: str
) -> None:
    request = pb.ExecRequest(sandbox_id=sandbox, command=pb.Command(argv=["sh"]))
    request.terminal.rows, request.terminal.columns = 24, 80
    exec_id = start(gateway, request)
    keyboard = Keyboard(gateway, sandbox, exec_id)
    keyboard.type(b"stty size; x=kept; sleep 1000\n")
    shown = Screen(gateway, sandbox, exec_id)
    shown.until(b"24 80\r\n")
    gateway.ResizeTerminal(
        pb.ResizeTerminalRequest(sandbox_id=sandbox, exec_id=exec_id, terminal=pb.Terminal(rows=50, columns=132))
    )
    kill(installation, "executor")
    keyboard.type(b"\x03")
    keyboard.type(b"stty size; echo $x\n")
    shown.until(b"50 132\r\nkept\r\n")
    kill(installation, "gateway")
    again = Keyboard(gateway, sandbox, exec_id)
    again.type(b"echo $x again; sleep 1000\n")
    shown = Screen(gateway, sandbox, exec_id)
    shown.until(b"kept again\r\n")
    gateway.SignalExec(pb.SignalExecRequest(sandbox_id=sandbox, exec_id=exec_id, signal=signal.SIGINT))
    again.type(b"exit 7\n")
    shown.rest()
    assert (shown.ended.exited, shown.ended.length.terminal) == (7, len(shown.text))
    with pytest.raises(grpc.RpcError) as caught:
        gateway.SignalExec(pb.SignalExecRequest(sandbox_id=sandbox, exec_id=exec_id, signal=signal.SIGINT))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_silent_program_is_told_of_and_ended_when_it_is_idle(
    gateway: gateway_pb2_grpc.GatewayServiceStub, sandbox: str
) -> None:
    request = pb.ExecRequest(sandbox_id=sandbox, command=pb.Command(argv=["sleep", "1000"]))
    request.idle_timeout.seconds = 18
    events = [response.event for response in gateway.Exec(request)]
    assert [event.heartbeat.phase for event in events if event.HasField("heartbeat")] == [pb.PHASE_RUN]
    assert events[-1].ended.timed_out == pb.TimedOut(phase=pb.PHASE_RUN, idle=True)
