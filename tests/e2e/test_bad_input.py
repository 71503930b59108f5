"""Bad input gets one clear error that says what to do; nothing hangs, and nothing half-installed remains."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc
import pytest

from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1 import gateway_pb2_grpc

if TYPE_CHECKING:
    import subprocess

    class Installation(Protocol):
        variables: dict[str, str]

        def __init__(self, *, variables: dict[str, str]) -> None: ...

        def qila(self, *arguments: str) -> subprocess.CompletedProcess[bytes]: ...


pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
NO_SANDBOX = "sb_" + "a" * 26


@pytest.fixture
def gateway(installation: Installation) -> Iterator[gateway_pb2_grpc.GatewayServiceStub]:
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(installation.variables["QILA_GATEWAY_ADDRESS"], options=options) as channel:
        yield gateway_pb2_grpc.GatewayServiceStub(channel)


def exec_files(
    installation: Installation, sandbox: str, directory: Path, files: dict[str, bytes]
) -> subprocess.CompletedProcess[bytes]:
    for name, content in files.items():
        (directory / name).write_bytes(content)
    put = installation.qila("put", sandbox, str(directory))
    assert put.returncode == 0, put.stderr.decode()
    return installation.qila("exec", sandbox, "main.py")


@pytest.mark.parametrize("path", ["", "../up", "a/../../b", "/etc/passwd", "a\0b", "x" * 5000, "x" * 300, "a//b", "."])
def test_a_bad_file_name_is_refused_with_its_rule(
    sandbox: str, gateway: gateway_pb2_grpc.GatewayServiceStub, path: str
) -> None:
    header = pb.WriteFileRequest(header=pb.WriteFileHeader(sandbox_id=sandbox, path=path))
    with pytest.raises(grpc.RpcError) as caught:
        gateway.WriteFile(iter([header, pb.WriteFileRequest(chunk=b"x")]), timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "path" in (caught.value.details() or "")


@pytest.mark.parametrize("cut", ["end missing", "cancelled", "not a chunk"])
def test_an_upload_that_breaks_off_leaves_the_old_file(
    sandbox: str, gateway: gateway_pb2_grpc.GatewayServiceStub, cut: str
) -> None:
    header = pb.WriteFileRequest(header=pb.WriteFileHeader(sandbox_id=sandbox, path="data"))
    end = pb.WriteFileRequest(end=pb.WriteFileEnd())
    gateway.WriteFile(iter([header, pb.WriteFileRequest(chunk=b"old"), end]), timeout=60)

    def broken() -> Iterator[pb.WriteFileRequest]:
        yield header
        for _ in range(100):
            yield pb.WriteFileRequest(chunk=b"n" * 65536)
        if cut == "cancelled":
            raise RuntimeError(cut)
        if cut == "not a chunk":
            yield header

    with pytest.raises(grpc.RpcError):
        gateway.WriteFile(broken(), timeout=60)
    request = pb.ReadFileRequest(sandbox_id=sandbox, path="data")
    assert b"".join(response.chunk for response in gateway.ReadFile(request, timeout=60)) == b"old"
    listed = gateway.ListFiles(pb.ListFilesRequest(sandbox_id=sandbox), timeout=60).files
    assert [row.name for row in listed if not row.name.startswith((".home", ".local")) and row.name != ".qila"] == [
        "data"
    ]


def test_an_unknown_sandbox_is_named(gateway: gateway_pb2_grpc.GatewayServiceStub) -> None:
    request = pb.ExecRequest(sandbox_id=NO_SANDBOX, command=pb.Command(argv=["true"]))
    with pytest.raises(grpc.RpcError) as caught:
        list(gateway.Exec(request, timeout=60))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert NO_SANDBOX in (caught.value.details() or "")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("pyproject.toml", b'[project]\nname = "x"\ndependencies = [\n  "requests",\n', b"pyproject.toml:"),
        ("pyproject.toml", b'[project]\nname = "\xff\xfe"\n', b"pyproject.toml"),
        ("requirements.txt", b"requests\nflask ==== 3\n", b"requirements.txt:2"),
        ("requirements.txt", b"requests\n" + b"#" * (3 << 20), b"requirements.txt"),
    ],
)
def test_a_broken_manifest_is_told_with_its_place(
    installation: Installation, sandbox: str, tmp_path: Path, name: str, content: bytes, said: bytes
) -> None:
    done = exec_files(installation, sandbox, tmp_path, {"main.py": b"print('never')\n", name: content})
    assert (done.returncode, done.stdout) == (125, b"")
    assert said in done.stderr, done.stderr.decode()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("requirements", "reason", "said"),
    [
        (b"urllib3==1.26.20\nurllib3==2.2.3\n", b"no_solution", b"urllib3"),
        # Its source distribution fails on purpose, to point to scikit-learn.
        (b"sklearn\n", b"build_failed", b"sklearn"),
    ],
)
def test_a_failed_install_keeps_the_earlier_environment(
    installation: Installation, sandbox: str, tmp_path: Path, requirements: bytes, reason: bytes, said: bytes
) -> None:
    good = {"main.py": b"import idna\nprint(idna.encode('a.b'))\n", "requirements.txt": b"idna\n"}
    first = exec_files(installation, sandbox, tmp_path, good)
    assert first.returncode == 0, first.stderr.decode()
    failed = exec_files(installation, sandbox, tmp_path, {"requirements.txt": requirements})
    assert failed.returncode == 125
    assert b"install failed: " + reason in failed.stderr, failed.stderr.decode()
    assert said in failed.stderr
    kept = installation.qila("exec", "-q", sandbox, "--", "ls", "/sandbox/.qila/env/python", "/sandbox/.qila/stage")
    assert len([line for line in kept.stdout.split() if len(line) == 64]) == 1, kept.stdout
    again = exec_files(installation, sandbox, tmp_path, good)
    assert again.returncode == 0
    assert b"INSTALL" not in again.stderr


def test_a_second_installation_at_the_same_address_is_told_so(installation: Installation, tmp_path: Path) -> None:
    run_directory = Path("/tmp") / f"qe2-{tmp_path.name[-12:]}"
    variables = installation.variables | {
        "QILA_STATE_DIR": str(tmp_path / "state"),
        "QILA_RUN_DIR": str(run_directory),
        "QILA_INSTANCE": "second",
    }
    second = type(installation)(variables=variables)
    done = second.qila("up")
    assert done.returncode == 125
    assert b"another installation answers at " + variables["QILA_GATEWAY_ADDRESS"].encode() in done.stderr
    # What it had started is stopped again, and the first one goes on.
    assert not list(run_directory.glob("*.pid"))
    shutil.rmtree(run_directory)
    assert installation.qila("status").returncode == 0
