"""Records on their way to an executor that is slow, or gone."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from services.executor.egress.control import ControlChannel
from services.executor.egress.ecosystems.port import PackageRules
from services.executor.egress.limits import NO_LIMITS
from services.executor.egress.package_rules import NO_POLICY
from services.executor.egress.pypi_door import PypiDoor
from services.executor.egress.records import EgressRecord
from services.executor.egress.registries import load_registries
from services.executor.egress.reports import Reports
from services.executor.egress.serving import DoorKeeper
from services.executor.egress.upstream import Upstream, tls_context

from .harness import SANDBOX

RULES: PackageRules = NO_POLICY.rules_of("pypi")
# More than a socket holds.
MANY = 3000


def record(number: int) -> EgressRecord:
    return EgressRecord(
        sandbox=SANDBOX, phase="RUN", uid=1000, method="GET", host="", path=f"/{number}", status=404,
        verdict="refused", rule="no such path", bytes=0, digest="",
    )  # fmt: skip


@dataclass(kw_only=True)
class Ends:
    """The doors' end of the channel with what stands behind it, and the executor's."""

    reports: Reports
    keeper: DoorKeeper
    executor: ControlChannel


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, executor = ControlChannel(ours), ControlChannel(theirs)
    upstream = Upstream(tls_context())
    reports = Reports(channel)
    pypi = PypiDoor(registry=load_registries().pypi, upstream=upstream, reports=reports, rules=RULES)
    keeper = DoorKeeper(channel=channel, peer_uid=os.getuid(), pypi=pypi, reports=reports, traffic=NO_LIMITS)
    yield Ends(reports=reports, keeper=keeper, executor=executor)
    await upstream.close()
    channel.close()
    executor.close()


async def test_the_answer_to_a_phase_comes_behind_every_decision_before_it(ends: Ends) -> None:
    for number in range(MANY):
        ends.reports.add(record(number))
    tasks = [asyncio.create_task(ends.reports.send_all()), asyncio.create_task(ends.keeper.run())]
    await ends.executor.send({"type": "phase", "sandbox": SANDBOX, "install": False})
    kinds: list[str] = []
    async with asyncio.timeout(30):
        while "phase_set" not in kinds:
            message = await ends.executor.receive()
            assert message is not None
            kinds.append(message.type)
    assert kinds.count("egress") == MANY
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_an_executor_that_is_gone_does_not_hear_is_logged(ends: Ends) -> None:
    with structlog.testing.capture_logs() as lines:
        ends.reports.add(record(1))
        ends.executor.close()
        async with asyncio.timeout(30):
            await ends.reports.send_all()
            ends.reports.add(record(2))
            # Nobody waits for an executor that is gone.
            await ends.reports.told()
    logged: list[Any] = [line["path"] for line in lines if line["event"] == "egress"]
    assert logged == ["/1", "/2"]
