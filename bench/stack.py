"""An installation of its own for the measurements, and `docker exec` beside it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qila.client.client import open_channel
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1 import gateway_pb2_grpc

ROOT = Path(__file__).resolve().parents[1]


class Stack:
    """The three services, in directories and on a port of their own."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        image = [str(ROOT / "scripts" / "image"), "--tag"]
        self.environment = os.environ | {
            "QILA_STATE_DIR": str(directory / "state"),
            "QILA_RUN_DIR": str(directory / "run"),
            "QILA_GATEWAY_ADDRESS": self.address,
            "QILA_HTTP_ADDRESS": "",
            "QILA_PREVIEW_ADDRESS": "127.0.0.1:0",
            "QILA_INSTANCE": directory.name.lower().replace("_", "-"),
            "QILA_SANDBOX_IMAGE": subprocess.run(image, check=True, capture_output=True, text=True).stdout.strip(),
        }
        self._qila("up")
        self.channel = open_channel(self.address)
        self.gateway = gateway_pb2_grpc.GatewayServiceStub(self.channel)

    def close(self) -> None:
        for sandbox in self.gateway.ListSandboxes(pb.ListSandboxesRequest()).sandboxes:
            self.remove(sandbox.id)
        self.channel.close()
        self._qila("down")

    def create(self) -> str:
        return str(self.gateway.CreateSandbox(pb.CreateSandboxRequest()).sandbox.id)

    def remove(self, sandbox_id: str) -> None:
        self.gateway.RemoveSandbox(pb.RemoveSandboxRequest(sandbox_id=sandbox_id))

    def put(self, sandbox_id: str, path: str, content: bytes) -> None:
        header = pb.WriteFileHeader(sandbox_id=sandbox_id, path=path)
        parts = [pb.WriteFileRequest(header=header), pb.WriteFileRequest(chunk=content)]
        parts.append(pb.WriteFileRequest(end=pb.WriteFileEnd()))
        self.gateway.WriteFile(iter(parts))

    def exec(self, request: pb.ExecRequest) -> tuple[int, bool]:
        """Runs to the end; returns the bytes of output and whether anything was installed."""
        size, installed = 0, False
        for event in self._events(request):
            size += len(event.output.data) if event.output.phase == pb.PHASE_RUN else 0
            installed |= event.phase_started.phase == pb.PHASE_INSTALL
        return size, installed

    def output(self, request: pb.ExecRequest) -> bytes:
        """Runs to the end; returns what the run wrote to stdout."""
        outputs = [event.output for event in self._events(request) if event.output.phase == pb.PHASE_RUN]
        return b"".join(output.data for output in outputs if output.stream == pb.STREAM_STDOUT)

    def chunks(self, request: pb.ExecRequest) -> Iterator[bytes]:
        """Runs to the end; gives what the run writes as it comes."""
        for event in self._events(request):
            if event.output.phase == pb.PHASE_RUN:
                yield event.output.data

    def pid(self, service: str) -> int:
        """Of a service of this installation."""
        pid_file = Path(self.environment["QILA_RUN_DIR"]) / f"{service}.pid"
        return int(json.loads(pid_file.read_text(encoding="utf-8"))["pid"])

    def _events(self, request: pb.ExecRequest) -> Iterator[pb.ExecEvent]:
        for response in self.gateway.Exec(request):
            ended = response.event.ended
            if response.event.HasField("ended") and (ended.WhichOneof("end") != "exited" or ended.exited):
                raise SystemExit(f"an exec of the benchmark ended otherwise than well: {ended}")
            yield response.event

    def command(self, sandbox_id: str, *argv: str) -> int:
        return self.exec(pb.ExecRequest(sandbox_id=sandbox_id, command=pb.Command(argv=argv)))[0]

    def _qila(self, verb: str) -> None:
        subprocess.run([ROOT / ".venv" / "bin" / "qila", verb], check=True, env=self.environment, timeout=120)


def container_of(sandbox_id: str) -> str:
    command = ["docker", "ps", "-q", "--filter", f"label=dev.qila.sandbox={sandbox_id}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def docker_exec(container: str, *argv: str) -> int:
    """The bytes of output."""
    command = ["docker", "exec", container, *argv]
    return len(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


@contextmanager
def running_stack() -> Iterator[Stack]:
    # Short: sockets lie below it.
    directory = Path(tempfile.mkdtemp(prefix="qila-bench-", dir="/tmp"))
    try:
        stack = Stack(directory)
        try:
            yield stack
        finally:
            stack.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
