"""The three services on this machine: background processes of this user, known by pid files."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qila.executor.v1 import executor_pb2, executor_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

DEFAULT_HTTP_ADDRESS: Final = "127.0.0.1:8080"
NAMES: Final = ("resolver", "executor", "gateway")
_ROOT: Final = Path(__file__).resolve().parents[2]
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 60.0
_PROBE_SECONDS: Final = 1.0
_LOG_TAIL_BYTES: Final = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that `up` started; `start_time` is in clock ticks since boot and tells it from a reused id."""

    pid: int
    start_time: int


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Where the services of one installation keep what is theirs, and the gateway's addresses; `http` may be empty."""

    run_directory: Path
    state_directory: Path
    address: str
    http: str
    variables: Mapping[str, str]

    def address_of(self, name: str) -> str:
        """The gRPC target of a service."""
        return self.address if name == "gateway" else f"unix:{self.run_directory / name}.sock"

    def log_of(self, name: str) -> Path:
        """The file that holds what a service prints."""
        return self.state_directory / "log" / f"{name}.log"

    def pid_file_of(self, name: str) -> Path:
        """The file that says which process a service is."""
        return self.run_directory / f"{name}.pid"


def up(stack: Stack, say: Callable[[str], None]) -> None:
    """Starts what does not run, in order, and waits for health. What it started is stopped again if one fails.

    Raises click.ClickException with the last line of the failed service's log.
    """
    with _locked(stack):
        started: list[str] = []
        try:
            for name in NAMES:
                if running(stack, name) is None:
                    _refuse_foreign(stack, name)
                    say(f"{name}: starting")
                    started.append(name)
                    _wait_for_health(stack, name, _start(stack, name))
                elif not healthy(stack, name):
                    raise click.ClickException(  # noqa: TRY301 - undone like every failure below
                        f"{name} runs but is not healthy; run 'qila down', then 'qila up'"
                    )
                say(f"{name}: running")
        except BaseException:
            for name in reversed(started):
                _stop(stack, name)
            raise


def down(stack: Stack, say: Callable[[str], None]) -> list[str]:
    """Ends the services that `up` started, the gateway first, and answers which. ClickException if one does not end."""
    stopped = []
    with _locked(stack):
        for name in reversed(NAMES):
            if _stop(stack, name):
                stopped.append(name)
                say(f"{name}: stopped")
            else:
                say(f"{name}: was not running")
    return stopped


