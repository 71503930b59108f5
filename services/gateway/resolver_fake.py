# ruff: noqa: D102  # the port specifies the calls
"""The resolver in memory: requirements are the lines of requirements.txt."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence

from qila.resolver.v1 import resolver_pb2 as resolver
from services.rpc.errors import failed_precondition, invalid_argument

MANIFEST = "requirements.txt"
LOCK = "pylock.txt"


class FakeResolver:
    """`ResolverPort` in memory.

    Attributes:
        plans: how many plans were made.
        headers: what each plan was asked with.
        complete: false makes RenderLock refuse the install.
        asked: set when files are to be selected; `pause` then holds the call.
    """

    def __init__(self) -> None:
        self.plans = 0
        self.headers: list[resolver.PlanHeader] = []
        self.complete = True
        self.asked = asyncio.Event()
        self.pause: asyncio.Event | None = None

    async def select_files(
        self, target: resolver.Target, files: Sequence[resolver.WorkspaceFile]
    ) -> resolver.SelectFilesResponse:
        self.asked.set()
        if self.pause is not None:
            await self.pause.wait()
        wanted = {target.file, MANIFEST}
        return resolver.SelectFilesResponse(paths=[file.path for file in files if file.path in wanted])

    async def plan(
        self, header: resolver.PlanHeader, files: AsyncIterator[resolver.FileStart | bytes]
    ) -> resolver.Plan:
        self.headers.append(header)
        contents: dict[str, bytes] = {}
        path = ""
        async for part in files:
            if isinstance(part, bytes):
                contents[path] += part
            else:
                path = part.path
                contents[path] = b""
        if header.target.file not in contents:
            raise invalid_argument("TARGET_NOT_FOUND", f"{header.target.file}: no such file in the workspace")
        self.plans += 1
        return _plan(header.target.file, contents.get(MANIFEST, b"").decode().split())

    async def render_lock(
        self,
        header: resolver.RenderLockHeader,  # noqa: ARG002  # the fake's lock is the inventory
        native_lock: bytes,
        inventory: bytes,
    ) -> resolver.RenderLockResponse:
        if not self.complete:
            raise failed_precondition("INSTALL_INCOMPLETE", "what was installed is not what the lock says")
        return resolver.RenderLockResponse(lock=native_lock + b"|" + inventory, package_count=1)

    async def explain_install(self, request: resolver.ExplainInstallRequest) -> resolver.ExplainInstallResponse:
        if request.failed:
            reason = resolver.INSTALL_FAILURE_REASON_NOT_FOUND
            words = request.output.decode()
            return resolver.ExplainInstallResponse(failure=resolver.InstallFailure(reason=reason, detail=words))
        response = resolver.ExplainInstallResponse()
        for line in request.output.decode().splitlines():
            name, _, version = line.removeprefix("+ ").partition("==")
            if line.startswith("+ "):
                response.packages.add(action=resolver.PACKAGE_ACTION_INSTALLED, name=name, version=version)
        return response


def _plan(file: str, requirements: Sequence[str]) -> resolver.Plan:
    plan = resolver.Plan(
        ecosystem="python",
        source=resolver.PLAN_SOURCE_MANIFEST if requirements else resolver.PLAN_SOURCE_NONE,
        launch=resolver.Launch(argv=["program", file], env={"LAUNCHED": "yes"}),
    )
    if not requirements:
        return plan
    for specifier in requirements:
        plan.requirements.add(specifier=specifier).origins.add(path=MANIFEST, line=1)
    plan.manifests.append(MANIFEST)
    plan.fingerprint = hashlib.sha256("\n".join(requirements).encode()).hexdigest()
    plan.staged.add(path="in.txt", content="\n".join(requirements).encode())
    plan.steps.add(kind=resolver.STEP_KIND_SOLVE, argv=["solve", LOCK])
    plan.steps.add(kind=resolver.STEP_KIND_INSTALL, argv=["install", plan.fingerprint])
    plan.environment_path = f"/sandbox/.qila/env/python/{plan.fingerprint}"
    plan.native_lock_name = LOCK
    plan.inventory_argv.append("inventory")
    plan.compile_argv.append("compile")
    return plan
