"""Where an attack runs: a sandbox of the running executor, or a copy of its container with one thing weakened."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast

import docker

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb

from .file_calls import FileCalls, GatewayFiles, HostFiles
from .frame import Weakness
from .stack import Stack

if TYPE_CHECKING:
    from tests.integration.sandboxd_harness import Sandbox
else:
    from sandboxd_harness import Sandbox

PYTHON: Final = ("python3", "-I", "-c")
_NUMBERS: Final = itertools.count(1)
_QUIET_SECONDS: Final = 100


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a program ended: `kind` is a word of the wire, `code` its exit code or signal."""

    kind: str
    code: int
    out: bytes
    err: bytes

    @property
    def lines(self) -> list[str]:
        """What it printed."""
        return self.out.decode(errors="replace").splitlines()


class Running(Protocol):
    """A program that runs."""

    def stop(self) -> str:
        """Ends it from outside, and waits until that is said to be done; returns how it is said to have ended."""


class Box(Protocol):
    """A sandbox, shipped or weakened."""

    is_shipped: bool
    files: FileCalls

    @property
    def container(self) -> str:
        """The engine's name of the container."""

    def run(self, *argv: str, user: str = "program", seconds: float = 60) -> Outcome:
        """Runs a program to its end, or for so many seconds; `user` is program or install."""

    def start(self, *argv: str) -> Running:
        """Starts a program and waits for its first output."""


def run_python(box: Box, script: str, *arguments: object, user: str = "program", seconds: float = 60) -> list[str]:
    """Runs a script in a box and returns the lines that it printed. It must end by itself, and well."""
    outcome = box.run(*PYTHON, script, *map(str, arguments), user=user, seconds=seconds)
    assert (outcome.kind, outcome.code) == ("exited", 0), (outcome, outcome.err.decode(errors="replace"))
    return outcome.lines


class Shipped:
    """A sandbox as any client gets it, through the gateway; what runs as the installer goes through the executor."""

    is_shipped = True

    def __init__(self, stack: Stack, **limits: int) -> None:
        self.stack = stack
        self.id = stack.create(**limits)
        self.files: FileCalls = GatewayFiles(stack, self.id)

    @property
    def container(self) -> str:
        return f"qila-{self.stack.instance}-{self.id}"

    def close(self) -> None:
        self.stack.remove(self.id)

    def run(self, *argv: str, user: str = "program", seconds: float = 60) -> Outcome:
        if user == "install":
            return self._run_as_installer(argv, seconds)
        request = pb.ExecRequest(sandbox_id=self.id, command=pb.Command(argv=argv))
        request.run_timeout.FromMilliseconds(int(seconds * 1000))
        return collect(response.event for response in self.stack.gateway.Exec(request, timeout=seconds + 60))

    def exec_program(self, file: str, **variables: str) -> Outcome:
        """Runs a program of the workspace with what it needs."""
        request = pb.ExecRequest(sandbox_id=self.id, program=pb.Program(file=file), env=variables)
        return collect(response.event for response in self.stack.gateway.Exec(request, timeout=110))

    def start(self, *argv: str) -> Running:
        stream = self.stack.gateway.Exec(pb.ExecRequest(sandbox_id=self.id, command=pb.Command(argv=argv)))
        exec_id = ""
        for response in stream:
            exec_id = response.event.created.exec_id or exec_id
            if response.event.HasField("output"):
                break
        stream.cancel()
        return _Exec(self, exec_id)

    def _run_as_installer(self, argv: tuple[str, ...], seconds: float) -> Outcome:
        spec = executor.ProcessSpec(argv=argv, user=executor.USER_INSTALL)
        spec.timeout.FromMilliseconds(int(seconds * 1000))
        name = f"attack-{next(_NUMBERS)}"
        request = executor.RunProcessRequest(sandbox_id=self.id, process_id=name, spec=spec)
        return collect(response.event for response in self.stack.executor.RunProcess(request, timeout=seconds + 60))


def collect(events: Iterator[Any]) -> Outcome:
    """What an exec of the gateway, or a process of the executor, said and how it ended."""
    out: dict[int, bytearray] = {pb.STREAM_STDOUT: bytearray(), pb.STREAM_STDERR: bytearray()}
    for event in events:
        # What an installer says comes as output too, of another phase.
        if event.HasField("output") and getattr(event.output, "phase", pb.PHASE_RUN) == pb.PHASE_RUN:
            out[event.output.stream] += event.output.data
        if event.HasField("ended"):
            kind = event.ended.WhichOneof("end")
            code = getattr(event.ended, kind)
            return Outcome(
                kind=kind,
                code=code if isinstance(code, int) else 0,
                out=bytes(out[pb.STREAM_STDOUT]),
                err=bytes(out[pb.STREAM_STDERR]) + (b"" if isinstance(code, int) else str(code).encode()),
            )
    raise AssertionError("the stream ended without an end")


@dataclass(frozen=True)
class _Exec:
    box: Shipped
    exec_id: str

    def stop(self) -> str:
        gateway, sandbox = self.box.stack.gateway, self.box.id
        gateway.CancelExec(pb.CancelExecRequest(sandbox_id=sandbox, exec_id=self.exec_id), timeout=60)
        stream = gateway.AttachExec(pb.AttachExecRequest(sandbox_id=sandbox, exec_id=self.exec_id), timeout=60)
        return collect(response.event for response in stream).kind


