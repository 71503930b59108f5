"""What the executor's proto says about egress: the same of the gateway's fake and of the executor itself."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as pb
from services.executor.egress.policy import Ceiling
from services.gateway.executor_fake import FakeExecutor
from services.gateway.ports import ExecutorPort
from services.rpc.errors import ErrorCode, QilaError

from .world import ExecutorWorld, served

HOST = "plugins.example.org"
LOST = "sb_" + "z" * 26
EXEC, OTHER = "ex_" + "a" * 26, "ex_" + "b" * 26
REGISTRIES = pb.EgressPolicy(mode=pb.EGRESS_MODE_REGISTRIES)
NONE = pb.EgressPolicy(mode=pb.EGRESS_MODE_NONE)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An executor, and how its doors decide: sandbox, exec, path, whether it is refused."""

    port: ExecutorPort
    decide: Callable[[str, str, str, bool], None]


def fake_subject() -> Subject:
    fake = FakeExecutor()
    fake.connect_hosts.add(HOST)

    def decide(sandbox_id: str, exec_id: str, path: str, refused: bool) -> None:  # noqa: FBT001  # a row of data
        verdict = pb.EGRESS_VERDICT_REFUSED if refused else pb.EGRESS_VERDICT_ALLOWED
        fake.sandboxes[sandbox_id].decide(exec_id=exec_id, path=path, verdict=verdict)

    return Subject(port=fake, decide=decide)


@pytest.fixture(params=["fake", "executor"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "fake":
        yield fake_subject()
        return
    with tempfile.TemporaryDirectory(prefix="qila-") as directory:
        world = ExecutorWorld(directory=Path(directory), ceiling=Ceiling(hosts=frozenset({HOST})))
        await world.start()

        def decide(sandbox_id: str, exec_id: str, path: str, refused: bool) -> None:  # noqa: FBT001  # a row of data
            # Of an install: its latest process says whose it is.
            world.run(sandbox_id, f"{exec_id}.install{path[1:]}", user="install")
            verdict = "refused" if refused else "allowed"
            world.decide(sandbox_id, phase="INSTALL", uid=1001, path=path, verdict=verdict)

        async with served(world) as client:
            yield Subject(port=client, decide=decide)
        await world.close()


@pytest.fixture
def port(subject: Subject) -> ExecutorPort:
    return subject.port


@pytest.fixture
async def sandbox_id(port: ExecutorPort) -> str:
    return (await port.create_sandbox(pb.CreateSandboxRequest())).id


async def refused(call: Any) -> QilaError:
    with pytest.raises(QilaError) as caught:
        await call
    return caught.value


async def paths(port: ExecutorPort, sandbox_id: str, **fields: Any) -> list[str]:
    request = pb.ListEgressRequest(sandbox_id=sandbox_id, **fields)
    return [record.path async for response in port.list_egress(request) for record in response.records]


async def test_a_new_sandbox_reaches_the_registries(port: ExecutorPort) -> None:
    made = await port.create_sandbox(pb.CreateSandboxRequest())
    assert made.egress == REGISTRIES
    assert (await port.sandbox(made.id)).egress == REGISTRIES


@pytest.mark.parametrize(
    "policy",
    [NONE, pb.EgressPolicy(mode=pb.EGRESS_MODE_REGISTRIES, hosts=[HOST]),
     pb.EgressPolicy(mode=pb.EGRESS_MODE_REGISTRIES, install_only=True)],
)  # fmt: skip
async def test_a_policy_holds_from_the_beginning_or_from_a_change_on(
    port: ExecutorPort, sandbox_id: str, policy: pb.EgressPolicy
) -> None:
    made = await port.create_sandbox(pb.CreateSandboxRequest(egress=policy))
    assert made.egress == policy
    for _ in range(2):
        assert await port.set_egress_policy(sandbox_id, policy) == policy
    assert (await port.sandbox(sandbox_id)).egress == policy
    assert await port.set_egress_policy(sandbox_id, REGISTRIES) == REGISTRIES


async def test_a_host_that_the_operator_does_not_allow(port: ExecutorPort, sandbox_id: str) -> None:
    policy = pb.EgressPolicy(mode=pb.EGRESS_MODE_REGISTRIES, hosts=[HOST, "evil.example.org"])
    await port.set_egress_policy(sandbox_id, NONE)
    before = len(await port.list_sandboxes())
    for call in (
        port.set_egress_policy(sandbox_id, policy),
        port.create_sandbox(pb.CreateSandboxRequest(egress=policy)),
    ):
        error = await refused(call)
        assert (error.code, error.reason) == (ErrorCode.INVALID_ARGUMENT, "HOST_NOT_ALLOWED")
        assert "evil.example.org" in error.message
        assert "operator" in error.message
    assert (await port.sandbox(sandbox_id)).egress == NONE
    assert len(await port.list_sandboxes()) == before


async def test_an_absent_policy_opens_nothing(port: ExecutorPort, sandbox_id: str) -> None:
    await port.set_egress_policy(sandbox_id, NONE)
    error = await refused(port.set_egress_policy(sandbox_id, pb.EgressPolicy()))
    assert (error.code, error.reason) == (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert (await port.sandbox(sandbox_id)).egress == NONE


async def test_an_unknown_sandbox(port: ExecutorPort) -> None:
    for call in (port.sandbox(LOST), port.set_egress_policy(LOST, NONE), paths(port, LOST)):
        assert (await refused(call)).code is ErrorCode.NOT_FOUND


async def test_records_in_order_and_filtered(subject: Subject, sandbox_id: str) -> None:
    assert await subject.port.set_install_phase(sandbox_id, open_=True) == 0
    assert await paths(subject.port, sandbox_id) == []
    subject.decide(sandbox_id, EXEC, "/1", False)
    subject.decide(sandbox_id, OTHER, "/2", True)
    subject.decide(sandbox_id, EXEC, "/3", True)
    assert await paths(subject.port, sandbox_id) == ["/1", "/2", "/3"]
    assert await paths(subject.port, sandbox_id, exec_id=EXEC) == ["/1", "/3"]
    assert await paths(subject.port, sandbox_id, verdict=pb.EGRESS_VERDICT_REFUSED) == ["/2", "/3"]
    refused_by_exec = {"exec_id": EXEC, "verdict": pb.EGRESS_VERDICT_REFUSED}
    assert await paths(subject.port, sandbox_id, **refused_by_exec) == ["/3"]
    assert await paths(subject.port, sandbox_id, after_sequence=2) == ["/3"]
    assert await paths(subject.port, sandbox_id, after_sequence=99) == []
    assert await subject.port.set_install_phase(sandbox_id, open_=True) == 3


async def test_a_tail_goes_on_and_ends_with_the_sandbox(subject: Subject, sandbox_id: str) -> None:
    subject.decide(sandbox_id, EXEC, "/1", True)
    request = pb.ListEgressRequest(sandbox_id=sandbox_id, follow=True, exec_id=EXEC)
    async with asyncio.timeout(20), aclosing(subject.port.list_egress(request)) as tail:
        assert [record.sequence for record in (await anext(tail)).records] == [1]
        subject.decide(sandbox_id, OTHER, "/2", True)
        subject.decide(sandbox_id, EXEC, "/3", True)
        assert [(record.sequence, record.path) for record in (await anext(tail)).records] == [(3, "/3")]
        await subject.port.remove_sandbox(sandbox_id)
        assert [response async for response in tail] == []
