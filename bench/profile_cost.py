"""What the profile's seccomp filter costs: the same commands in two warm sandboxes, one of them without the filter.

`python -m bench.profile_cost` prints the medians; `profile_cost()` gives the samples.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.image.recipe import image_tag
from services.executor.audit import Audit
from services.executor.egress.fake_doors import FakeDoors
from services.executor.egress.policy import Ceiling
from services.executor.images import DEFAULT_NAME, Image, Images
from services.executor.process import ProcessEnd, ProcessSpec
from services.executor.profile import Profile, load_profile
from services.executor.runtime.docker import DockerRuntime
from services.executor.runtime.images import WorkspaceImages
from services.executor.sandboxes import Sandbox, Sandboxes, Settings
from services.executor.trust import TrustStore
from services.rpc import log

# `true` is all start; the walk asks the kernel some hundred thousand small questions.
COMMANDS = {
    "exec of `true`": (("true",), 200),
    "exec of `python3 -c pass`": (("python3", "-c", "pass"), 60),
    "a walk over /usr": (("find", "/usr", "-xdev", "-newermt", "2100-01-01"), 15),
}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """One command's times in milliseconds, taken in turns."""

    name: str
    ours: list[float]
    unconfined: list[float]


def profile_cost() -> Sequence[Samples]:
    """One row for each command."""
    log.configure("bench", level="ERROR")
    return asyncio.run(measure())


async def measure() -> Sequence[Samples]:
    profile = load_profile()
    unconfined = dataclasses.replace(profile, seccomp="unconfined")
    samples = []
    async with warm_sandbox(profile) as ours, warm_sandbox(unconfined) as theirs:
        for name, (argv, runs) in COMMANDS.items():
            for sandbox in (ours, theirs):
                await milliseconds(sandbox, argv)
            rows = [(await milliseconds(ours, argv), await milliseconds(theirs, argv)) for _ in range(runs)]
            samples.append(Samples(name=name, ours=[row[0] for row in rows], unconfined=[row[1] for row in rows]))
    return samples


@asynccontextmanager
async def warm_sandbox(profile: Profile) -> AsyncIterator[Sandbox]:
    """A sandbox of the executor's own making, with an installation to itself."""
    # Short: sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="qb", dir="/tmp") as directory:
        settings = Settings(
            images=Images(Image(name=DEFAULT_NAME, reference=image_tag())),
            state_directory=Path(directory) / "state",
            run_directory=Path(directory) / "run",
            max_sandboxes=1,
            idle_stop_s=3600,
            ceiling=Ceiling(),
            package_policy="",
        )
        runtime = DockerRuntime(
            instance=f"bench-{secrets.token_hex(4)}",
            profile=profile,
            images=WorkspaceImages(
                directory=settings.state_directory / "workspaces",
                links=settings.run_directory / "loop",
                max_inodes=4096,
            ),
        )
        audit = Audit()
        doors = FakeDoors(on_egress=audit.take)
        await doors.start()
        trust = TrustStore(None, settings.run_directory / "trust")
        sandboxes = Sandboxes(settings, runtime, doors, audit=audit, trust=trust)
        (settings.state_directory / "sandboxes").mkdir(parents=True)
        sandbox = await sandboxes.create(profile.limits)
        try:
            yield sandbox
        finally:
            await sandboxes.remove(sandbox.record.id)
            await sandboxes.close()
            await doors.stop()
            await runtime.close()


async def milliseconds(sandbox: Sandbox, argv: tuple[str, ...]) -> float:
    spec = ProcessSpec(
        argv=argv,
        env={},
        cwd="/sandbox",
        user="program",
        timeout_ms=0,
        output_limit_bytes=1 << 20,
        end_at_output_limit=False,
        background=False,
    )
    start = time.perf_counter()
    process = sandbox.processes.start(f"ex_{secrets.token_hex(8)}", spec)
    async for event in sandbox.processes.watch(process, {"stdout": 0, "stderr": 0, "terminal": 0}):
        if isinstance(event, ProcessEnd) and (event.kind, event.code) != ("exited", 0):
            raise SystemExit(f"a command of the benchmark ended otherwise than well: {event}")
    return (time.perf_counter() - start) * 1000


def main() -> None:
    for row in profile_cost():
        ours, theirs = statistics.median(row.ours), statistics.median(row.unconfined)
        print(f"{row.name}: {ours:.2f} ms, without the filter {theirs:.2f} ms: {ours / theirs - 1:+.1%}")


if __name__ == "__main__":
    main()