class _Container(Sandbox):
    """The harness's sandbox, but made of what the engine says of another."""

    def __init__(self, engine: Any, shown: dict[str, Any], rows: Mapping[str, Any]) -> None:
        super().__init__()
        self._engine = engine
        host = shown["HostConfig"]
        for mount in host["Mounts"]:
            # A volume of its own, whatever the shipped one is made of.
            mount.pop("VolumeOptions", None)
            mount["Source"] = self.name if mount["Type"] == "volume" else str(self.directory)
            # The volume of a sandbox is laid out already; this one takes over what the image has there.
            mount.pop("VolumeOptions", None)
        for name, value in rows.items():
            host[name] = value(host[name]) if callable(value) else value
        # An engine refuses a name of its own where the network is the host's.
        kept = ("Image", "User") if host["NetworkMode"] == "host" else ("Image", "User", "Hostname")
        self._config = {key: shown["Config"][key] for key in kept} | {"HostConfig": host}

    def __enter__(self) -> Self:
        self.listener = self._bind("control.sock")
        self.doors = self._bind("doors.sock")
        try:
            made = self._engine.create_container_from_config(self._config, self.name)
            self._engine.start(made["Id"])
            self.connect()
        except BaseException:
            self.close()
            raise
        assert self.channel is not None
        self.channel.connection.settimeout(_QUIET_SECONDS)
        return self


class Clone:
    """A container with the very rows of a shipped one, but for its weakness; sandboxd in it speaks to the test."""

    is_shipped = False

    def __init__(self, shipped: Shipped, weakness: Weakness) -> None:
        self.weakness = weakness
        self._engine = engine()
        self.sandboxd = _Container(self._engine, self._engine.inspect_container(shipped.container), weakness.rows)
        self.files: FileCalls = HostFiles(lambda: self.workspace, weakness.naive_files)

    @property
    def container(self) -> str:
        return self.sandboxd.name

    @property
    def workspace(self) -> Path:
        """Where the host has the workspace."""
        return Path(self._engine.inspect_volume(self.container)["Mountpoint"])

    def __enter__(self) -> Self:
        self.sandboxd.__enter__()
        if self.weakness.prepare is not None:
            try:
                self.weakness.prepare(self)
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sandboxd.close()
        self._engine.close()

    def run(self, *argv: str, user: str = "program", seconds: float = 60) -> Outcome:
        if self.weakness.as_root or self.weakness.naive_kill:
            return self._run_by_the_engine(argv, seconds)
        header, out, err = self.sandboxd.run(*argv, user=user, timeout_ms=int(seconds * 1000))
        end = header["end"]
        return Outcome(kind=end["kind"], code=end.get("code") or end.get("signal") or 0, out=out, err=err)

    def _run_by_the_engine(self, argv: tuple[str, ...], seconds: float) -> Outcome:
        user = "0" if self.weakness.as_root else "1000"
        command = ["docker", "exec", "-u", user, self.container, *argv]
        try:
            done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            return Outcome(kind="timed_out", code=0, out=error.stdout or b"", err=error.stderr or b"")
        return Outcome(kind="exited", code=done.returncode, out=done.stdout, err=done.stderr)

    def start(self, *argv: str) -> Running:
        name = self.sandboxd.start(*argv)
        pid = self.sandboxd.wait("started", process=name)[0]["pid"]
        self.sandboxd.wait("output", process=name)
        return _Leader(self, name, pid)


@dataclass(frozen=True)
class _Leader:
    clone: Clone
    name: str
    pid: int

    def stop(self) -> str:
        pid = host_pid(self.clone.container, self.pid)
        if not self.clone.weakness.naive_kill:
            self.clone.sandboxd.send({"type": "cancel", "process": self.name})
        elif pid is not None:
            os.kill(pid, signal.SIGKILL)
        return str(self.clone.sandboxd.wait("ended", process=self.name)[0]["end"]["kind"])


def engine() -> Any:
    """A client of the engine; the stubs name other versions' methods."""
    return cast("Any", docker).APIClient(version="auto", timeout=60)


def container_id(container: str) -> str:
    """The engine's id of a container."""
    shown = subprocess.run(
        ["docker", "inspect", "-f", "{{.Id}}", container], capture_output=True, text=True, timeout=30, check=True
    )
    return shown.stdout.strip()


def host_pids(container: str) -> list[int]:
    """Every process of a container, as the host sees them by their control group."""
    wanted = container_id(container).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if wanted in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def host_pid(container: str, pid: int) -> int | None:
    """The host's number of a container's process; None if it has ended."""
    for candidate in host_pids(container):
        try:
            status = Path(f"/proc/{candidate}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if status.partition("NSpid:")[2].split("\n")[0].split()[-1] == str(pid):
            return candidate
    return None


class Boxes:
    """Boxes by what they are: shared within a module, or made for one attack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._shipped: Shipped | None = None
        self._clones: dict[str, Clone] = {}

    @property
    def shipped(self) -> Shipped:
        if self._shipped is None:
            self._shipped = Shipped(self.stack)
        return self._shipped

    def clone(self, weakness: Weakness) -> Clone:
        if weakness.name not in self._clones:
            self._clones[weakness.name] = Clone(self.shipped, weakness).__enter__()
        return self._clones[weakness.name]

    def close(self) -> None:
        for clone in self._clones.values():
            clone.close()
        if self._shipped is not None:
            self._shipped.close()


def unused_name() -> str:
    """A name that nothing else has."""
    return f"qila-attack-{secrets.token_hex(6)}"


def host_directory() -> Path:
    """A directory of the host that only its root may enter."""
    return Path(tempfile.mkdtemp(prefix="qila-attack-"))


def in_time(work: Callable[[], object], seconds: float) -> bool:
    """Whether some work ends in time."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
