# ruff: noqa: D102  # the port specifies the calls
"""The executor in memory: files, links and scripted processes, behind the same port."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from qila.executor.v1 import executor_pb2 as executor
from services.gateway.executor_fake_files import FakeFiles
from services.gateway.executor_fake_watches import FakeWatches
from services.gateway.journal import Bell
from services.gateway.ports import StdinPart, Survey
from services.gateway.process_fake import FakeProcess, count, echo, ignore
from services.rpc.errors import (
    QilaError,
    already_exists,
    failed_precondition,
    invalid_argument,
    not_found,
    unavailable,
)

__all__ = ["FakeExecutor", "FakeProcess", "FakeSandbox", "Program"]

Program = Callable[[FakeProcess], Awaitable[int]]


@dataclass(eq=False, kw_only=True)
class FakeSandbox:
    """What a sandbox holds."""

    sandbox_id: str
    files: dict[str, bytes] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    transfers: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    processes: dict[str, FakeProcess] = field(default_factory=dict)
    install_open: bool = False
    egress: executor.EgressPolicy = field(default_factory=executor.EgressPolicy)
    records: list[executor.EgressRecord] = field(default_factory=list)
    bell: Bell = field(default_factory=Bell)
    # By port: what a server there answers to each chunk, which may be nothing.
    servers: dict[int, Callable[[bytes], bytes]] = field(default_factory=dict)
    unmanaged: dict[str, str] = field(default_factory=dict)
    image: str = "default"
    # What was renamed, from where to where.
    moves: list[tuple[str, str]] = field(default_factory=list)
    watches: int = 0
    stopped: bool = False

    def decide(self, **fields: Any) -> None:
        """A decision of the doors."""
        self.records.append(executor.EgressRecord(sequence=len(self.records) + 1, **fields))
        self.bell.ring()


class FakeExecutor(FakeFiles, FakeWatches):
    """`ExecutorPort` in memory.

    Attributes:
        programs: what argv[0] does: gets the process, gives its exit code.
        down: every call is UNAVAILABLE while it is true, and streams break off.
        refused: set when a call or a stream met `down`.
        started: ids of the processes that were started, in order.
        connect_hosts: what the operator allows.
        package_policy: digest of the operator's package policy.
        images: toolchains of the images by name.
    """

    def __init__(self) -> None:
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.programs: dict[str, Program] = {"true": _true, "echo": echo, "count": count, "ignore": ignore}
        self.down = False
        self.refused = asyncio.Event()
        self.started: list[str] = []
        self.connect_hosts: set[str] = set()
        self.package_policy = ""
        self.images: dict[str, dict[str, str]] = {"default": {"python": "3.13.5", "platform": "linux/amd64"}}

    def break_off(self) -> None:
        """The executor dies: streams break, processes go on."""
        self.down = True
        for sandbox in self.sandboxes.values():
            sandbox.bell.ring()
            for process in sandbox.processes.values():
                process.bell.ring()

    async def create_sandbox(self, request: executor.CreateSandboxRequest) -> executor.Sandbox:
        self._check()
        sandbox_id = "sb_" + "abcdefghijklmnopqrstuvwxyz"[len(self.sandboxes) % 26] * 26
        image = request.image or "default"
        if image not in self.images:
            raise invalid_argument("IMAGE_UNKNOWN", f"image: {image!r} is none of {', '.join(self.images)}")
        egress = self._in_force(request.egress)
        egress.mode = egress.mode or executor.EGRESS_MODE_REGISTRIES
        self.sandboxes[sandbox_id] = FakeSandbox(sandbox_id=sandbox_id, egress=egress, image=image)
        running = executor.SANDBOX_STATE_RUNNING
        made = executor.Sandbox(id=sandbox_id, state=running, limits=request.limits, image_name=image)
        made.egress.CopyFrom(egress)
        made.create_time.GetCurrentTime()
        return made

    async def sandbox(self, sandbox_id: str) -> executor.Sandbox:
        sandbox = self._sandbox(sandbox_id)
        return executor.Sandbox(id=sandbox_id, egress=sandbox.egress, image_name=sandbox.image)

    async def list_images(self) -> Sequence[executor.Image]:
        self._check()
        return [
            executor.Image(name=name, toolchains=toolchains, is_default=name == "default")
            for name, toolchains in self.images.items()
        ]

    async def list_sandboxes(self) -> Sequence[executor.Sandbox]:
        self._check()
        return [executor.Sandbox(id=sandbox_id) for sandbox_id in self.sandboxes]

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self._check()
        removed = self.sandboxes.pop(sandbox_id, None)
        if removed is not None:
            removed.bell.ring()

    async def survey(self, sandbox_id: str, known_digest: str = "") -> Survey:
        sandbox = self._sandbox(sandbox_id)
        entries = [
            executor.SurveyEntry(path=path, size=len(content))
            for path, content in sorted(sandbox.files.items())
            if not path.startswith(".qila/")
        ]
        digest = hashlib.sha256(repr([(e.path, sandbox.files[e.path]) for e in entries]).encode()).hexdigest()
        summary = executor.SurveySummary(
            digest=digest,
            unchanged=digest == known_digest,
            file_count=len(entries),
            toolchains=self.images[sandbox.image],
            package_policy=self.package_policy,
            unmanaged=[
                executor.UnmanagedDirectory(path=path, digest=digest) for path, digest in sandbox.unmanaged.items()
            ],
        )
        for path in sandbox.files:
            parts = path.split("/")
            if path.startswith(".qila/env/") and parts[-1] == ".complete":
                current = sandbox.links.get(f".qila/current/{parts[2]}") == f"../env/{parts[2]}/{parts[3]}"
                summary.environments.add(ecosystem=parts[2], fingerprint=parts[3], current=current)
        return Survey(entries=[] if summary.unchanged else entries, summary=summary)

    async def make_link(self, sandbox_id: str, path: str, target: str, user: executor.User.ValueType) -> None:  # noqa: ARG002  # rights are not simulated
        sandbox = self._sandbox(sandbox_id)
        if path in sandbox.files:
            raise failed_precondition("NOT_A_LINK", f"{path}: something that is not a link is there")
        sandbox.links[path] = target

    async def run_process(self, request: executor.RunProcessRequest) -> AsyncGenerator[executor.ProcessEvent, None]:
        sandbox = self._sandbox(request.sandbox_id)
        process = sandbox.processes.get(request.process_id)
        if process is None:
            process = FakeProcess(sandbox=sandbox, process_id=request.process_id, spec=request.spec)
            sandbox.processes[request.process_id] = process
            self.started.append(request.process_id)
            process.task = asyncio.create_task(self._live(process))
        elif process.spec != request.spec:
            raise already_exists("PROCESS_EXISTS", f"{request.process_id} was started with another spec")
        async for event in process.follow(getattr(request, "from"), self._check):
            yield event

    async def attach_process(
        self, request: executor.AttachProcessRequest
    ) -> AsyncGenerator[executor.ProcessEvent, None]:
        process = self._process(request.sandbox_id, request.process_id)
        async for event in process.follow(getattr(request, "from"), self._check):
            yield event

    async def write_stdin(
        self, sandbox_id: str, process_id: str, parts: AsyncIterator[StdinPart]
    ) -> AsyncGenerator[int, None]:
        process = self._process(sandbox_id, process_id)
        async with aclosing(process.take_input(parts, self._check)) as answers:
            async for accepted in answers:
                yield accepted

    async def resize_terminal(self, sandbox_id: str, process_id: str, terminal: executor.Terminal) -> None:
        process = self._process(sandbox_id, process_id)
        if not process.spec.HasField("terminal"):
            raise failed_precondition("NO_TERMINAL", f"{process_id} has no terminal")
        process.check_running()
        process.sizes.append((terminal.rows, terminal.columns))

    async def signal_process(self, sandbox_id: str, process_id: str, number: int) -> None:
        process = self._process(sandbox_id, process_id)
        process.check_running()
        process.signals.append(number)
        process.bell.ring()

    async def cancel_process(self, sandbox_id: str, process_id: str) -> None:
        self._process(sandbox_id, process_id).cancelled.set()

    async def set_install_phase(self, sandbox_id: str, *, open_: bool) -> int:
        sandbox = self._sandbox(sandbox_id)
        sandbox.install_open = open_
        return len(sandbox.records)

    async def set_egress_policy(self, sandbox_id: str, policy: executor.EgressPolicy) -> executor.EgressPolicy:
        sandbox = self._sandbox(sandbox_id)
        if not policy.mode:
            raise invalid_argument("INVALID_FIELD", "egress.mode: must be REGISTRIES or NONE")
        sandbox.egress = self._in_force(policy)
        return sandbox.egress

    async def list_egress(
        self, request: executor.ListEgressRequest
    ) -> AsyncGenerator[executor.ListEgressResponse, None]:
        sandbox = self._sandbox(request.sandbox_id)
        after = request.after_sequence
        while True:
            self._check()
            later = sandbox.records[after:]
            after += len(later)
            found = [
                record
                for record in later
                if request.exec_id in {"", record.exec_id} and request.verdict in {0, record.verdict}
            ]
            if found:
                yield executor.ListEgressResponse(records=found)
            if not request.follow or request.sandbox_id not in self.sandboxes:
                return
            if after >= len(sandbox.records):
                await sandbox.bell.wait()

    async def connect_port(
        self, requests: AsyncIterator[executor.ConnectPortRequest]
    ) -> AsyncGenerator[executor.ConnectPortResponse, None]:
        header = (await anext(aiter(requests))).header
        server = self._sandbox(header.sandbox_id).servers.get(header.port)
        if server is None:
            raise failed_precondition("PORT_CLOSED", f"nothing in the sandbox takes connections on port {header.port}")
        yield executor.ConnectPortResponse(connected=executor.PortConnected())
        async for request in requests:
            if request.HasField("end"):
                break
            if answer := server(request.chunk):
                yield executor.ConnectPortResponse(chunk=answer)
        yield executor.ConnectPortResponse(end=executor.PortEnd())

    async def _live(self, process: FakeProcess) -> None:
        program = self.programs.get(process.spec.argv[0])
        if program is None:
            failed = executor.StartFailed(error="ENOENT", detail=f"{process.spec.argv[0]}: no such command")
            process.end(executor.ProcessEnded(start_failed=failed))
            return
        running = asyncio.ensure_future(program(process))
        cancelling = asyncio.ensure_future(process.cancelled.wait())
        await asyncio.wait([running, cancelling], return_when=asyncio.FIRST_COMPLETED)
        cancelling.cancel()
        if running.done():
            process.end(executor.ProcessEnded(exited=running.result()))
        else:
            running.cancel()
            process.end(executor.ProcessEnded(cancelled=executor.Cancelled()))

    def _in_force(self, policy: executor.EgressPolicy) -> executor.EgressPolicy:
        refused = sorted(set(policy.hosts) - self.connect_hosts)
        if refused:
            raise invalid_argument("HOST_NOT_ALLOWED", f"egress.hosts: {refused[0]} is not allowed; see the operator")
        in_force = executor.EgressPolicy()
        in_force.CopyFrom(policy)
        return in_force

    def _holds(self, sandbox: FakeSandbox) -> bool:
        return self.sandboxes.get(sandbox.sandbox_id) is sandbox

    def _check(self) -> None:
        if self.down:
            self.refused.set()
            raise unavailable("EXECUTOR_UNAVAILABLE", "the executor does not answer; repeat the call")

    def _sandbox(self, sandbox_id: str) -> FakeSandbox:
        self._check()
        if sandbox_id not in self.sandboxes:
            raise not_found("SANDBOX_NOT_FOUND", f"no sandbox {sandbox_id!r}")
        return self.sandboxes[sandbox_id]

    def _process(self, sandbox_id: str, process_id: str) -> FakeProcess:
        sandbox = self._sandbox(sandbox_id)
        if process_id not in sandbox.processes:
            raise _no_process(process_id)
        return sandbox.processes[process_id]


def _no_process(process_id: str) -> QilaError:
    return not_found("PROCESS_NOT_FOUND", f"no process {process_id!r}")


async def _true(_process: FakeProcess) -> int:
    return 0
