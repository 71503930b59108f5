"""Guessing ids: of other sandboxes, of their execs, and ids that are paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb

from .boxes import Boxes, Shipped
from .frame import Setting, attack
from .stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

SECRET = "of somebody else"


@pytest.fixture
def other(stack: Stack) -> Iterator[Shipped]:
    made = Shipped(stack)
    yield made
    made.close()


def answered(call: Callable[[], Any]) -> list[str]:
    """What a call says, if it is not refused."""
    try:
        answer = call()
        return [str(answer if hasattr(answer, "DESCRIPTOR") else list(answer))[:200] or "answered"]
    except grpc.RpcError:
        return []


def exec_of(box: Shipped) -> str:
    request = pb.ExecRequest(sandbox_id=box.id, command=pb.Command(argv=["echo", SECRET]))
    return next(response.event for response in list(box.stack.gateway.Exec(request))).created.exec_id


@pytest.mark.parametrize("call", ["AttachExec", "GetExec", "CancelExec"])
@attack(weakened="the exec's own sandbox is named")
def test_reach_an_exec_through_another_sandbox(setting: Setting, boxes: Boxes, other: Shipped, call: str) -> list[str]:
    names = {"sandbox_id": (boxes.shipped if setting is Setting.SHIPPED else other).id, "exec_id": exec_of(other)}
    request = getattr(pb, f"{call}Request")(**names)
    return answered(lambda: getattr(boxes.stack.gateway, call)(request, timeout=20))


PATHS = ("../{}", "./{}", "{}/", "/{}", "{}\0", "..", "*", "{}/../{}")


@pytest.mark.parametrize("form", PATHS)
@attack(weakened="the id as it is")
def test_name_a_sandbox_by_a_path(setting: Setting, boxes: Boxes, other: Shipped, form: str) -> list[str]:
    spelled = form.format(other.id, other.id) if setting is Setting.SHIPPED else other.id
    gateway, processes = boxes.stack.gateway, boxes.stack.executor
    other.files.write("secret", SECRET.encode())
    spec = executor.ProcessSpec(argv=["true"])
    calls: list[Callable[[], Any]] = [
        lambda: gateway.GetSandbox(pb.GetSandboxRequest(sandbox_id=spelled), timeout=20),
        lambda: gateway.ReadFile(pb.ReadFileRequest(sandbox_id=spelled, path="secret"), timeout=20),
        lambda: gateway.ListFiles(pb.ListFilesRequest(sandbox_id=spelled), timeout=20),
        lambda: gateway.StatFile(pb.StatFileRequest(sandbox_id=spelled, path="secret"), timeout=20),
        lambda: gateway.ReadTree(pb.ReadTreeRequest(sandbox_id=spelled), timeout=20),
        lambda: processes.GetSandbox(executor.GetSandboxRequest(sandbox_id=spelled), timeout=20),
        lambda: processes.RunProcess(
            executor.RunProcessRequest(sandbox_id=spelled, process_id="p", spec=spec), timeout=20
        ),
    ]
    return [line for call in calls for line in answered(call)]


@pytest.mark.parametrize("form", PATHS)
@attack(weakened="the id as it is")
def test_remove_a_sandbox_by_a_path(setting: Setting, stack: Stack, other: Shipped, form: str) -> list[str]:
    spelled = form.format(other.id, other.id) if setting is Setting.SHIPPED else other.id
    answered(lambda: stack.gateway.RemoveSandbox(pb.RemoveSandboxRequest(sandbox_id=spelled), timeout=60))
    answered(lambda: stack.executor.RemoveSandbox(executor.RemoveSandboxRequest(sandbox_id=spelled), timeout=60))
    there = stack.gateway.ListSandboxes(pb.ListSandboxesRequest(), timeout=20).sandboxes
    return [] if other.id in {sandbox.id for sandbox in there} else ["gone"]


def written_outside(stack: Stack, sandbox: str) -> set[str]:
    """Files of the executor's state that are not where a process of this sandbox keeps its own."""
    state = stack.directory / "state"
    inside = state / "sandboxes" / sandbox / "processes"
    return {str(path) for path in state.rglob("*") if path.is_dir() and inside not in (path, *path.parents)}


PROCESS_IDS = ("../evil", "../../evil", "..", ".", "/tmp/evil", "a/../../evil", "a/b")


@pytest.mark.parametrize("name", PROCESS_IDS)
@attack(weakened="an executor that takes the id as a path")
def test_write_a_spool_elsewhere_by_the_id_of_a_process(
    setting: Setting, boxes: Boxes, name: str, tmp_path: Path
) -> list[str]:
    box = boxes.shipped
    before = written_outside(box.stack, box.id)
    if setting is Setting.WEAKENED:
        spool = tmp_path / "processes"
        spool.mkdir()
        return [] if (spool / name).resolve().parent == spool.resolve() else ["elsewhere"]
    spec = executor.ProcessSpec(argv=["echo", "evil"])
    request = executor.RunProcessRequest(sandbox_id=box.id, process_id=name, spec=spec)
    evidence = answered(lambda: box.stack.executor.RunProcess(request, timeout=20))
    return evidence + sorted(written_outside(box.stack, box.id) - before)
