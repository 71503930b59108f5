"""Builds that hang or never stop talking, as steps of an install in a real sandbox.

No package of a registry does so on demand: a conductor of the gateway's, with a resolver that plans these steps, works
here with the installation's executor.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration

from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.conductor import Conductor
from services.gateway.config import ConductorConfig
from services.gateway.executor_client import ExecutorClient
from services.gateway.resolver_fake import FakeResolver
from services.gateway.store.memory import MemoryStore
from services.gateway.store.port import SandboxRecord
from services.gateway.watching import watch
from services.rpc.channel import build_channel

if TYPE_CHECKING:
    from tests.e2e.conftest import Installation
    from tests.e2e.workbench import Workbench

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]
PATIENCE = 30.0
SECONDS = 3
# Deaf to polite signals, and with a child that left its session.
HANGS = "trap '' TERM INT HUP; setsid -f sleep 1001; while :; do sleep 1000; done"
TALKS = "yes 'compiling, compiling' | head -c 1G; exit 1"
USERS = "stat -c %u /proc/[0-9]* 2>/dev/null | sort -u"
GOOD = {"main.py": "import six\nprint(six.__name__)\n", "requirements.txt": "six==1.17.0\n"}


class BuildPlanner(FakeResolver):
    """Plans one step, which is a shell script."""

    def __init__(self, script: str) -> None:
        super().__init__()
        self._script = script

    async def plan(
        self, header: resolver.PlanHeader, files: AsyncIterator[resolver.FileStart | bytes]
    ) -> resolver.Plan:
        plan = await super().plan(header, files)
        del plan.steps[:]
        plan.steps.add(kind=resolver.STEP_KIND_INSTALL, argv=["bash", "-c", self._script])
        return plan


async def install(installation: Installation, sandbox: str, script: str) -> list[pb.ExecEvent]:
    """The events of an exec whose install is the script."""
    store = MemoryStore()
    await store.add_sandbox(
        SandboxRecord(sandbox_id=sandbox, language="", create_time_ns=1, cpu_millis=0, memory_bytes=0, pids=0)
    )
    channel = build_channel(f"unix:{Path(installation.variables['QILA_RUN_DIR']) / 'executor.sock'}")
    executor = ExecutorClient(channel)
    config = ConductorConfig(patience=PATIENCE)
    conductor = Conductor(executor_port=executor, resolver_port=BuildPlanner(script), store=store, config=config)
    request = pb.ExecRequest(
        sandbox_id=sandbox, program=pb.Program(file="main.py"), install_timeout=Duration(seconds=SECONDS)
    )
    if script == TALKS:
        request.install_timeout.FromSeconds(60)
    try:
        live = await conductor.start(request)
        async with aclosing(watch(executor, live, patience=PATIENCE)) as events:
            return [event async for event in events]
    finally:
        await conductor.close()
        await channel.close()


def check_nothing_is_left(workbench: Workbench, sandbox: str) -> None:
    """No process of the install's user lives, and the next install is a good one."""
    users = workbench.type(sandbox, USERS).split()
    assert "0" in users, "the processes of others are to be seen"
    assert "1001" not in users
    told = workbench.run(sandbox, "main.py")
    assert told.output() == "six\n", told.everything()


async def test_build_that_hangs_ends_with_the_time_of_its_install(
    installation: Installation, workbench: Workbench
) -> None:
    sandbox = workbench.sandbox(GOOD)
    begin = time.monotonic()
    events = await install(installation, sandbox, HANGS)
    assert events[-1].ended.install_failed.reason == pb.INSTALL_FAILURE_REASON_TIMED_OUT, events[-1]
    assert SECONDS <= time.monotonic() - begin < SECONDS + 20
    check_nothing_is_left(workbench, sandbox)


async def test_build_that_prints_a_gigabyte_ends_and_little_of_it_is_kept(
    installation: Installation, workbench: Workbench
) -> None:
    sandbox = workbench.sandbox(GOOD)
    events = await install(installation, sandbox, TALKS)
    failed = events[-1].ended.install_failed
    # As the step ended by itself: what it said was taken and dropped until its exit.
    assert failed.reason == pb.INSTALL_FAILURE_REASON_NOT_FOUND, events[-1]
    assert failed.hints == ["look twice"]
    kept = sum(len(event.output.data) for event in events)
    assert 1 << 20 < kept < 8 << 20
    check_nothing_is_left(workbench, sandbox)
