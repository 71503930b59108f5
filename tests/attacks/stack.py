"""A whole installation for the attacks: the three services as they are, and registries that are the test's own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qila.executor.v1 import executor_pb2_grpc
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1 import gateway_pb2_grpc

ROOT: Final = Path(__file__).resolve().parents[2]
_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 << 20))
_START_SECONDS: Final = 120


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Running services: their processes by name, and a stub of each that the attacks speak to."""

    directory: Path
    processes: dict[str, subprocess.Popen[bytes]]
    gateway: gateway_pb2_grpc.GatewayServiceStub
    executor: executor_pb2_grpc.ExecutorServiceStub
    instance: str

    def create(self, **limits: int) -> str:
        """The id of a new sandbox."""
        request = pb.CreateSandboxRequest(limits=pb.Limits(**limits))
        return self.gateway.CreateSandbox(request, timeout=120).sandbox.id

    def remove(self, sandbox: str) -> None:
        """Removes a sandbox; one that is not there is fine."""
        self.gateway.RemoveSandbox(pb.RemoveSandboxRequest(sandbox_id=sandbox), timeout=120)

    def log_of(self, name: str) -> str:
        """What a service has logged."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def doors_pid(self) -> int | None:
        """The doors process of this installation; None while there is none."""
        executor = self.processes["executor"].pid
        for task in Path(f"/proc/{executor}/task").iterdir():
            for child in (task / "children").read_text().split():
                if b"services.executor.egress" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return None


def start(image: str, registries_url: str) -> Stack:
    """Starts the three services and waits until each is healthy."""
    # Sockets below it need a short path.
    directory = Path(tempfile.mkdtemp(prefix="qa", dir="/tmp"))
    (directory / "registries.toml").write_text(registries(registries_url))
    port = _free_port()
    instance = f"attacks-{port}"
    variables = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
        "QILA_STATE_DIR": str(directory / "state"),
        "QILA_RUN_DIR": str(directory / "run"),
        "QILA_GATEWAY_ADDRESS": f"127.0.0.1:{port}",
        "QILA_HTTP_ADDRESS": "",
        "QILA_PREVIEW_ADDRESS": "127.0.0.1:0",
        "QILA_INSTANCE": instance,
        "QILA_SANDBOX_IMAGE": image,
    }
    addresses = {
        "resolver": f"unix:{directory}/run/resolver.sock",
        "executor": f"unix:{directory}/run/executor.sock",
        "gateway": f"127.0.0.1:{port}",
    }
    launcher = [str(Path(__file__).with_name("executor_with_registries.py")), str(directory / "registries.toml")]
    processes: dict[str, subprocess.Popen[bytes]] = {}
    for name, address in addresses.items():
        command = launcher if name == "executor" else ["-m", f"services.{name}"]
        with (directory / f"{name}.log").open("ab") as log:
            processes[name] = subprocess.Popen(
                [sys.executable, *command], env=variables, cwd="/", stdout=log, stderr=log, start_new_session=True
            )
        _wait_for_health(name, address, processes[name], directory / f"{name}.log")
    return Stack(
        directory=directory,
        processes=processes,
        gateway=gateway_pb2_grpc.GatewayServiceStub(grpc.insecure_channel(addresses["gateway"], options=_OPTIONS)),
        executor=executor_pb2_grpc.ExecutorServiceStub(grpc.insecure_channel(addresses["executor"], options=_OPTIONS)),
        instance=instance,
    )


def stop(stack: Stack) -> None:
    """Removes every sandbox and ends the services."""
    for sandbox in stack.gateway.ListSandboxes(pb.ListSandboxesRequest(), timeout=60).sandboxes:
        stack.remove(sandbox.id)
    for process in reversed(stack.processes.values()):
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    shutil.rmtree(stack.directory)


def registries(url: str) -> str:
    """The product's own registries file, with every host replaced by one."""
    shipped = tomllib.loads((ROOT / "services/executor/egress/registries.toml").read_text())
    lines = []
    for name, table in shipped.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(url if isinstance(value, str) else [])}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_health(name: str, address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        probe: Any = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline and process.poll() is None:
            try:
                answer = probe.Check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=True)
            except grpc.RpcError:
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise AssertionError(f"{name} did not start: {log.read_text(errors='replace')[-2000:]}")
