# ruff: noqa: D102  # the proto and the port specify the calls
"""What the conductor asks of the executor and the resolver: the same interface over the wire and in a fake.

Every call raises `QilaError` with what the service said; UNAVAILABLE if it does not answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from qila.executor.v1 import executor_pb2 as executor
from qila.resolver.v1 import resolver_pb2 as resolver

StdinPart = executor.StdinChunk | executor.StdinEnd


def unchecked() -> str:
    """The SHA-256 of an upload whose sender gave none."""
    return ""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All batches of a survey; no entries if its digest was known."""

    entries: Sequence[executor.SurveyEntry]
    summary: executor.SurveySummary


class ExecutorPort(Protocol):
    """The executor's calls, as its proto specifies them."""

    async def create_sandbox(self, request: executor.CreateSandboxRequest) -> executor.Sandbox: ...

    async def sandbox(self, sandbox_id: str) -> executor.Sandbox: ...

    async def list_images(self) -> Sequence[executor.Image]: ...

    async def list_sandboxes(self) -> Sequence[executor.Sandbox]: ...

    async def remove_sandbox(self, sandbox_id: str) -> None: ...

    async def survey(self, sandbox_id: str, known_digest: str = "") -> Survey: ...

    async def write_file(
        self,
        header: executor.WriteFileHeader,
        chunks: AsyncIterator[bytes],
        *,
        sha256: Callable[[], str] = unchecked,
    ) -> executor.WriteFileResponse:
        """`sha256` is asked behind the last chunk.

        What `chunks` raises breaks the stream off, so that the old file stays, and is raised here.
        """

    async def write_tree(
        self,
        header: executor.WriteTreeHeader,
        chunks: AsyncIterator[bytes],
        *,
        sha256: Callable[[], str] = unchecked,
    ) -> executor.WriteTreeResponse:
        """As `write_file`."""

    def read_tree(self, request: executor.ReadTreeRequest) -> AsyncGenerator[executor.ReadTreeResponse, None]: ...

    def compare_tree(
        self, header: executor.CompareTreeHeader, files: AsyncIterator[Sequence[executor.TreeFile]]
    ) -> AsyncGenerator[executor.CompareTreeResponse, None]:
        """What `files` raises breaks the stream off, and is raised here."""

    async def transfer_size(self, sandbox_id: str, transfer_id: str) -> int:
        """How many bytes are held of a transfer that broke off."""

    def read_files(self, request: executor.ReadFilesRequest) -> AsyncGenerator[executor.ReadFilesResponse, None]: ...

    def read_file(self, request: executor.ReadFileRequest) -> AsyncGenerator[executor.ReadFileResponse, None]: ...

    async def list_files(self, request: executor.ListFilesRequest) -> Sequence[executor.FileInfo]: ...

    def watch_files(self, request: executor.WatchFilesRequest) -> AsyncGenerator[executor.WatchFilesResponse, None]: ...

    async def stat_file(self, sandbox_id: str, path: str) -> executor.FileInfo: ...

    async def move_file(self, request: executor.MoveFileRequest) -> None: ...

    async def make_directory(self, sandbox_id: str, path: str) -> None: ...

    async def remove_file(self, sandbox_id: str, path: str, user: executor.User.ValueType) -> None: ...

    async def make_link(self, sandbox_id: str, path: str, target: str, user: executor.User.ValueType) -> None: ...

    def run_process(self, request: executor.RunProcessRequest) -> AsyncGenerator[executor.ProcessEvent, None]: ...

    def attach_process(self, request: executor.AttachProcessRequest) -> AsyncGenerator[executor.ProcessEvent, None]: ...

    def write_stdin(
        self, sandbox_id: str, process_id: str, parts: AsyncIterator[StdinPart]
    ) -> AsyncGenerator[int, None]:
        """How many bytes of the input are accepted, first when the process has started.

        `parts` is read as the executor takes them; when this ends it may still wait for the next one.
        """

    async def resize_terminal(self, sandbox_id: str, process_id: str, terminal: executor.Terminal) -> None: ...

    async def signal_process(self, sandbox_id: str, process_id: str, number: int) -> None: ...

    async def cancel_process(self, sandbox_id: str, process_id: str) -> None: ...

    async def set_install_phase(self, sandbox_id: str, *, open_: bool) -> int:
        """Gives the sequence of the sandbox's newest egress record."""

    async def set_egress_policy(self, sandbox_id: str, policy: executor.EgressPolicy) -> executor.EgressPolicy: ...

    def connect_port(
        self, requests: AsyncIterator[executor.ConnectPortRequest]
    ) -> AsyncGenerator[executor.ConnectPortResponse, None]:
        """The header comes first; closing the generator closes the connection."""

    def list_egress(self, request: executor.ListEgressRequest) -> AsyncGenerator[executor.ListEgressResponse, None]: ...


class ResolverPort(Protocol):
    """The resolver's calls, as its proto specifies them."""

    async def select_files(
        self, target: resolver.Target, files: Sequence[resolver.WorkspaceFile]
    ) -> resolver.SelectFilesResponse: ...

    async def plan(
        self, header: resolver.PlanHeader, files: AsyncIterator[resolver.FileStart | bytes]
    ) -> resolver.Plan:
        """`files`: each a start and its chunks, at most 64 KiB a chunk. What it raises is raised here."""

    async def plan_all(
        self, header: resolver.PlanHeader, files: AsyncIterator[resolver.FileStart | bytes]
    ) -> resolver.PlanResponse:
        """As `plan`, with the plans of all other projects of the workspace."""

    async def render_lock(
        self, header: resolver.RenderLockHeader, native_lock: bytes, inventory: bytes
    ) -> resolver.RenderLockResponse: ...

    async def explain_install(self, request: resolver.ExplainInstallRequest) -> resolver.ExplainInstallResponse: ...

    async def explain_run(self, request: resolver.ExplainRunRequest) -> resolver.ExplainRunResponse: ...

    def render_sbom(
        self, header: resolver.RenderSbomHeader, parts: AsyncIterator[tuple[resolver.SbomPart, bytes]]
    ) -> AsyncGenerator[bytes, None]:
        """The document's chunks. `parts`: each lock or inventory with its bytes."""

    async def diff_locks(
        self, before: Sequence[resolver.Lockfile], after: Sequence[resolver.Lockfile]
    ) -> resolver.DiffLocksResponse: ...
