"""Programs as models write them, with and without a manifest, end to end with real packages; each one twice.

A case is a directory in tests/cases/programs/ECOSYSTEM/: the files of a workspace, and case.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from packaging.utils import canonicalize_name

from qila.cli.upload import find_files
from qila.client import Client
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub

if TYPE_CHECKING:
    from tests.e2e.conftest import Installation

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
CASES = Path(__file__).resolve().parents[1] / "cases" / "programs"
# As a manifest's requirement begins: "zope.interface>=6", "@scope/name@^1", "group:artifact:1".
NAME = re.compile(r"@?[A-Za-z0-9._/-]+(?::[A-Za-z0-9._-]+)?")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What must be seen; what is None or an empty text is not looked at. `stdout_varies` if two runs differ.

    `undeclared` (told by the plan) and `missing` (told at the end) map modules to the requirements that provide them,
    an empty one if none is known. `requirements` are names; `locked` maps names to versions.
    """

    exit_code: int | None = None
    install_failed: str = ""
    source: str = ""
    requirements: list[str] | None = None
    locked: Mapping[str, str] = field(default_factory=dict)
    undeclared: Mapping[str, str] | None = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    missing: Mapping[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    detail_contains: list[str] = field(default_factory=list)
    stdout_contains: list[str] = field(default_factory=list)
    stderr_contains: list[str] = field(default_factory=list)
    stdout_varies: bool = False


@dataclass(frozen=True, kw_only=True)
class ProgramCase:
    """A workspace and what to run in it: `target`, `args` and `options` are fields of Program and of ExecRequest."""

    directory: Path
    about: str
    expect: Expected
    target: Mapping[str, Any] = field(default_factory=dict)
    args: list[str] = field(default_factory=list)
    options: Mapping[str, Any] = field(default_factory=dict)

    def request(self, sandbox_id: str) -> pb.ExecRequest:
        program = {**self.target, "args": self.args}
        return ParseDict({"sandbox_id": sandbox_id, "program": program, **self.options}, pb.ExecRequest())


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the events of one exec told, its last run's output included."""

    ended: pb.ExecEnded
    plan: pb.PlanMade
    phases: list[int]
    notices: list[str]
    stdout: str
    stderr: str
    install_output: str


def load_case(directory: Path) -> ProgramCase:
    document = json.loads((directory / "case.json").read_text(encoding="utf-8"))
    expect = Expected(**document.pop("expect"))
    return ProgramCase(directory=directory, expect=expect, **document)


def case_directories() -> list[Path]:
    return sorted(path.parent for path in CASES.glob("*/*/case.json"))


def watch(events: Iterable[pb.ExecEvent]) -> Seen:
    plan, ended = pb.PlanMade(), pb.ExecEnded()
    phases: list[int] = []
    notices: list[str] = []
    outputs: dict[tuple[int, int], bytearray] = {}
    run = 0
    for event in events:
        if event.HasField("phase_started"):
            phases.append(event.phase_started.phase)
        elif event.HasField("plan_made"):
            plan = event.plan_made
        elif event.HasField("notice"):
            notices.append(event.notice.code)
        elif event.HasField("ended"):
            ended = event.ended
        elif event.HasField("output"):
            if event.output.run != run and event.output.phase == pb.PHASE_RUN:
                run = event.output.run
                outputs = {key: value for key, value in outputs.items() if key[0] != pb.PHASE_RUN}
            outputs.setdefault((event.output.phase, event.output.stream), bytearray()).extend(event.output.data)

    def text(phase: int, stream: int) -> str:
        return outputs.get((phase, stream), b"").decode("utf-8", "replace")

    install = text(pb.PHASE_INSTALL, pb.STREAM_STDOUT) + text(pb.PHASE_INSTALL, pb.STREAM_STDERR)
    return Seen(
        ended=ended,
        plan=plan,
        phases=phases,
        notices=notices,
        stdout=text(pb.PHASE_RUN, pb.STREAM_STDOUT),
        stderr=text(pb.PHASE_RUN, pb.STREAM_STDERR),
        install_output=install,
    )


def check(expect: Expected, seen: Seen) -> None:
    """Asserts that an exec, the first or a later one, showed what was expected."""
    told = f"{seen.ended}\n{seen.stderr[-3000:]}\n{seen.install_output[-3000:]}"
    if expect.exit_code is not None:
        assert seen.ended.WhichOneof("end") == "exited", told
        assert seen.ended.exited == expect.exit_code, told
    _check_failure(expect, seen.ended)
    _check_plan(expect, seen.plan)
    missing = {found.module: name_of(found.suggestion) for found in seen.ended.missing_imports}
    assert missing == spelt(expect.missing), told
    assert set(expect.notices) <= set(seen.notices), seen.notices
    for text in expect.stdout_contains:
        assert text in seen.stdout, f"{seen.stdout}\n{told}"
    for text in expect.stderr_contains:
        assert text in seen.stderr, told


def _check_failure(expect: Expected, ended: pb.ExecEnded) -> None:
    failed = ended.install_failed
    reason = pb.InstallFailureReason.Name(failed.reason).removeprefix("INSTALL_FAILURE_REASON_").lower()
    assert (reason if ended.HasField("install_failed") else "") == expect.install_failed, ended
    told = "\n".join([failed.detail, *failed.hints])
    for text in expect.detail_contains:
        assert text in told, told


def _check_plan(expect: Expected, plan: pb.PlanMade) -> None:
    assert expect.source in {"", plan.source}, plan
    if expect.requirements is not None:
        names = sorted(name_of(requirement.specifier) for requirement in plan.requirements)
        assert names == sorted(map(name_of, expect.requirements)), plan
    undeclared = {found.module: name_of(found.suggestion) for found in plan.undeclared}
    assert expect.undeclared is None or undeclared == spelt(expect.undeclared), plan
    assert sorted(found.module for found in plan.unknown) == sorted(expect.unknown), plan


def spelt(names: Mapping[str, str]) -> dict[str, str]:
    """The requirements of modules, in one spelling."""
    return {module: name_of(requirement) for module, requirement in names.items()}


def name_of(requirement: str) -> str:
    """The name that a requirement begins with, in one spelling; empty if the requirement is empty."""
    found = NAME.match(requirement)
    return canonicalize_name(found.group()) if found else ""


class Runner:
    """Runs cases, each in a sandbox of its own, in one installation: packages come from its mirror's cache."""

    def __init__(self, address: str) -> None:
        self._client = Client(address)
        self._channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
        self._stub = GatewayServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()
        self._client.close()

    def run_twice(self, case: ProgramCase) -> None:
        sandbox_id = self._client.create().id
        try:
            files = [file for file in find_files(case.directory, "", pytest.fail) if file.path != "case.json"]
            self._client.put_files(sandbox_id, files)
            first = self._exec(case.request(sandbox_id))
            check(case.expect, first)
            self._check_lock(case, sandbox_id)
            check_second(case, first, self._exec(case.request(sandbox_id)))
        finally:
            self._client.remove_sandbox(sandbox_id)

    def _exec(self, request: pb.ExecRequest) -> Seen:
        return watch(response.event for response in self._stub.Exec(request, timeout=300))

    def _check_lock(self, case: ProgramCase, sandbox_id: str) -> None:
        if case.expect.locked:
            packages = json.loads(self._client.lock(sandbox_id).lock)["packages"]
            versions = {package["name"]: package["version"] for package in packages}
            assert {name: versions.get(name) for name in case.expect.locked} == case.expect.locked


def check_second(case: ProgramCase, first: Seen, second: Seen) -> None:
    """The same end; what was installed is not installed again, and the program prints the same."""
    check(case.expect, second)
    if case.expect.install_failed:
        return
    assert pb.PHASE_INSTALL not in second.phases, second.install_output
    assert second.plan.installed, second.plan
    assert second.plan.launch_argv == first.plan.launch_argv, second.plan
    if not case.expect.stdout_varies:
        assert second.stdout == first.stdout


@pytest.fixture(scope="module")
def runner(installation: Installation) -> Iterator[Runner]:
    made = Runner(installation.variables["QILA_GATEWAY_ADDRESS"])
    yield made
    made.close()


@pytest.mark.parametrize("directory", case_directories(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_program(runner: Runner, directory: Path) -> None:
    runner.run_twice(load_case(directory))
