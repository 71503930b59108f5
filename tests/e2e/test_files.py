"""Files and trees through the command line and all three services."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Installation  # type: ignore[import-not-found]  # pytest puts this directory on the path

from qila.client import Client, QilaError
from qila.client.client import open_channel
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

FILES = 1000


@pytest.fixture
def local(tmp_path: Path) -> Path:
    directory = tmp_path / "local"
    for number in range(FILES):
        path = directory / f"d{number % 10}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1000))
    (directory / "tool").write_text("#!/bin/sh\necho tool\n")
    (directory / "tool").chmod(0o755)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_a_tree_goes_up_is_changed_synced_and_comes_down(
    installation: Installation, sandbox: str, local: Path, tmp_path: Path
) -> None:
    begin = time.monotonic()
    assert installation.qila("put", sandbox, str(local), ":t").returncode == 0
    print(f"put of {FILES} files: {time.monotonic() - begin:.2f} s")  # noqa: T201 - a figure worth seeing
    assert installation.qila("exec", "-q", sandbox, "--", "t/tool").stdout == b"tool\n"
    assert installation.qila("exec", "-q", sandbox, "--", "sh", "-c", "echo x > t/d1/f1; touch t/own").returncode == 0
    begin = time.monotonic()
    synced = installation.qila("sync", "--json", str(local), f"{sandbox}:t")
    print(f"sync of one file: {time.monotonic() - begin:.2f} s")  # noqa: T201 - as above
    assert json.loads(synced.stdout) == {"uploaded": ["d1/f1"], "removed": [], "unchanged": FILES}
    synced = installation.qila("sync", "--json", "--delete", str(local), f"{sandbox}:t")
    assert json.loads(synced.stdout) == {"uploaded": [], "removed": ["own"], "unchanged": FILES + 1}
    assert installation.qila("get", f"{sandbox}:t", str(tmp_path / "back")).returncode == 0
    assert contents(tmp_path / "back") == contents(local)
    assert (tmp_path / "back/tool").stat().st_mode & 0o111


def test_files_are_moved_looked_at_and_listed_by_patterns(
    installation: Installation, sandbox: str, local: Path
) -> None:
    assert installation.qila("put", sandbox, str(local / "tool"), ":a/tool").returncode == 0
    assert installation.qila("mv", f"{sandbox}:a/tool", "b/c/tool.sh").returncode == 0
    assert installation.qila("mkdir", f"{sandbox}:b/empty").returncode == 0
    shown = json.loads(installation.qila("stat", "--json", f"{sandbox}:b/c/tool.sh").stdout)
    assert (shown["name"], shown["kind"], shown["executable"]) == ("b/c/tool.sh", "FILE_KIND_FILE", True)
    listed = installation.qila("ls", "-R", "--json", "--pattern", "**/*.sh", sandbox).stdout
    assert [json.loads(line)["name"] for line in listed.splitlines()] == ["b/c/tool.sh"]
    refused = installation.qila("mv", f"{sandbox}:b/c/tool.sh", "b/empty")
    assert (refused.returncode, b"FILE_EXISTS" in refused.stderr) == (125, True)
    refused = installation.qila("stat", f"{sandbox}:a/tool")
    assert (refused.returncode, b"FILE_NOT_FOUND" in refused.stderr) == (125, True)


def test_a_stream_that_broke_off_goes_on_and_bad_positions_have_one_answer(
    installation: Installation, sandbox: str
) -> None:
    data = os.urandom(3_000_000)
    address = installation.variables["QILA_GATEWAY_ADDRESS"]
    with open_channel(address) as channel, Client(address) as client:
        stub = GatewayServiceStub(channel)

        def stream(offset: int, part: bytes, *, ends: bool) -> Iterator[pb.WriteFileRequest]:
            header = pb.WriteFileHeader(sandbox_id=sandbox, path="big", transfer_id="t", offset=offset)
            yield pb.WriteFileRequest(header=header)
            for start in range(0, len(part), 1 << 16):
                yield pb.WriteFileRequest(chunk=part[start : start + (1 << 16)])
            if ends:
                yield pb.WriteFileRequest(end=pb.WriteFileEnd())

        with pytest.raises(Exception, match="broke off"):
            stub.WriteFile(stream(0, data[:2_000_000], ends=False))
        held = client.transfer_size(sandbox, "t")
        assert 0 < held <= 2_000_000
        with pytest.raises(Exception, match="beyond the"):
            stub.WriteFile(stream(held + 1, b"", ends=True))
        assert stub.WriteFile(stream(held, data[held:], ends=True)).size == len(data)
        assert b"".join(client.get(sandbox, "big")) == data
        assert b"".join(client.get(sandbox, "big", offset=len(data))) == b""
        assert client.transfer_size(sandbox, "t") == 0
        with pytest.raises(QilaError) as caught:
            list(client.get(sandbox, "big", offset=len(data) + 1))
        assert caught.value.reason == "FILE_OUT_OF_RANGE"
