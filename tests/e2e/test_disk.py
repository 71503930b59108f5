"""A workspace that is full, and a host that nearly is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qila.client import Client, QilaError
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from tests.e2e.conftest import Installation

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
SMALL = 64 << 20


@pytest.fixture
def client(installation: Installation) -> Iterator[Client]:
    with Client(installation.variables["QILA_GATEWAY_ADDRESS"]) as opened:
        yield opened


@pytest.fixture
def small(client: Client) -> Iterator[str]:
    made = client.create(limits=pb.Limits(disk_bytes=SMALL))
    assert made.limits.disk_bytes == SMALL
    yield made.id
    client.remove_sandbox(made.id)


def test_a_full_workspace_can_be_looked_at_and_emptied(installation: Installation, client: Client, small: str) -> None:
    filled = installation.qila("exec", "-q", small, "--", "sh", "-c", "cat /dev/zero >big")
    assert filled.returncode == 1
    assert b"No space left on device" in filled.stderr
    with pytest.raises(QilaError) as caught:
        client.put(small, "more", io.BytesIO(bytes(1 << 20)))
    assert caught.value.reason == "FILE_NO_SPACE"
    assert "big" in {file.name for file in client.ls(small)}
    assert installation.qila("exec", "-q", small, "--", "rm", "big").returncode == 0
    assert client.put(small, "more", io.BytesIO(bytes(1 << 20))).size == 1 << 20


def test_an_install_that_fills_the_workspace_ends_out_of_space_and_leaves_room(client: Client, small: str) -> None:
    client.put(small, "main.py", io.BytesIO(b"import numpy, pandas, scipy\n"))
    *_, last = client.exec(small, pb.Program(file="main.py"))
    assert last.ended.install_failed.reason == pb.INSTALL_FAILURE_REASON_OUT_OF_SPACE
    assert client.put(small, "more", io.BytesIO(bytes(20 << 20))).size == 20 << 20


def test_bounds_of_the_disk_are_told(client: Client) -> None:
    with pytest.raises(QilaError, match=r"limits\.disk_bytes: must be 67108864 to 1099511627776") as caught:
        client.create(limits=pb.Limits(disk_bytes=1))
    assert caught.value.reason == "INVALID_FIELD"


def test_the_operator_sees_how_workspaces_are_bounded(installation: Installation) -> None:
    shown = installation.qila("status")
    assert shown.returncode == 0
    assert "workspace 10.0 GiB each, quota by loop\n" in shown.stdout.decode()
    assert "low-water mark 2.0 GiB" in shown.stdout.decode()


def test_what_is_made_survives_while_a_host_that_is_low_refuses_new_work(
    installation: Installation, client: Client, sandbox: str, tmp_path: Path
) -> None:
    client.put(sandbox, "file", io.BytesIO(b"kept"))
    low = replace(installation, variables={**installation.variables, "QILA_DISK_LOW_WATER": "500TiB"})
    assert installation.qila("down").returncode == 0
    try:
        assert low.qila("up").returncode == 0
        assert "LOW: new work is refused" in low.qila("status").stdout.decode()
        (tmp_path / "upload").write_bytes(b"more")
        for refused in (["create"], ["put", sandbox, str(tmp_path / "upload")]):
            done = low.qila(*refused)
            assert done.returncode == 125
            assert done.stderr.startswith(b"qila: the host's disk is low: ")
        assert low.qila("exec", "-q", sandbox, "--", "cat", "file").stdout == b"kept"
        assert low.qila("rm", f"{sandbox}:file").returncode == 0
        assert low.qila("down").returncode == 0
    finally:
        assert installation.qila("up").returncode == 0
