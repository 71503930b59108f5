"""Choosing what a sandbox is made from: a client may name an image, and never spell what the engine would look for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from sandbox.image.build import BASE_TAG

from .frame import Setting, attack
from .stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

# Debian without sandboxd, which every engine that built the sandbox image has; by name, by id, and by a shorter id.
SPELLED = ("{name}", "{id}", "{short}", "{name}\0", " {name}", "../{name}", "default/../{name}", "default@{id}")


def docker(*arguments: str) -> str:
    asked = ["timeout", "60", "docker", *arguments]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("spelled", SPELLED)
@attack(weakened="an executor that gives the name to the engine")
def test_make_a_sandbox_from_any_image_of_the_engine(setting: Setting, stack: Stack, spelled: str) -> list[str]:
    found = docker("image", "inspect", "--format", "{{.Id}}", BASE_TAG)
    image = spelled.format(name=BASE_TAG, id=found, short=found.partition(":")[2][:12])
    if setting is Setting.WEAKENED:
        made = docker("create", found, "true")
        docker("rm", made)
        return [made]
    calls: list[Callable[[], Any]] = [
        lambda: stack.gateway.CreateSandbox(pb.CreateSandboxRequest(image=image), timeout=60),
        lambda: stack.executor.CreateSandbox(executor.CreateSandboxRequest(image=image), timeout=60),
    ]
    return [answer for call in calls if (answer := answer_of(stack, call)) != "INVALID_ARGUMENT"]


def answer_of(stack: Stack, call: Callable[[], Any]) -> str:
    """The id of the sandbox that was made, or the status of the refusal."""
    try:
        made: str = call().sandbox.id
    except grpc.RpcError as error:
        return str(error.code().name)
    stack.remove(made)
    return made