def running(stack: Stack, name: str) -> Process | None:
    """The process of a service; None if it does not run, or if its id belongs to another process now."""
    try:
        recorded = json.loads(stack.pid_file_of(name).read_text())
        process = Process(pid=int(recorded["pid"]), start_time=int(recorded["start_time"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return process if _is_service(process, name) else None


def healthy(stack: Stack, name: str) -> bool:
    """Whether the service answers its health probe."""
    with grpc.insecure_channel(stack.address_of(name), options=[("grpc.enable_http_proxy", 0)]) as channel:
        probe = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        try:
            answer = probe.Check(request, timeout=_PROBE_SECONDS)  # type: ignore[attr-defined]  # set by its __init__
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def http_answers(stack: Stack) -> bool:
    """Whether the gateway's HTTP door answers."""
    host, _, port = stack.http.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", "/v1/health", headers={"Host": stack.http})
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def storage(stack: Stack) -> executor_pb2.GetStorageResponse | None:
    """How the executor keeps workspaces; None if it does not answer."""
    with grpc.insecure_channel(stack.address_of("executor"), options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = executor_pb2_grpc.ExecutorServiceStub(channel)
        try:
            return stub.GetStorage(executor_pb2.GetStorageRequest(), timeout=_PROBE_SECONDS)
        except grpc.RpcError:
            return None


def describe_storage(storage: executor_pb2.GetStorageResponse) -> list[str]:
    """What an operator wants to know of it, a line each."""
    bound = "without a limit"
    if storage.default_disk_bytes:
        kind = executor_pb2.WorkspaceQuota.Name(storage.quota).removeprefix("WORKSPACE_QUOTA_").lower()
        bound = f"{_gibibytes(storage.default_disk_bytes)} each, quota by {kind}"
    lines = [f"workspace {bound}{f': {storage.detail}' if storage.detail else ''}"]
    for system in storage.file_systems:
        low = " (LOW: new work is refused)" if system.free_bytes < system.low_water_bytes else ""
        lines.append(
            f"disk      {_gibibytes(system.free_bytes)} free at {system.path}, "
            f"low-water mark {_gibibytes(system.low_water_bytes)}{low}"
        )
    return lines


def _gibibytes(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def start_time_of(pid: int) -> int | None:
    """Clock ticks since boot at which a process began; None if it is not there or has ended."""
    try:
        # The command's name may hold blanks and brackets: fields are counted from its last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def last_words(log: Path) -> str:
    """The last line of a log, unpacked if it is JSON."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").split("\n")
    line = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    with suppress(ValueError):
        document = json.loads(line)
        if isinstance(document, dict) and "event" in document:
            details = [str(document[key]) for key in ("error", "reason") if key in document]
            return ": ".join([str(document["event"]), *details])
    return line


def _is_service(process: Process, name: str) -> bool:
    if start_time_of(process.pid) != process.start_time:
        return False
    try:
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return f"services.{name}".encode() in words


def _start(stack: Stack, name: str) -> subprocess.Popen[bytes]:
    log = stack.log_of(name)
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
            [sys.executable, "-m", f"services.{name}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(stack.variables),
            cwd="/",
            start_new_session=True,
        )
    record = {"pid": child.pid, "start_time": start_time_of(child.pid) or 0}
    stack.pid_file_of(name).write_text(json.dumps(record) + "\n")
    return child


def _refuse_foreign(stack: Stack, name: str) -> None:
    """What answers at the address already would pass for the service that is about to fail there."""
    if healthy(stack, name):
        address = stack.address_of(name)
        raise click.ClickException(
            f"{name}: another installation answers at {address}; stop it, or set another address and directory"
        )


def _wait_for_health(stack: Stack, name: str, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        # Its end is looked for first: it says why.
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.1)
            raise click.ClickException(f"{name} did not start: {last_words(stack.log_of(name))}")
        if healthy(stack, name):
            return
        if time.monotonic() >= deadline:
            log = stack.log_of(name)
            raise click.ClickException(
                f"{name} is not healthy after {_START_SECONDS:g} s: {last_words(log)} (see {log})"
            )


def _stop(stack: Stack, name: str) -> bool:
    process = running(stack, name)
    if process is not None:
        _terminate(stack, name, process)
    stack.pid_file_of(name).unlink(missing_ok=True)
    return process is not None


def _terminate(stack: Stack, name: str, process: Process) -> None:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # With the handle in hand the id cannot be reused any more: look once again, then signal.
        if not _is_service(process, name):
            return
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(_STOP_SECONDS * 1000):
            raise click.ClickException(
                f"{name} (process {process.pid}) has not ended {_STOP_SECONDS:g} s after SIGTERM; "
                f"see {stack.log_of(name)}"
            )
    finally:
        os.close(handle)


@contextmanager
def _locked(stack: Stack) -> Iterator[None]:
    try:
        stack.run_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        stack.state_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (stack.run_directory / "up.lock").open("w")
    except OSError as error:
        hint = "run as root, or set QILA_RUN_DIR and QILA_STATE_DIR to directories of your own"
        raise click.ClickException(f"{error.filename}: {error.strerror}; {hint}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException("another 'qila up' or 'qila down' is at work; wait for it") from None
        yield


def stack_from(variables: Mapping[str, str], address: str) -> Stack:
    """The stack that the variables describe. In a checkout its own code and its own sandbox image are used."""
    paths = [str(_ROOT), str(_ROOT / "protos"), variables.get("PYTHONPATH", "")]
    run_directory = variables.get("QILA_RUN_DIR") or "/run/qila"
    state_directory = variables.get("QILA_STATE_DIR") or "/var/lib/qila"
    own = {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "QILA_RUN_DIR": run_directory,
        "QILA_STATE_DIR": state_directory,
        "QILA_GATEWAY_ADDRESS": address,
        "QILA_SANDBOX_IMAGE": variables.get("QILA_SANDBOX_IMAGE") or _image_of_checkout(),
    }
    return Stack(
        run_directory=Path(run_directory),
        state_directory=Path(state_directory),
        address=address,
        http=variables.get("QILA_HTTP_ADDRESS", DEFAULT_HTTP_ADDRESS).removeprefix("off"),
        variables={**variables, **own},
    )


def _image_of_checkout() -> str:
    script = _ROOT / "scripts" / "image"
    if not script.exists():
        return ""
    shown = subprocess.run([script, "--tag"], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - ours
    if shown.returncode:
        raise click.ClickException(f"{script} --tag failed: {shown.stderr.strip()}")
    return shown.stdout.strip()
