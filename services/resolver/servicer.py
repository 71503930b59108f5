"""The wire side of the resolver: unpack, call, pack. Errors leave as QilaError; see protos/qila/resolver/v1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio
import structlog

from qila.resolver.v1 import resolver_pb2 as pb
from qila.resolver.v1 import resolver_pb2_grpc
from services.resolver.calls import ExplainInstall, ExplainRun, MakeLock, MakePlan, MakePlans, SelectFiles
from services.resolver.errors import ResolverError
from services.resolver.lock_messages import DiffUpload, SbomUpload, diff_message
from services.resolver.model import Context, Lockfile, WorkspaceFile
from services.resolver.selection import MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES
from services.resolver.wire import (
    STEPS_OF_WIRE,
    missing_messages,
    options_of,
    plan_message,
    problem_message,
    report_message,
    target_of,
    wire_error,
)
from services.resolver.workers import WorkerCrashedError, WorkerPool, WorkerTimeoutError
from services.rpc.errors import invalid_argument, resource_exhausted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    # The servicer never uses it: interceptors set status and metadata.
    ServicerContext = grpc.aio.ServicerContext[Any, Any]

_LOG = structlog.get_logger()
MAX_PATHS = 1_000_000
MAX_PATH_CHARACTERS = 128 << 20
MAX_LOCK_BYTES = 64 << 20
MAX_IMAGES = 64
MAX_OUTPUT_BYTES = 1 << 20
MAX_RUN_OUTPUT_BYTES = 64 << 10
CHUNK_BYTES = 64 << 10
PLATFORM_KEY = "platform"
DEFAULT_PLATFORM = "linux/amd64"


class ResolverServicer(resolver_pb2_grpc.ResolverServiceServicer):
    """One adapter a call; worker processes read what strangers wrote."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    async def SelectFiles(
        self, requests: AsyncIterator[pb.SelectFilesRequest], context: ServicerContext
    ) -> pb.SelectFilesResponse:
        """See the proto."""
        del context
        files: list[WorkspaceFile] = []
        target = pb.Target()
        characters = 0
        async for request in requests:
            if request.HasField("target"):
                target = request.target
            files += (WorkspaceFile(path=file.path, size=file.size) for file in request.files)
            characters += sum(len(file.path) for file in request.files)
            _check_paths(len(files), characters)
        selection = await self._run(SelectFiles(files=tuple(files), target=target_of(target)))
        return pb.SelectFilesResponse(
            paths=selection.paths, notices=[problem_message(problem) for problem in selection.problems]
        )

    async def Plan(self, requests: AsyncIterator[pb.PlanRequest], context: ServicerContext) -> pb.PlanResponse:
        """See the proto."""
        del context
        upload = PlanUpload()
        async for request in requests:
            upload.add(request)
        if upload.all_projects:
            plans = await self._run(upload.call_for_all())
            return pb.PlanResponse(
                plan=plan_message(plans.program), projects=[plan_message(plan) for plan in plans.projects]
            )
        plan = await self._run(upload.call())
        return pb.PlanResponse(plan=plan_message(plan))

    async def RenderLock(
        self, requests: AsyncIterator[pb.RenderLockRequest], context: ServicerContext
    ) -> pb.RenderLockResponse:
        """See the proto."""
        del context
        header: pb.RenderLockHeader | None = None
        native_lock, inventory = bytearray(), bytearray()
        async for request in requests:
            if request.HasField("header"):
                header = request.header
            native_lock += request.native_lock_chunk
            inventory += request.inventory_chunk
            if max(len(native_lock), len(inventory)) > MAX_LOCK_BYTES:
                message = f"a lock or an inventory is above {MAX_LOCK_BYTES} bytes; install fewer packages"
                raise resource_exhausted("INVENTORY_TOO_LARGE", message)
        if header is None:
            raise invalid_argument("HEADER_MISSING", "the first message must be the header")
        call = MakeLock(
            ecosystem=header.ecosystem,
            direct=tuple(item.specifier for item in header.requirements),
            native_lock=bytes(native_lock),
            inventory=bytes(inventory),
            toolchain=_without_platform(header.toolchains),
            registry_urls=dict(header.registry_urls),
        )
        rendered = await self._run(call)
        return pb.RenderLockResponse(
            lock=rendered.content, package_count=rendered.package_count, native_lock=rendered.native_lock
        )

    async def ExplainInstall(
        self, request: pb.ExplainInstallRequest, context: ServicerContext
    ) -> pb.ExplainInstallResponse:
        """See the proto."""
        del context
        if len(request.output) > MAX_OUTPUT_BYTES:
            raise invalid_argument("OUTPUT_TOO_LARGE", f"output must be at most {MAX_OUTPUT_BYTES} bytes")
        if request.step not in STEPS_OF_WIRE:
            raise invalid_argument("STEP_UNKNOWN", "step must be SOLVE or INSTALL")
        call = ExplainInstall(
            ecosystem=request.ecosystem,
            step=STEPS_OF_WIRE[request.step],
            output=request.output,
            failed_with=request.exit_code if request.failed else None,
        )
        return report_message(await self._run(call))

    async def ExplainRun(self, request: pb.ExplainRunRequest, context: ServicerContext) -> pb.ExplainRunResponse:
        """See the proto."""
        del context
        if len(request.output) > MAX_RUN_OUTPUT_BYTES:
            raise invalid_argument("OUTPUT_TOO_LARGE", f"output must be at most {MAX_RUN_OUTPUT_BYTES} bytes")
        call = ExplainRun(ecosystem=request.ecosystem, output=request.output, manifests=tuple(request.manifests))
        report = await self._run(call)
        return pb.ExplainRunResponse(missing=missing_messages(report.missing))

    async def RenderSbom(
        self, requests: AsyncIterator[pb.RenderSbomRequest], context: ServicerContext
    ) -> AsyncIterator[pb.RenderSbomResponse]:
        """See the proto."""
        del context
        upload = SbomUpload()
        async for request in requests:
            upload.add(request)
        sbom = await self._run(upload.call())
        for start in range(0, len(sbom.content), CHUNK_BYTES):
            yield pb.RenderSbomResponse(chunk=sbom.content[start : start + CHUNK_BYTES])

    async def DiffLocks(
        self, requests: AsyncIterator[pb.DiffLocksRequest], context: ServicerContext
    ) -> pb.DiffLocksResponse:
        """See the proto."""
        del context
        upload = DiffUpload()
        async for request in requests:
            upload.add(request)
        return diff_message(await self._run(upload.call()))

    async def _run(self, call: Any) -> Any:
        try:
            return await self._pool.run(call)
        except WorkerCrashedError as error:
            _LOG.warning("worker crashed", call=type(call).__name__, resource=error.resource, detail=error.detail)
            raise wire_error(error) from error
        except (ResolverError, WorkerTimeoutError) as error:
            raise wire_error(error) from error


