"""Which lines of a lock a failed install names."""

from __future__ import annotations

import asyncio

import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.explaining import StepExplainer, lines_not_honoured
from services.gateway.resolver_fake import FakeResolver

LINES = [
    resolver.LockLine(package="ms", version="2.0.0", path="l.json", line=98),
    resolver.LockLine(package="ms", version="2.1.3", path="l.json", line=112),
    resolver.LockLine(package="debug", version="4.3.4", path="l.json"),
]
WORDS = "could not be installed as the lock says"


def failure(
    detail: str,
    *packages: str,
    reason: resolver.InstallFailureReason.ValueType = resolver.INSTALL_FAILURE_REASON_NO_SOLUTION,
) -> resolver.InstallFailure:
    return resolver.InstallFailure(reason=reason, detail=detail, packages=packages)


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (failure("lock: ms@2.1.3: the lock says sha512-a", "ms"), [f"l.json:112: ms 2.1.3 {WORDS}"]),
        (failure("npm has no ms", "ms"), [f"l.json:98: ms 2.0.0 {WORDS}", f"l.json:112: ms 2.1.3 {WORDS}"]),
        (failure("no debug", "other", "debug"), [f"l.json: debug 4.3.4 {WORDS}"]),
        (failure("ms@2.1.3"), []),
        (failure("ms@2.1.3", "ms", reason=resolver.INSTALL_FAILURE_REASON_OUT_OF_SPACE), []),
        (failure("ms@2.1.3", "ms", reason=resolver.INSTALL_FAILURE_REASON_NETWORK_DENIED), []),
    ],
)
def test_line_of_a_package_that_the_installer_names(failed: resolver.InstallFailure, expected: list[str]) -> None:
    assert lines_not_honoured(LINES, failed) == expected


def test_lines_are_bounded() -> None:
    many = [resolver.LockLine(package="ms", version=str(number), path="l.json") for number in range(1000)]
    assert len(lines_not_honoured(many, failure("none", "ms"))) == 20


async def test_lines_whose_explanation_was_cut_off_are_explained_by_the_next() -> None:
    fake, told = FakeResolver(), list[pb.ExecEvent]()
    explain, asked = fake.explain_install, asyncio.Event()

    async def hang(request: resolver.ExplainInstallRequest) -> resolver.ExplainInstallResponse:
        asked.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    explainer = StepExplainer(fake, resolver.Plan(ecosystem="python"), resolver.STEP_KIND_INSTALL, told.append)
    fake.explain_install = hang  # type: ignore[method-assign]
    following = asyncio.create_task(explainer.follow())
    explainer.feed(executor.Output(data=b"+ yaml==6.0\n"))
    await asked.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    fake.explain_install = explain  # type: ignore[method-assign]
    await explainer.explain()
    assert [event.package.name for event in told if event.HasField("package")] == ["yaml"]
