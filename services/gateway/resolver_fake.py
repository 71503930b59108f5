# ruff: noqa: D102  # the port specifies the calls
"""The resolver in memory: requirements are the lines of requirements.txt; each brings one more, NAME-dep.

Each directory with a requirements.txt is a project: of the ecosystem that it is named after, else of Python. What one
that begins with ASK means, the step `ask` has to say.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from qila.resolver.v1 import resolver_pb2 as resolver
from services.rpc.errors import QilaError, failed_precondition, invalid_argument

MANIFEST = "requirements.txt"
LOCK = "pylock.txt"
ASK = b"ask "
ANSWER = "answer"
ECOSYSTEMS = ("python", "node", "go", "java")


class FakeResolver:
    """`ResolverPort` in memory.

    Attributes:
        plans: how many plans were made.
        headers: what each plan was asked with.
        complete: false makes RenderLock refuse the install.
        lock_error: what RenderLock fails with.
        missing: what a failed run is said not to have found, by the ends of its stderr.
        deaf: plans do not have what is to be added.
        lists_unmanaged: plans say how to list what programs install.
        asked: set when files are to be selected; `pause` then holds the call.
    """

    def __init__(self) -> None:
        self.plans = 0
        self.headers: list[resolver.PlanHeader] = []
        self.complete = True
        self.lock_error: QilaError | None = None
        self.missing: dict[bytes, list[resolver.MissingImport]] = {}
        self.deaf = False
        self.lists_unmanaged = True
        self.explained: list[resolver.ExplainRunRequest] = []
        self.asked = asyncio.Event()
        self.pause: asyncio.Event | None = None

    async def select_files(
        self, target: resolver.Target, files: Sequence[resolver.WorkspaceFile]
    ) -> resolver.SelectFilesResponse:
        self.asked.set()
        if self.pause is not None:
            await self.pause.wait()
        wanted = {target.file, MANIFEST}
        chosen = [file.path for file in files if file.path in wanted or file.path.endswith(f"/{MANIFEST}")]
        return resolver.SelectFilesResponse(paths=chosen)

    async def plan(
        self, header: resolver.PlanHeader, files: AsyncIterator[resolver.FileStart | bytes]
    ) -> resolver.Plan:
        return self._plan_program(header, await _contents(files))

    async def plan_all(
        self, header: resolver.PlanHeader, files: AsyncIterator[resolver.FileStart | bytes]
    ) -> resolver.PlanResponse:
        contents = await _contents(files)
        response = resolver.PlanResponse(plan=self._plan_program(header, contents))
        response.plan.project = "."
        for path in sorted(contents):
            directory, _, name = path.rpartition("/")
            if directory and name == MANIFEST:
                named = directory.rpartition("/")[2]
                ecosystem = named if named in ECOSYSTEMS else "python"
                requirements = _requirements(header, contents[path], ecosystem)
                if isinstance(requirements, resolver.Plan):
                    plan = requirements
                else:
                    plan = _plan("", requirements, ecosystem)
                    del plan.launch.argv[:]
                plan.project = directory
                response.projects.append(plan)
        return response

    def _plan_program(self, header: resolver.PlanHeader, contents: dict[str, bytes]) -> resolver.Plan:
        self.headers.append(header)
        if header.target.file not in contents:
            raise invalid_argument("TARGET_NOT_FOUND", f"{header.target.file}: no such file in the workspace")
        self.plans += 1
        requirements = _requirements(header, contents.get(MANIFEST, b""), "python")
        if isinstance(requirements, resolver.Plan):
            return requirements
        plan = _plan(header.target.file, [*requirements, *([] if self.deaf else header.options.added)])
        if not self.lists_unmanaged:
            del plan.unmanaged[:]
        if header.target.command:
            plan.launch.argv[:] = header.target.command
        for module in contents[header.target.file].decode().split():
            if module.startswith("unknown_"):
                plan.unknown.add(module=module, path=header.target.file, line=1)
            elif module.startswith("undeclared_"):
                name = module.removeprefix("undeclared_")
                plan.undeclared.add(module=module, path=header.target.file, line=1, suggestion=name, package=name)
        return plan

    async def render_lock(
        self,
        header: resolver.RenderLockHeader,
        native_lock: bytes,
        inventory: bytes,
    ) -> resolver.RenderLockResponse:
        if self.lock_error is not None:
            raise self.lock_error
        if not self.complete:
            raise failed_precondition("INSTALL_INCOMPLETE", "what was installed is not what the lock says")
        packages = [
            {"name": name, "version": version, "direct": direct}
            for item in header.requirements
            for name, version, direct in ((item.specifier, "1", True), (f"{item.specifier}-dep", "2", False))
        ]
        lock = {"packages": packages, "native": native_lock.decode(), "inventory": inventory.decode()}
        return resolver.RenderLockResponse(
            lock=json.dumps(lock).encode(), package_count=len(packages), native_lock=native_lock + b" in public"
        )

    async def explain_install(self, request: resolver.ExplainInstallRequest) -> resolver.ExplainInstallResponse:
        if request.failed:
            reason = resolver.INSTALL_FAILURE_REASON_NOT_FOUND
            words = request.output.decode()
            return resolver.ExplainInstallResponse(
                failure=resolver.InstallFailure(reason=reason, detail=words, hints=["look twice"], packages=["broken"])
            )
        response = resolver.ExplainInstallResponse()
        response.stages.add(stage=resolver.INSTALL_STAGE_INSTALLING, done=1, total=1)
        for line in request.output.decode().splitlines():
            name, _, version = line.removeprefix("+ ").partition("==")
            if line.startswith("+ "):
                response.packages.add(action=resolver.PACKAGE_ACTION_INSTALLED, name=name, version=version)
        return response

    async def explain_run(self, request: resolver.ExplainRunRequest) -> resolver.ExplainRunResponse:
        self.explained.append(request)
        found = [items for words, items in self.missing.items() if request.output.endswith(words)]
        return resolver.ExplainRunResponse(missing=[item for items in found for item in items])

    async def render_sbom(
        self, header: resolver.RenderSbomHeader, parts: AsyncIterator[tuple[resolver.SbomPart, bytes]]
    ) -> AsyncGenerator[bytes, None]:
        yield f"{header.exec_id} {header.format} {header.program} {header.unmanaged_unknown}\n".encode()
        async for start, content in parts:
            yield f"{start.WhichOneof('kind')} ".encode() + content + b"\n"

    async def diff_locks(
        self, before: Sequence[resolver.Lockfile], after: Sequence[resolver.Lockfile]
    ) -> resolver.DiffLocksResponse:
        response = resolver.DiffLocksResponse()
        for lock in [*before, *after]:
            if b"broken" in lock.content:
                raise invalid_argument("LOCK_INVALID", f"{lock.name}:1: it is broken", name=lock.name, line="1")
        for lock in before:
            response.changes.add().before.name = lock.content.decode()
        for lock in after:
            response.changes.add().after.name = lock.content.decode()
        return response


async def _contents(files: AsyncIterator[resolver.FileStart | bytes]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    path = ""
    async for part in files:
        if isinstance(part, bytes):
            contents[path] += part
        else:
            path = part.path
            contents[path] = b""
    return contents


def _requirements(header: resolver.PlanHeader, content: bytes, ecosystem: str) -> list[str] | resolver.Plan:
    """What a manifest asks for; a preliminary plan if that is not known."""
    if not content.startswith(ASK):
        return content.decode().split()
    key = hashlib.sha256(content).hexdigest()
    if key in header.answers:
        return header.answers[key].decode().split()
    plan = resolver.Plan(ecosystem=ecosystem, fingerprint=key, native_lock_name=ANSWER, preliminary=True)
    plan.staged.add(path="in.txt", content=content)
    plan.steps.add(kind=resolver.STEP_KIND_SOLVE, argv=["ask"])
    return plan


def _plan(file: str, requirements: Sequence[str], ecosystem: str = "python") -> resolver.Plan:
    plan = resolver.Plan(
        ecosystem=ecosystem,
        source=resolver.PLAN_SOURCE_MANIFEST if requirements else resolver.PLAN_SOURCE_NONE,
        launch=resolver.Launch(argv=["program", file], env={"LAUNCHED": "yes"}),
        unmanaged=[resolver.UnmanagedInventory(path="/sandbox/.local/site", argv=["list-site"])],
    )
    if not requirements:
        return plan
    for specifier in requirements:
        plan.requirements.add(specifier=specifier).origins.add(path=MANIFEST, line=1)
        plan.lock_lines.add(package=specifier, version="1", path=LOCK, line=3)
    plan.manifests.append(MANIFEST)
    plan.fingerprint = hashlib.sha256("\n".join(requirements).encode()).hexdigest()
    plan.staged.add(path="in.txt", content="\n".join(requirements).encode())
    plan.steps.add(kind=resolver.STEP_KIND_SOLVE, argv=["solve", LOCK])
    plan.environment_path = f"/sandbox/.qila/env/{ecosystem}/{plan.fingerprint}"
    plan.steps.add(kind=resolver.STEP_KIND_INSTALL, argv=["install", plan.environment_path])
    plan.native_lock_name = LOCK
    plan.inventory_argv.append("inventory")
    plan.compile_argv.append("compile")
    plan.links.add(path="deps", directory="lib")
    return plan