def _lockfile(header: pb.PlanHeader) -> Lockfile | None:
    if not header.HasField("given_lock"):
        return None
    return Lockfile(name=header.given_lock.name, content=header.given_lock.content)


class PlanUpload:
    """The parts of a Plan request as they arrive, within the limits."""

    def __init__(self) -> None:
        self._header: pb.PlanHeader | None = None
        self._paths: list[str] = []
        self._characters = 0
        self._files: dict[str, bytearray] = {}
        self._current = bytearray()
        self._total = 0

    def add(self, request: pb.PlanRequest) -> None:
        """Take one message; raises QilaError."""
        match request.WhichOneof("part"):
            case "header":
                self._header = request.header
                self._add_paths(request.header.workspace_paths)
            case "more_paths":
                self._add_paths(request.more_paths.paths)
            case "file":
                self._start(request.file.path)
            case "chunk":
                self._append(request.chunk)
            case _:
                raise invalid_argument("PART_MISSING", "a message of Plan must have one part")

    @property
    def all_projects(self) -> bool:
        """Whether those beside the program's are wanted too."""
        return self._header is not None and self._header.all_projects

    def call_for_all(self) -> MakePlans:
        """As `call`, for all projects."""
        call = self.call()
        return MakePlans(files=call.files, tree=call.tree, target=call.target, context=call.context)

    def call(self) -> MakePlan:
        """The whole request; raises QilaError if its header did not come."""
        if self._header is None:
            raise invalid_argument("HEADER_MISSING", "the first message must be the header")
        context = Context(
            toolchain=_without_platform(self._header.toolchains),
            platform=self._header.toolchains.get(PLATFORM_KEY, DEFAULT_PLATFORM),
            package_policy=self._header.package_policy,
            previous_locks=dict(self._header.previous_locks),
            given_lock=_lockfile(self._header),
            registry_urls=dict(self._header.registry_urls),
            images={image.name: dict(image.toolchains) for image in self._header.images[:MAX_IMAGES]},
            options=options_of(self._header.options),
            answers=dict(self._header.answers),
        )
        return MakePlan(
            files={path: bytes(content) for path, content in self._files.items()},
            tree=tuple(self._paths),
            target=target_of(self._header.target),
            context=context,
        )

    def _add_paths(self, paths: Any) -> None:
        self._paths += paths
        self._characters += sum(len(path) for path in paths)
        _check_paths(len(self._paths), self._characters)

    def _start(self, path: str) -> None:
        if self._header is None:
            raise invalid_argument("HEADER_MISSING", "the first message must be the header")
        if path in self._files or len(self._files) == MAX_FILES:
            raise invalid_argument("FILE_UNEXPECTED", f"{path[:200]} came twice, or is one file too many")
        self._current = self._files[path] = bytearray()

    def _append(self, chunk: bytes) -> None:
        if not self._files:
            raise invalid_argument("FILE_MISSING", "a chunk must follow the start of its file")
        self._current += chunk
        self._total += len(chunk)
        if len(self._current) > MAX_FILE_BYTES or self._total > MAX_TOTAL_BYTES:
            message = f"a file is above {MAX_FILE_BYTES} bytes, or all are above {MAX_TOTAL_BYTES}"
            raise resource_exhausted("FILES_TOO_LARGE", message)


def _check_paths(count: int, characters: int) -> None:
    if count > MAX_PATHS or characters > MAX_PATH_CHARACTERS:
        message = f"more than {MAX_PATHS} files in the workspace; remove what the program does not need"
        raise resource_exhausted("WORKSPACE_TOO_LARGE", message)


def _without_platform(toolchains: Any) -> dict[str, str]:
    return {name: version for name, version in toolchains.items() if name != PLATFORM_KEY}
