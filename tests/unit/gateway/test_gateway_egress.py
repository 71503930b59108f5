"""Why an install failed, when the doors had a part in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.conductor import Conductor
from services.gateway.config import ConductorConfig
from services.gateway.convert import InstallFailedError
from services.gateway.egress import explained
from services.gateway.executor_fake import FakeExecutor, FakeProcess, FakeSandbox
from services.gateway.resolver_fake import FakeResolver
from services.gateway.store.memory import MemoryStore
from services.gateway.store.port import SandboxRecord

EXEC = "ex_" + "a" * 26
OTHER = "ex_" + "b" * 26
PACKAGE: dict[str, Any] = {
    "denial": executor.EGRESS_DENIAL_PACKAGE,
    "package": "demo",
    "rule": "policy: demo: denied by 'demo'",
}
RELEASES: dict[str, Any] = {
    "denial": executor.EGRESS_DENIAL_RELEASES,
    "package": "demo",
    "rule": "2 files left out: policy: demo: released less than 7 days ago",
}
CLOSED: dict[str, Any] = {"denial": executor.EGRESS_DENIAL_EGRESS, "rule": "policy: closed"}
WORDS = "Because demo was not found in the package registry, it cannot be installed."


@pytest.fixture
async def fake() -> FakeExecutor:
    return FakeExecutor()


@pytest.fixture
async def sandbox(fake: FakeExecutor) -> FakeSandbox:
    return fake.sandboxes[(await fake.create_sandbox(executor.CreateSandboxRequest())).id]


def refuse(sandbox: FakeSandbox, exec_id: str = EXEC, **fields: Any) -> None:
    sandbox.decide(exec_id=exec_id, verdict=executor.EGRESS_VERDICT_REFUSED, **fields)


async def judged(
    fake: FakeExecutor,
    sandbox: FakeSandbox,
    reason: pb.InstallFailureReason.ValueType,
    words: str = WORDS,
    *,
    after: int = 0,
) -> InstallFailedError:
    failure = InstallFailedError(reason, words)
    return await explained(fake, sandbox.sandbox_id, EXEC, after=after, failure=failure, patience=0)


NOT_FOUND = pb.INSTALL_FAILURE_REASON_NOT_FOUND
BUILD_FAILED = pb.INSTALL_FAILURE_REASON_BUILD_FAILED


@pytest.mark.parametrize("reason", [NOT_FOUND, BUILD_FAILED, pb.INSTALL_FAILURE_REASON_NETWORK_DENIED])
async def test_a_denied_package_is_named_with_its_rule(
    fake: FakeExecutor, sandbox: FakeSandbox, reason: pb.InstallFailureReason.ValueType
) -> None:
    for _ in range(5):
        refuse(sandbox, **PACKAGE)
    refuse(sandbox, **CLOSED)
    found = await judged(fake, sandbox, reason)
    assert found.reason == pb.INSTALL_FAILURE_REASON_POLICY_DENIED
    assert found.detail == f"the doors refused: policy: demo: denied by 'demo'\n{WORDS}"


async def test_releases_that_were_left_out_count_if_the_installer_speaks_of_the_package(
    fake: FakeExecutor, sandbox: FakeSandbox
) -> None:
    refuse(sandbox, **RELEASES)
    assert (await judged(fake, sandbox, NOT_FOUND)).reason == pb.INSTALL_FAILURE_REASON_POLICY_DENIED
    gcc = await judged(fake, sandbox, BUILD_FAILED, "gcc: fatal error: no input files")
    assert (gcc.reason, gcc.detail) == (BUILD_FAILED, "gcc: fatal error: no input files")


async def test_a_closed_door_is_no_package_policy(fake: FakeExecutor, sandbox: FakeSandbox) -> None:
    refuse(sandbox, **CLOSED)
    found = await judged(fake, sandbox, NOT_FOUND)
    assert found.reason == pb.INSTALL_FAILURE_REASON_NETWORK_DENIED
    assert found.detail.startswith("the doors refused: policy: closed\n")


@pytest.mark.parametrize("reason", [pb.INSTALL_FAILURE_REASON_TIMED_OUT, pb.INSTALL_FAILURE_REASON_OUT_OF_SPACE])
async def test_time_and_space_have_other_causes(
    fake: FakeExecutor, sandbox: FakeSandbox, reason: pb.InstallFailureReason.ValueType
) -> None:
    refuse(sandbox, **PACKAGE)
    assert (await judged(fake, sandbox, reason)).reason == reason


async def test_what_others_asked_for_or_what_came_before_has_no_part(fake: FakeExecutor, sandbox: FakeSandbox) -> None:
    refuse(sandbox, **PACKAGE)
    refuse(sandbox, OTHER, **PACKAGE)
    refuse(sandbox, rule="method")
    sandbox.decide(exec_id=EXEC, verdict=executor.EGRESS_VERDICT_FAILED, rule="registry unreachable")
    assert (await judged(fake, sandbox, NOT_FOUND, after=1)).reason == NOT_FOUND


async def test_a_flood_of_refusals_stays_short(fake: FakeExecutor, sandbox: FakeSandbox) -> None:
    for number in range(500):
        refuse(sandbox, **{**PACKAGE, "rule": f"policy: p{number}: denied by 'p*'"})
    assert len((await judged(fake, sandbox, NOT_FOUND)).detail.splitlines()) == 21


async def test_without_the_executor_the_installer_s_words_stand(fake: FakeExecutor, sandbox: FakeSandbox) -> None:
    refuse(sandbox, **PACKAGE)
    fake.down = True
    assert (await judged(fake, sandbox, NOT_FOUND)).reason == NOT_FOUND


@pytest.fixture
async def conductor(fake: FakeExecutor, sandbox: FakeSandbox) -> AsyncIterator[Conductor]:
    store = MemoryStore()
    await store.add_sandbox(
        SandboxRecord(
            sandbox_id=sandbox.sandbox_id, language="", create_time_ns=1, cpu_millis=0, memory_bytes=0, pids=0
        )
    )
    made = Conductor(executor_port=fake, resolver_port=FakeResolver(), store=store, config=ConductorConfig(patience=5))
    sandbox.files.update({"main.py": b"import demo", "requirements.txt": b"demo"})
    yield made
    await made.close()


async def test_the_verdict_reaches_the_exec_s_answer(
    fake: FakeExecutor, sandbox: FakeSandbox, conductor: Conductor
) -> None:
    # Of an earlier install with the same id.
    refuse(sandbox, **{**PACKAGE, "rule": "policy: old: denied by 'old'"})

    async def solve(process: FakeProcess) -> int:
        assert process.process_id == f"{EXEC}.install-1"
        refuse(process.sandbox, **PACKAGE)
        process.write(b"demo was not found\n", executor.STREAM_STDERR)
        return 1

    fake.programs["solve"] = solve
    request = pb.ExecRequest(sandbox_id=sandbox.sandbox_id, exec_id=EXEC, program=pb.Program(file="main.py"))
    live = await conductor.start(request)
    assert live.task is not None
    await asyncio.wait_for(live.task, 10)
    failed = pb.ExecEnded.FromString(live.journal.record.ended).install_failed
    assert failed.reason == pb.INSTALL_FAILURE_REASON_POLICY_DENIED
    assert failed.detail == "the doors refused: policy: demo: denied by 'demo'\ndemo was not found\n".rstrip("\n")


async def test_another_package_policy_means_another_plan(
    fake: FakeExecutor, sandbox: FakeSandbox, conductor: Conductor
) -> None:
    planner = conductor._runner._planner
    resolver_port = planner._resolver
    assert isinstance(resolver_port, FakeResolver)
    sandbox.files["requirements.txt"] = b""
    record = await planner._store.sandbox(sandbox.sandbox_id)
    for policy, plans in (("", 1), ("", 1), ("d1", 2), ("d1", 2), ("d2", 3)):
        fake.package_policy = policy
        record = await planner._store.sandbox(sandbox.sandbox_id)
        assert record is not None
        await planner.resolve(record, pb.ExecRequest(program=pb.Program(file="main.py")))
        assert resolver_port.plans == plans
        assert resolver_port.headers[-1].package_policy == policy
