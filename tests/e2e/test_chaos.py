"""Services killed without warning: what comes back answers rightly, and the bytes are the very same."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc
import pytest

from qila.client import Client
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1 import gateway_pb2_grpc

if TYPE_CHECKING:
    import subprocess

    class Installation(Protocol):
        variables: dict[str, str]

        def qila(self, *arguments: str) -> subprocess.CompletedProcess[bytes]: ...


pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
LINES = 40
COUNT = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done"
EXPECTED = "".join(f"line {number}\n" for number in range(LINES)).encode()


@pytest.fixture
def gateway(installation: Installation) -> Iterator[gateway_pb2_grpc.GatewayServiceStub]:
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500)]
    with grpc.insecure_channel(installation.variables["QILA_GATEWAY_ADDRESS"], options=options) as channel:
        yield gateway_pb2_grpc.GatewayServiceStub(channel)


def kill(installation: Installation, name: str) -> None:
    """SIGKILL, and `qila up` again."""
    pid_file = Path(installation.variables["QILA_RUN_DIR"]) / f"{name}.pid"
    os.kill(json.loads(pid_file.read_text())["pid"], signal.SIGKILL)
    done = installation.qila("up")
    assert done.returncode == 0, done.stderr.decode()


def attach(
    gateway: gateway_pb2_grpc.GatewayServiceStub, sandbox: str, exec_id: str
) -> tuple[dict[int, bytes], pb.ExecEnded]:
    """Watches to the end, again whenever a service goes away; returns stdout by phase, and the end."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        output: dict[int, bytes] = {}
        try:
            request = pb.AttachExecRequest(sandbox_id=sandbox, exec_id=exec_id)
            for response in gateway.AttachExec(request, wait_for_ready=True):
                event = response.event
                if event.HasField("output") and event.output.stream == pb.STREAM_STDOUT:
                    output[event.output.phase] = output.get(event.output.phase, b"") + event.output.data
                if event.HasField("ended"):
                    return output, event.ended
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
    pytest.fail("the exec did not end")


def start(
    gateway: gateway_pb2_grpc.GatewayServiceStub, request: pb.ExecRequest, reached: Callable[[pb.ExecEvent], bool]
) -> str:
    """Starts an exec, waits until an event is reached, and lets go of the stream."""
    exec_id = ""
    stream = gateway.Exec(request)
    for response in stream:
        exec_id = response.event.created.exec_id or exec_id
        if reached(response.event):
            stream.cancel()
            return exec_id
    pytest.fail("the exec ended too early")


def is_run_output(event: pb.ExecEvent) -> bool:
    return event.HasField("output") and event.output.phase == pb.PHASE_RUN


def command(sandbox: str) -> pb.ExecRequest:
    return pb.ExecRequest(sandbox_id=sandbox, command=pb.Command(argv=["sh", "-c", COUNT]))


@pytest.mark.parametrize("service", ["executor", "gateway", "resolver"])
def test_kill_9_of_a_service_in_mid_run_loses_no_byte(
    installation: Installation, sandbox: str, gateway: gateway_pb2_grpc.GatewayServiceStub, service: str
) -> None:
    exec_id = start(gateway, command(sandbox), is_run_output)
    kill(installation, service)
    output, end = attach(gateway, sandbox, exec_id)
    assert end.WhichOneof("end") == "exited"
    assert end.exited == 0
    assert output[pb.PHASE_RUN] == EXPECTED
    assert attach(gateway, sandbox, exec_id) == (output, end)


def test_kill_9_of_a_program_is_told_as_it_is(
    installation: Installation, sandbox: str, gateway: gateway_pb2_grpc.GatewayServiceStub
) -> None:
    argv = ["sh", "-c", "echo before; kill -9 $$"]
    request = pb.ExecRequest(sandbox_id=sandbox, command=pb.Command(argv=argv))
    events = [response.event for response in gateway.Exec(request)]
    assert events[-1].ended.signaled == signal.SIGKILL
    assert installation.qila("exec", sandbox, "--", "true").returncode == 0


@pytest.mark.parametrize("service", ["executor", "gateway"])
def test_kill_9_of_a_service_in_mid_install_leaves_a_system_that_installs(
    installation: Installation, sandbox: str, gateway: gateway_pb2_grpc.GatewayServiceStub, service: str
) -> None:
    with Client(installation.variables["QILA_GATEWAY_ADDRESS"]) as client:
        source = Path(installation.variables["QILA_STATE_DIR"]) / "program.py"
        source.write_text("import numpy\nimport yaml\nprint(numpy.arange(3).sum(), yaml.safe_load('a: 1'))\n")
        with source.open("rb") as content:
            client.put(sandbox, "main.py", content)
    request = pb.ExecRequest(sandbox_id=sandbox, program=pb.Program(file="main.py"))
    exec_id = start(gateway, request, lambda event: event.phase_started.phase == pb.PHASE_INSTALL)
    kill(installation, service)
    output, end = attach(gateway, sandbox, exec_id)
    # An install whose executor was killed may end as lost or failed, but never as done when it is not.
    if end.WhichOneof("end") == "exited":
        assert output[pb.PHASE_RUN] == b"3 {'a': 1}\n"
    else:
        assert end.WhichOneof("end") in {"install_failed", "sandbox_lost"}
    again = installation.qila("exec", "-q", sandbox, "main.py")
    assert (again.returncode, again.stdout) == (0, b"3 {'a': 1}\n"), again.stderr.decode()
