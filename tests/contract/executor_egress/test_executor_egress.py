"""Egress policies in the executor: on record before anybody is told, narrowed by the operator, closed when in doubt."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as pb
from services.executor.config import read_config
from services.executor.egress.config import DoorsConfig
from services.executor.egress.limits import TrafficLimits
from services.executor.egress.policy import CLOSED, DEFAULT, Ceiling, EgressPolicy
from services.executor.egress_wire import unpack_policy
from services.executor.errors import DoorsError, InvalidFieldError
from services.executor.sandbox_record import SandboxRecord, read_record, write_record
from services.rpc.config import ConfigError, Environment
from services.rpc.errors import QilaError

from .world import LIMITS, ExecutorWorld, served

HOST = "plugins.example.org"
WIDE = EgressPolicy(registries=True, hosts=frozenset({HOST}))
INSTALL_ONLY = EgressPolicy(registries=True, install_only=True)


@pytest.fixture
async def world() -> AsyncIterator[ExecutorWorld]:
    # Sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="qila-") as directory:
        made = ExecutorWorld(directory=Path(directory), ceiling=Ceiling(hosts=frozenset({HOST})))
        await made.start()
        yield made
        await made.close()


async def test_a_policy_survives_kill_9(world: ExecutorWorld) -> None:
    sandbox = await world.sandboxes.create(LIMITS, INSTALL_ONLY)
    sandbox_id = sandbox.record.id
    assert world.doors.policies[sandbox_id] == INSTALL_ONLY
    await world.restart()
    assert world.doors.policies[sandbox_id] == INSTALL_ONLY
    await world.sandboxes.set_egress(sandbox_id, WIDE)
    assert world.doors.policies[sandbox_id] == WIDE
    await world.restart()
    assert world.doors.policies[sandbox_id] == WIDE


async def test_a_policy_is_on_record_before_the_doors_are_told(world: ExecutorWorld) -> None:
    sandbox_id = (await world.sandboxes.create(LIMITS)).record.id
    # The doors are down: nobody is told, and nothing gets out.
    world.doors.is_running = False
    with pytest.raises(DoorsError):
        await world.sandboxes.set_egress(sandbox_id, CLOSED)
    await world.restart()
    assert world.doors.policies[sandbox_id] == CLOSED


async def test_what_the_operator_takes_back_is_not_in_force_any_more(world: ExecutorWorld) -> None:
    sandbox_id = (await world.sandboxes.create(LIMITS, WIDE)).record.id
    for ceiling, in_force in (
        (Ceiling(), EgressPolicy(registries=True)),
        (Ceiling(opening="install", hosts=WIDE.hosts), replace(WIDE, install_only=True)),
        (Ceiling(opening="none", hosts=WIDE.hosts), CLOSED),
        (Ceiling(hosts=WIDE.hosts), WIDE),
    ):  # fmt: skip
        world.ceiling = ceiling
        await world.restart()
        assert world.doors.policies[sandbox_id] == in_force
        assert world.sandboxes.egress_of(world.sandboxes.find(sandbox_id)) == in_force


@pytest.mark.parametrize("stored", [None, {}, {"registries": 1, "hosts": [], "install_only": False}, "registries", []])
async def test_a_bad_stored_policy_closes(world: ExecutorWorld, stored: Any) -> None:
    sandbox = await world.sandboxes.create(LIMITS)
    path = sandbox.directory / "sandbox.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "egress": stored}))
    await world.restart()
    assert world.doors.policies[sandbox.record.id] == CLOSED


def test_a_record_of_an_earlier_version_has_the_default(tmp_path: Path) -> None:
    record = SandboxRecord(id="sb_" + "a" * 26, image="i", limits=LIMITS, create_time="2026-01-01T00:00:00+00:00")
    write_record(tmp_path, record)
    path = tmp_path / "sandbox.json"
    row = json.loads(path.read_text())
    del row["egress"]
    path.write_text(json.dumps(row))
    assert read_record(tmp_path) == record
    assert record.egress == DEFAULT


async def test_a_stopped_sandbox_is_not_started_by_a_policy(world: ExecutorWorld) -> None:
    sandbox_id = (await world.sandboxes.create(LIMITS)).record.id
    await world.runtime.kill(sandbox_id)
    await world.restart()
    await world.sandboxes.set_egress(sandbox_id, CLOSED)
    assert not await world.runtime.is_running(sandbox_id)


async def test_records_go_with_the_sandbox(world: ExecutorWorld) -> None:
    sandbox = await world.sandboxes.create(LIMITS)
    world.decide(sandbox.record.id)
    assert list((sandbox.directory / "egress").iterdir())
    await world.restart()
    assert world.sandboxes.audit.last_sequence(sandbox.record.id) == 1
    await world.sandboxes.remove(sandbox.record.id)
    assert not sandbox.directory.exists()


async def test_a_record_says_what_kind_of_rule_refused(world: ExecutorWorld) -> None:
    rules = {
        "policy: closed": (pb.EGRESS_DENIAL_EGRESS, ""),
        "policy: install only": (pb.EGRESS_DENIAL_EGRESS, ""),
        "limit: bytes": (pb.EGRESS_DENIAL_EGRESS, ""),
        "connect: host": (pb.EGRESS_DENIAL_EGRESS, ""),
        "connect: sni": (pb.EGRESS_DENIAL_UNSPECIFIED, ""),
        "policy: not in the index": (pb.EGRESS_DENIAL_PACKAGE, ""),
        "policy: org.a:b: denied by 'org.a:*'": (pb.EGRESS_DENIAL_PACKAGE, "org.a:b"),
        "3 files left out: policy: demo: released less than 7 days ago": (pb.EGRESS_DENIAL_RELEASES, "demo"),
        "3 files left out: link to another host": (pb.EGRESS_DENIAL_UNSPECIFIED, ""),
        "method": (pb.EGRESS_DENIAL_UNSPECIFIED, ""),
    }
    async with served(world) as port:
        sandbox_id = (await port.create_sandbox(pb.CreateSandboxRequest())).id
        for rule in rules:
            world.decide(sandbox_id, rule=rule)
        world.decide(sandbox_id, rule="policy: closed", verdict="failed")
        request = pb.ListEgressRequest(sandbox_id=sandbox_id)
        found = [record async for response in port.list_egress(request) for record in response.records]
    assert [(record.denial, record.package) for record in found] == [
        *rules.values(), (pb.EGRESS_DENIAL_UNSPECIFIED, ""),
    ]  # fmt: skip
    assert all(record.time.seconds and record.uid == 1000 for record in found)


@pytest.mark.parametrize("exec_id", ["..", "a/b", "x" * 65, "\n"])
async def test_what_is_no_exec_id(world: ExecutorWorld, exec_id: str) -> None:
    async with served(world) as port:
        sandbox_id = (await port.create_sandbox(pb.CreateSandboxRequest())).id
        with pytest.raises(QilaError, match="exec_id: must be"):
            await anext(port.list_egress(pb.ListEgressRequest(sandbox_id=sandbox_id, exec_id=exec_id)))


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        (pb.EgressPolicy(mode=pb.EGRESS_MODE_NONE, hosts=["a.example"]), "must be empty with mode NONE"),
        (pb.EgressPolicy(hosts=["10.0.0.1"]), "must be an exact lower-case name"),
        (pb.EgressPolicy(hosts=["*.example.org"]), "must be an exact lower-case name"),
        (pb.EgressPolicy(hosts=["a.example"] * 33), "must be at most 32"),
        (pb.EgressPolicy(mode=9), "must be REGISTRIES or NONE"),  # type: ignore[arg-type]  # what a stranger may send
    ],
)
def test_a_policy_that_breaks_a_rule(policy: pb.EgressPolicy, rule: str) -> None:
    with pytest.raises(InvalidFieldError, match=rule):
        unpack_policy(policy, new=True)


def test_the_operator_s_variables() -> None:
    image = {"QILA_SANDBOX_IMAGE": "i", "QILA_RUN_DIR": "/r", "QILA_STATE_DIR": "/s"}
    config = read_config(
        Environment(
            {**image, "QILA_EGRESS": "install", "QILA_CONNECT_HOSTS": f"{HOST}, other.example.org",
             "QILA_PACKAGE_POLICY": "/p.toml", "QILA_EGRESS_BYTES": "1GiB", "QILA_EGRESS_RATE": "2MiB"}
        )
    )  # fmt: skip
    assert (config.egress, config.connect_hosts) == ("install", (HOST, "other.example.org"))
    assert (config.package_policy, config.traffic) == (
        Path("/p.toml"), TrafficLimits(bytes_per_day=1 << 30, bytes_per_second=2 << 20),
    )  # fmt: skip
    plain = read_config(Environment(image))
    assert (plain.egress, plain.connect_hosts, plain.package_policy) == ("registries", (), None)
    for variable, value in (
        ("QILA_EGRESS", "all"), ("QILA_CONNECT_HOSTS", "*"), ("QILA_CONNECT_HOSTS", "a.example,"),
        ("QILA_CONNECT_HOSTS", "a.example:443"), ("QILA_PACKAGE_POLICY", "p.toml"), ("QILA_EGRESS_RATE", "-1"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=variable):
            read_config(Environment({**image, variable: value}))


def test_the_doors_get_what_the_operator_said() -> None:
    config = DoorsConfig(uid=1, gid=2, package_policy=Path("/p"), traffic=TrafficLimits(bytes_per_day=3))
    assert DoorsConfig.from_argument(config.to_argument()) == config
    plain = DoorsConfig(uid=1, gid=2)
    assert DoorsConfig.from_argument(plain.to_argument()) == plain
