"""The command line and the client against a gateway that speaks over a real socket."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from qila.cli.__main__ import call
from qila.cli.stack import Stack, last_words, running, start_time_of
from qila.client import Client, Digests, NotFoundError, QilaError, UnavailableError
from qila.client.trees import LocalFile
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SANDBOX = "sb_" + "a" * 26
NO_FIELDS: dict[str, str] = {}


def output(stream: pb.Stream.ValueType, offset: int, data: bytes) -> pb.ExecEvent:
    return pb.ExecEvent(output=pb.Output(phase=pb.PHASE_RUN, stream=stream, offset=offset, data=data))


def ended(**end: object) -> pb.ExecEvent:
    return pb.ExecEvent(sequence=9, ended=pb.ExecEnded(**end))  # type: ignore[arg-type]  # one case of the oneof


class FakeGateway(GatewayServiceServicer):
    def __init__(self) -> None:
        self.events: list[pb.ExecEvent] = [ended(exited=0)]
        self.break_after: int | None = None
        self.files: dict[str, bytes] = {}
        self.executable: set[str] = set()
        self.exec_requests: list[pb.ExecRequest] = []
        self.attach_requests: list[pb.AttachExecRequest] = []
        self.removed: list[str] = []
        self.create_requests: list[pb.CreateSandboxRequest] = []
        self.policy = pb.EgressPolicy(mode=pb.EGRESS_MODE_REGISTRIES)
        self.records: list[pb.EgressRecord] = []
        self.egress_requests: list[pb.ListEgressRequest] = []
        self.read_requests: list[pb.ReadFileRequest] = []
        self.list_requests: list[pb.ListFilesRequest] = []
        self.break_reads_after: int | None = None
        self.lie = False
        self.mtime_ns = 1
        self.made: list[str] = []
        self.tree_headers: list[pb.WriteTreeHeader] = []
        self.held = b""
        self.break_uploads_after: int | None = None
        self.archive = b""
        self.compared: list[list[str]] = []

    def CreateSandbox(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.create_requests.append(request)
        return pb.CreateSandboxResponse(sandbox=pb.Sandbox(id=SANDBOX))

    def ListImages(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        default = pb.Image(name="default", is_default=True, toolchains={"go": "1.27.3", "python": "3.13.5", "uv": "1"})
        return pb.ListImagesResponse(images=[default, pb.Image(name="go1.26\x1b[2J", toolchains={"go": "1.26.6"})])

    def GetSandbox(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        return pb.GetSandboxResponse(sandbox=pb.Sandbox(id=SANDBOX, egress=self.policy))

    def SetEgressPolicy(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.policy = request.policy
        return pb.SetEgressPolicyResponse(policy=self.policy)

    def ListEgress(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.egress_requests.append(request)
        records = [record for record in self.records if record.sequence > request.after_sequence]
        for record in records[: self.break_after]:
            yield pb.ListEgressResponse(records=[record])
        if self.break_after is not None and len(self.egress_requests) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    def RemoveSandbox(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.removed.append(request.sandbox_id)
        return pb.RemoveSandboxResponse()

    def WriteFile(self, request_iterator, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        header = next(request_iterator).header
        self.files[header.path] = b"".join(part.chunk for part in request_iterator)
        if header.executable:
            self.executable.add(header.path)
        return pb.WriteFileResponse(size=len(self.files[header.path]))

    def WriteTree(self, request_iterator, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        header = next(request_iterator).header
        self.tree_headers.append(header)
        content = bytearray(self.held[: header.offset])
        for part in request_iterator:
            if part.HasField("end"):
                break
            content += part.chunk
            if self.break_uploads_after is not None and len(content) > self.break_uploads_after:
                self.held, self.break_uploads_after = bytes(content), None
                context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        assert hashlib.sha256(content).hexdigest() == part.end.sha256
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                self.files[member.name] = file.read()
                if member.mode & 0o100:
                    self.executable.add(member.name)
        return pb.WriteTreeResponse(size=len(content))

    def CompareTree(self, request_iterator, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        header = next(request_iterator).header
        assert header.ignored_names == [".git", ".venv", "__pycache__", "node_modules"]
        named = {file.path: file for request in request_iterator for file in request.files.files}
        prefix = f"{header.path}/" if header.path else ""
        there = {path.removeprefix(prefix): content for path, content in self.files.items() if path.startswith(prefix)}
        self.compared.append(sorted(named))
        yield pb.CompareTreeResponse(beyond=sorted(set(there) - set(named)))
        for path, file in named.items():
            if path not in there or hashlib.sha256(there[path]).hexdigest() != file.sha256:
                yield pb.CompareTreeResponse(different=[path])

    def RemoveFile(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        del self.files[request.path]
        return pb.RemoveFileResponse()

    def GetTransfer(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        assert request.transfer_id == self.tree_headers[-1].transfer_id
        return pb.GetTransferResponse(size=len(self.held))

    def ReadTree(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        assert request.etag == ("e" if request.offset else "")
        part = self.archive[request.offset :]
        yield pb.ReadTreeResponse(header=pb.ReadTreeHeader(etag="e", size=len(self.archive)))
        if self.break_reads_after is not None and not request.offset:
            yield pb.ReadTreeResponse(chunk=part[: self.break_reads_after])
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        yield pb.ReadTreeResponse(chunk=part)
        end = pb.ReadTreeEnd(size=len(part), sha256=hashlib.sha256(part).hexdigest())
        yield pb.ReadTreeResponse(end=end)

    def ReadFile(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        if request.path not in self.files:
            info = any_pb2.Any()
            info.Pack(error_details_pb2.ErrorInfo(domain="qila", reason="FILE_NOT_FOUND", metadata={"path": "x"}))
            context.abort_with_status(
                rpc_status.to_status(status_pb2.Status(code=5, message=request.path, details=[info]))
            )
        self.read_requests.append(request)
        content = self.files[request.path]
        part = content[request.offset :]
        yield pb.ReadFileResponse(header=pb.ReadFileHeader(size=len(content), mtime_ns=self.mtime_ns))
        if self.break_reads_after is not None and len(self.read_requests) == 1:
            yield pb.ReadFileResponse(chunk=part[: self.break_reads_after])
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        yield pb.ReadFileResponse(chunk=part)
        sha256 = "0" * 64 if self.lie else hashlib.sha256(part).hexdigest()
        yield pb.ReadFileResponse(end=pb.ReadFileEnd(size=len(part), sha256=sha256))

    def ListFiles(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.list_requests.append(request)
        files = [pb.FileInfo(name=name, size=len(content)) for name, content in self.files.items()]
        return pb.ListFilesResponse(files=files)

    def StatFile(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        kind = pb.FILE_KIND_DIRECTORY if request.path == "tree" else pb.FILE_KIND_FILE
        size = len(self.files.get(request.path, b""))
        return pb.StatFileResponse(file=pb.FileInfo(name=request.path, kind=kind, size=size, mtime_ns=10**18))

    def MoveFile(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        assert request.replace or request.target not in self.files
        self.files[request.target] = self.files.pop(request.source)
        return pb.MoveFileResponse()

    def MakeDirectory(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.made.append(request.path)
        return pb.MakeDirectoryResponse()

    def Exec(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.exec_requests.append(request)
        for event in self.events[: self.break_after]:
            yield pb.ExecResponse(event=event)
        if self.break_after is not None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    def AttachExec(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.attach_requests.append(request)
        for event in self.events[self.break_after :]:
            yield pb.AttachExecResponse(event=event)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    fake = FakeGateway()  # type: ignore[abstract]  # calls that no test makes answer UNIMPLEMENTED
    server = grpc.server(ThreadPoolExecutor(4))
    add_GatewayServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    monkeypatch.setenv("QILA_GATEWAY_ADDRESS", f"127.0.0.1:{port}")
    server.start()
    yield fake
    server.stop(0).wait()


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (ended(exited=3), 3),
        (ended(signaled=9), 137),
        (ended(timed_out=pb.TimedOut(phase=pb.PHASE_RUN)), 124),
        (ended(install_failed=pb.InstallFailed(reason=pb.INSTALL_FAILURE_REASON_NOT_FOUND)), 125),
        (ended(sandbox_lost=pb.SandboxLost()), 125),
        (ended(start_failed=pb.StartFailed(error="ENOENT")), 127),
        (ended(start_failed=pb.StartFailed(error="EACCES")), 126),
        (ended(cancelled=pb.Cancelled()), 130),
    ],
)
def test_exit_code_tells_how_the_exec_ended(gateway: FakeGateway, event: pb.ExecEvent, code: int) -> None:
    gateway.events = [event]
    assert call(["exec", SANDBOX, "main.py"]) == code


def test_output_is_exact_bytes_on_its_own_stream(
    gateway: FakeGateway, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    program = tmp_path / "main.py"
    program.write_text("pass")
    gateway.events = [
        output(pb.STREAM_STDOUT, 0, b"\xff\0one\r"),
        output(pb.STREAM_STDERR, 0, b"\x1b[two"),
        ended(exited=0),
    ]
    assert call(["run", "--quiet", str(program), "--", "-x", "y"]) == 0
    assert capfdbinary.readouterr() == (b"\xff\0one\r", b"\x1b[two")
    assert list(gateway.exec_requests[0].program.args) == ["-x", "y"]
    assert gateway.removed == [SANDBOX]


def test_command_after_two_dashes_is_run_as_it_is(gateway: FakeGateway) -> None:
    assert call(["exec", "--env", "A=b=c", SANDBOX, "--", "python", "-c", "1", "--"]) == 0
    request = gateway.exec_requests[0]
    assert list(request.command.argv) == ["python", "-c", "1", "--"]
    assert dict(request.env) == {"A": "b=c"}


def test_a_lost_stream_goes_on_at_its_position(gateway: FakeGateway, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    first = pb.ExecEvent(sequence=4, phase_started=pb.PhaseStarted(phase=pb.PHASE_RUN))
    gateway.events = [
        first,
        output(pb.STREAM_STDOUT, 0, b"abc"),
        output(pb.STREAM_STDOUT, 3, b"def"),
        ended(exited=5),
    ]
    gateway.break_after = 2
    assert call(["exec", "-q", SANDBOX, "main.py"]) == 5
    assert capfdbinary.readouterr().out == b"abcdef"
    again = gateway.attach_requests[0]
    assert (again.after_sequence, getattr(again, "from").stdout) == (4, 3)
    assert again.exec_id == gateway.exec_requests[0].exec_id


def test_a_lost_stream_goes_on_in_its_run(gateway: FakeGateway, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    again = pb.Output(phase=pb.PHASE_RUN, stream=pb.STREAM_STDOUT, run=1, data=b"de")
    rest = pb.Output(phase=pb.PHASE_RUN, stream=pb.STREAM_STDOUT, run=1, offset=2, data=b"f")
    gateway.events = [
        pb.ExecEvent(sequence=4, phase_started=pb.PhaseStarted(phase=pb.PHASE_RUN)),
        output(pb.STREAM_STDOUT, 0, b"abc"),
        pb.ExecEvent(sequence=5, phase_started=pb.PhaseStarted(phase=pb.PHASE_RUN, run=1)),
        pb.ExecEvent(output=again),
        pb.ExecEvent(output=rest),
        ended(exited=0),
    ]
    gateway.break_after = 4
    assert call(["exec", "-q", "--install-missing", SANDBOX, "main.py"]) == 0
    assert capfdbinary.readouterr().out == b"abcdef"
    position = getattr(gateway.attach_requests[0], "from")
    assert (gateway.attach_requests[0].after_sequence, position.run, position.stdout) == (5, 1, 2)
    assert gateway.exec_requests[0].install_missing


def test_options_of_a_program_are_sent(gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "pylock.toml").write_text("lock")
    options = ["--no-detect", "--extra", "a", "--extra", "b", "--group", "c"]
    assert call(["run", *options, "-m", "pkg.tool", "--lock", str(tmp_path / "pylock.toml"), str(tmp_path), "x"]) == 0
    assert call(["exec", "--script", "test", SANDBOX]) == 0
    assert call(["exec", SANDBOX]) == 125
    assert call(["exec", "--launch", "python -c 'a b' main.py", SANDBOX, "main.py", "x"]) == 0
    assert call(["exec", "--launch", "python 'open", SANDBOX, "main.py"]) == 125
    first, second, third = gateway.exec_requests
    assert (list(third.program.command), third.program.file) == (["python", "-c", "a b", "main.py"], "main.py")
    assert list(third.program.args) == ["x"]
    assert (first.program.module, first.program.file, list(first.program.args)) == ("pkg.tool", "", ["x"])
    assert (first.no_detection, list(first.extras), list(first.groups)) == (True, ["a", "b"], ["c"])
    assert (second.program.script, list(second.program.args)) == ("test", [])
    lock = gateway.create_requests[0].lock
    assert (lock.name, lock.content) == ("pylock.toml", b"lock")


def test_imports_are_told_with_what_to_do(gateway: FakeGateway, capfd: pytest.CaptureFixture[str]) -> None:
    yaml = pb.MissingImport(
        module="yaml", path="main.py", line=3, suggestion="pyyaml", manifest="requirements.txt", declaration="pyyaml"
    )
    six = pb.MissingImport(module="six", path="main.py", line=4, transitive_version="1.17.0", note="a\x1b[2J")
    odd = pb.MissingImport(module="odd", path="main.py", line=5)
    gateway.events = [
        pb.ExecEvent(sequence=1, phase_started=pb.PhaseStarted(phase=pb.PHASE_RUN, run=1)),
        pb.ExecEvent(sequence=2, imports_checked=pb.ImportsChecked(missing=[yaml, odd], transitive=[six])),
        pb.ExecEvent(sequence=3, stage=pb.StageProgress(stage=pb.INSTALL_STAGE_INSTALLING, done=1, total=2)),
        ended(exited=1, missing_imports=[yaml]),
    ]
    assert call(["exec", SANDBOX, "main.py"]) == 1
    told = capfd.readouterr().err.splitlines()
    assert told[:4] == [
        "RUN (run 2)",
        "  main.py:3 imports yaml, which is not declared: add `pyyaml` to requirements.txt",
        "  main.py:5 imports odd, for which no package is known",
        "  main.py:4 imports six, of which 1.17.0 is there only because another package requires it (a\ufffd[2J)",
    ]
    assert told[-1].startswith("qila: not found: main.py:3 imports yaml")
    assert call(["exec", "--json", SANDBOX, "main.py"]) == 1
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert events[1]["imports_checked"]["transitive"][0]["transitive_version"] == "1.17.0"
    assert events[2]["stage"] == {"stage": "INSTALL_STAGE_INSTALLING", "done": 1, "total": 2}


def test_no_gateway_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("QILA_GATEWAY_ADDRESS", "127.0.0.1:1")
    with Client("127.0.0.1:1") as client, pytest.raises(UnavailableError):
        next(client.exec(SANDBOX, pb.Program()))
    assert call(["create"]) == 125
    assert "qila up" in capfd.readouterr().err


def test_tree_upload_skips_and_refuses(gateway: FakeGateway, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("main.py", "pkg/a.py", ".git/config", "node_modules/x.js", "pkg/__pycache__/a.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "pkg/a.py").chmod(0o755)
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert call(["run", str(tmp_path)]) == 0
    assert gateway.files == {"main.py": b"main.py", "pkg/a.py": b"pkg/a.py"}
    assert gateway.executable == {"pkg/a.py"}
    assert "link: symbolic link, not uploaded" in capfd.readouterr().err


def test_put_and_get_keep_the_bytes(gateway: FakeGateway, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    (tmp_path / "a").write_bytes(data)
    assert call(["put", SANDBOX, str(tmp_path / "a"), ":data/b"]) == 0
    assert call(["get", f"{SANDBOX}:data/b", str(tmp_path)]) == 0
    assert (tmp_path / "b").read_bytes() == data == gateway.files["data/b"]


def test_a_download_that_breaks_off_goes_on_where_it_was(gateway: FakeGateway) -> None:
    gateway.files = {"a": bytes(range(200))}
    gateway.break_reads_after = 70
    with Client(os.environ["QILA_GATEWAY_ADDRESS"]) as client:
        assert b"".join(client.get(SANDBOX, "a", offset=10)) == bytes(range(10, 200))
    assert [request.offset for request in gateway.read_requests] == [10, 80]


def test_a_download_of_a_file_that_changed_meanwhile_is_refused(gateway: FakeGateway) -> None:
    gateway.files = {"a": bytes(200)}
    gateway.break_reads_after = 70
    with Client(os.environ["QILA_GATEWAY_ADDRESS"]) as client:
        chunks = client.get(SANDBOX, "a")
        assert next(chunks) == bytes(70)
        gateway.mtime_ns = 2
        with pytest.raises(QilaError) as caught:
            next(chunks)
    assert caught.value.reason == "FILE_CHANGED"


def test_a_download_that_is_not_what_was_sent_leaves_nothing(
    gateway: FakeGateway, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway.files, gateway.lie = {"a": b"x"}, True
    assert call(["get", f"{SANDBOX}:a", str(tmp_path)]) == 125
    assert list(tmp_path.iterdir()) == []
    assert "DIGEST_MISMATCH" in capfd.readouterr().err


def test_stat_mv_mkdir_and_a_deep_ls(gateway: FakeGateway, capfd: pytest.CaptureFixture[str]) -> None:
    gateway.files = {"a": b"123"}
    assert call(["mv", f"{SANDBOX}:a", "b/c"]) == 0
    assert gateway.files == {"b/c": b"123"}
    assert call(["mkdir", f"{SANDBOX}:d/e"]) == 0
    assert gateway.made == ["d/e"]
    assert call(["mkdir", SANDBOX]) == 125
    assert call(["stat", f"{SANDBOX}:b/c"]) == 0
    assert capfd.readouterr().out == "--            3 b/c  2001-09-09T01:46:40.000+00:00\n"
    assert call(["ls", "-R", "--pattern", "**/*.py", "--json", SANDBOX, "b"]) == 0
    (request,) = gateway.list_requests
    assert (request.path, request.depth, list(request.patterns)) == ("b", 64, ["**/*.py"])
    assert json.loads(capfd.readouterr().out)["name"] == "b/c"


def test_a_directory_goes_up_in_one_stream_that_goes_on_where_it_broke(gateway: FakeGateway, tmp_path: Path) -> None:
    contents = {f"d/{number}": os.urandom(50_000) for number in range(20)}
    (tmp_path / "d").mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    gateway.break_uploads_after = 400_000
    assert call(["put", SANDBOX, str(tmp_path)]) == 0
    assert gateway.files == contents
    first, second = gateway.tree_headers
    assert (first.offset, second.offset) == (0, len(gateway.held))
    assert first.transfer_id == second.transfer_id != ""


def test_a_file_that_changes_during_an_upload_is_told(gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    local = [LocalFile(source=tmp_path / "a", path=f"{n}", size=n, executable=False) for n in (2, 3)]
    with Client(os.environ["QILA_GATEWAY_ADDRESS"]) as client, pytest.raises(QilaError) as caught:
        client.put_tree(SANDBOX, local)
    assert (caught.value.reason, gateway.files) == ("FILE_CHANGED", {})


def packed(*members: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return file.getvalue()


def entry(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def test_a_directory_comes_down_whole(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.archive = packed(
        entry("d", type=tarfile.DIRTYPE, mode=0o755),
        entry("d/a", size=3, mode=0o755),
        entry("d/l", type=tarfile.SYMTYPE, linkname="../d/a"),
    )
    gateway.break_reads_after = 700
    assert call(["get", f"{SANDBOX}:tree", str(tmp_path)]) == 0
    assert (tmp_path / "tree/d/l").read_bytes() == b"xxx"
    assert (tmp_path / "tree/d/a").stat().st_mode & 0o100
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
    assert call(["get", f"{SANDBOX}:tree", str(tmp_path)]) == 125


@pytest.mark.parametrize(
    "members",
    [
        [entry("../out", size=1)],
        [entry("l", type=tarfile.SYMTYPE, linkname="/etc"), entry("l/out", size=1)],
        [entry("l", type=tarfile.SYMTYPE, linkname="..")],
        [entry("b", type=tarfile.SYMTYPE, linkname="."), entry("l", type=tarfile.SYMTYPE, linkname="b/..")],
        [entry("l", type=tarfile.SYMTYPE, linkname="d"), entry("h", type=tarfile.LNKTYPE, linkname="l")],
        [entry("d", type=tarfile.CHRTYPE)],
        [entry("f", type=tarfile.FIFOTYPE)],
        [entry("/out", size=1)],
        [entry("a", size=1), entry("a", size=1)],
        [entry("a", size=1), entry("a/b", size=1)],
        [entry("big", pax_headers={"comment": "x" * (2 << 20)})],
    ],
)
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    gateway: FakeGateway, tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    gateway.archive = packed(*members)
    (tmp_path / "here").mkdir()
    assert call(["get", f"{SANDBOX}:tree", str(tmp_path / "here")]) == 125
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["here"]


def test_sync_sends_what_differs_and_removes_only_when_told(
    gateway: FakeGateway, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("same", "other", "d/new", ".git/left out"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    gateway.files = {"to/same": b"same", "to/other": b"old", "to/beyond": b"", "elsewhere": b""}
    assert call(["sync", str(tmp_path), f"{SANDBOX}:to"]) == 0
    expected = {"to/same": b"same", "to/other": b"other", "to/d/new": b"d/new", "elsewhere": b""}
    assert gateway.files == expected | {"to/beyond": b""}
    shown = capfd.readouterr()
    assert shown.out == "+ d/new\n+ other\n"
    assert shown.err == "2 uploaded, 0 removed, 1 unchanged\n"
    assert call(["sync", "--delete", "--json", str(tmp_path), f"{SANDBOX}:to"]) == 0
    assert json.loads(capfd.readouterr().out) == {"uploaded": [], "removed": ["beyond"], "unchanged": 3}
    assert gateway.files == expected


def test_what_sync_leaves_out_it_does_not_remove(gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/a").write_text("a")
    (tmp_path / "kept/config").symlink_to("a")
    (tmp_path / "data").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "queue")
    left_out = {"kept/config": b"1", "data/deep/b": b"2", "queue": b"3"}
    gateway.files = {"kept/a": b"a", "kept/gone": b"", **left_out}
    assert call(["sync", "--delete", str(tmp_path), SANDBOX]) == 0
    assert gateway.files == {"kept/a": b"a", **left_out}


def test_an_attack_by_the_name_of_a_link_does_not_steer_the_terminal(
    gateway: FakeGateway, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "\x1b[2Jx\ny").symlink_to("a")
    os.mkfifo(tmp_path / "\x1b]0;f\x07")
    assert call(["sync", str(tmp_path), SANDBOX]) == 0
    assert gateway.files == {"a": b"a"}
    shown = capfd.readouterr().err
    assert len(shown.splitlines()) == 3
    assert not {"\x1b", "\x07"} & set(shown)


def test_sync_outlives_a_file_that_is_being_written(
    gateway: FakeGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("1")

    class Growing(Digests):
        writes = 0

        def of(self, path: Path) -> str:
            digest = super().of(path)
            if Growing.writes in {2, 3}:
                with path.open("a") as file:
                    file.write("2")
            Growing.writes += 1
            return digest

    monkeypatch.setattr("qila.cli.sync.Digests", Growing)

    def changes(_directory: Path) -> Iterator[None]:
        for _ in range(2):
            for name in ("a", "b"):
                with (tmp_path / name).open("a") as file:
                    file.write("3")
            yield

    monkeypatch.setattr("qila.cli.sync._changes", changes)
    assert call(["sync", "--watch", str(tmp_path), SANDBOX]) == 0
    assert gateway.files == {name: (tmp_path / name).read_bytes() for name in ("a", "b")}


def test_sync_goes_on_when_the_directory_changes(gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    address = os.environ["QILA_GATEWAY_ADDRESS"]
    command = [sys.executable, "-m", "qila.cli", "sync", "--watch", "--json", "--address", address]
    with subprocess.Popen([*command, str(tmp_path), SANDBOX], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["uploaded"] == ["a"]
        (tmp_path / "b").write_text("2")
        assert json.loads(process.stdout.readline())["uploaded"] == ["b"]
        (tmp_path / "a").write_text("3")
        assert json.loads(process.stdout.readline())["uploaded"] == ["a"]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert gateway.files == {"a": b"3", "b": b"2"}


def test_a_failed_download_leaves_nothing(gateway: FakeGateway, tmp_path: Path) -> None:
    assert gateway.files == {}
    assert call(["get", f"{SANDBOX}:gone", str(tmp_path / "here")]) == 125
    assert list(tmp_path.iterdir()) == []


def test_an_attack_by_an_error_of_two_lines_stays_one_line(
    gateway: FakeGateway, capfd: pytest.CaptureFixture[str]
) -> None:
    assert gateway.files == {}
    assert call(["get", f"{SANDBOX}:gone\nqila: all is well", "-"]) == 125
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_errors_carry_reason_and_metadata(gateway: FakeGateway) -> None:
    assert gateway.files == {}
    with Client(os.environ["QILA_GATEWAY_ADDRESS"]) as client, pytest.raises(NotFoundError) as caught:
        list(client.get(SANDBOX, "gone"))
    assert (caught.value.reason, caught.value.message, caught.value.metadata) == (
        "FILE_NOT_FOUND",
        "gone",
        {"path": "x"},
    )


CLOSED = pb.EgressPolicy(mode=pb.EGRESS_MODE_NONE)
INSTALL_ONLY = pb.EgressPolicy(mode=pb.EGRESS_MODE_REGISTRIES, install_only=True)
WIDE = pb.EgressPolicy(mode=pb.EGRESS_MODE_REGISTRIES, hosts=["a.example.org", "b.example.org"])
WIDE_OPTIONS = ["--egress", "registries", "--allow-host", "a.example.org", "--allow-host", "b.example.org"]


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ([], pb.EgressPolicy()), (["--egress", "none"], CLOSED), (["--egress", "install"], INSTALL_ONLY),
        (WIDE_OPTIONS, WIDE),
    ],
)  # fmt: skip
def test_a_sandbox_is_made_with_the_policy_that_is_named(
    gateway: FakeGateway, tmp_path: Path, options: list[str], policy: pb.EgressPolicy
) -> None:
    (tmp_path / "main.py").write_text("pass")
    assert call(["create", *options]) == 0
    assert call(["run", *options, str(tmp_path)]) == 0
    assert [request.egress for request in gateway.create_requests] == [policy, policy]


@pytest.mark.parametrize(
    ("options", "policy", "text"),
    [
        (["--egress", "none"], CLOSED, "egress none\n"),
        (["--egress", "install"], INSTALL_ONLY, "egress install\n"),
        (WIDE_OPTIONS, WIDE, "egress registries\nallow-host a.example.org\nallow-host b.example.org\n"),
    ],
)
def test_a_policy_is_set_as_a_whole_and_printed(
    gateway: FakeGateway, capfd: pytest.CaptureFixture[str], options: list[str], policy: pb.EgressPolicy, text: str
) -> None:
    assert call(["policy", *options, SANDBOX]) == 0
    assert gateway.policy == policy
    assert call(["policy", SANDBOX]) == 0
    assert capfd.readouterr().out == text * 2


def test_a_host_alone_does_not_open_a_policy(gateway: FakeGateway) -> None:
    assert call(["policy", "--allow-host", "a.example.org", SANDBOX]) == 125
    assert gateway.policy.hosts == []


def refusal(sequence: int, **fields: object) -> pb.EgressRecord:
    row: dict[str, object] = {
        "exec_id": "ex_a", "phase": pb.EGRESS_PHASE_INSTALL, "verdict": pb.EGRESS_VERDICT_REFUSED, "method": "GET",
        "path": "/pypi/simple/demo/", "status": 403, "rule": "policy: demo: denied by 'demo'",
    }  # fmt: skip
    return pb.EgressRecord(sequence=sequence, **{**row, **fields})  # type: ignore[arg-type]  # fields of the message


def test_egress_is_one_line_for_each_decision(gateway: FakeGateway, capfd: pytest.CaptureFixture[str]) -> None:
    gateway.records = [refusal(1), refusal(2, exec_id="", method="", path="", status=0, rule="preamble")]
    assert call(["egress", "--exec", "ex_a", "--refused", "--follow", SANDBOX]) == 0
    first, second = capfd.readouterr().out.splitlines()
    assert first.split()[1:5] == ["REFUSED", "INSTALL", "ex_a", "403"]
    assert first.endswith("GET /pypi/simple/demo/ (policy: demo: denied by 'demo')")
    assert second.split()[1:] == ["REFUSED", "INSTALL", "-", "0", "0", "(no", "request)", "(preamble)"]
    (request,) = gateway.egress_requests
    assert (request.exec_id, request.verdict, request.follow) == ("ex_a", pb.EGRESS_VERDICT_REFUSED, True)
    assert call(["egress", "--json", SANDBOX]) == 0
    assert [json.loads(line)["sequence"] for line in capfd.readouterr().out.splitlines()] == ["1", "2"]


def test_egress_lines_cannot_be_forged_nor_steer_the_terminal(
    gateway: FakeGateway, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway.records = [refusal(1, path="/\n2026-01-01 allowed\r\x1b[2J\x9b1A\u202e\u2028", rule="x\ny", host="h\n")]
    for options in ([], ["--json"]):
        assert call(["egress", *options, SANDBOX]) == 0
        out = capfd.readouterr().out
        assert out.count("\n") == 1
        assert out[:-1].isprintable()


def test_names_of_files_cannot_look_like_lines_of_their_own(
    gateway: FakeGateway, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway.files = {"a\nd-            0 b\tc\x1b[2J": b""}
    assert call(["ls", SANDBOX]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert line.endswith(" a\\nd-            0 b\\tc\ufffd[2J")


def test_a_lost_tail_goes_on_behind_the_last_record(gateway: FakeGateway, capfd: pytest.CaptureFixture[str]) -> None:
    gateway.records = [refusal(number) for number in range(1, 5)]
    gateway.break_after = 3
    assert call(["egress", "--follow", "--json", SANDBOX]) == 0
    shown = [json.loads(line)["sequence"] for line in capfd.readouterr().out.splitlines()]
    assert shown == ["1", "2", "3", "4"]
    assert [request.after_sequence for request in gateway.egress_requests] == [0, 3]


def test_another_process_is_never_taken_for_a_service(tmp_path: Path) -> None:
    stack = Stack(run_directory=tmp_path, state_directory=tmp_path, address="127.0.0.1:1", http="", variables=NO_FIELDS)
    command = [sys.executable, "-c", "print(flush=True); input()", "services.gateway"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        # Its command line can be read only once it runs.
        assert child.stdout is not None
        child.stdout.readline()
        begun = start_time_of(child.pid)
        pid_file = stack.pid_file_of("gateway")
        pid_file.write_text(f'{{"pid": {child.pid}, "start_time": {begun}}}')
        assert running(stack, "gateway") is not None
        pid_file.rename(stack.pid_file_of("executor"))
        assert running(stack, "executor") is None
        pid_file.write_text(f'{{"pid": {child.pid}, "start_time": {(begun or 0) - 1}}}')
        assert running(stack, "gateway") is None
        child.communicate(b"\n")


def test_last_line_of_a_log_is_read_from_json(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text('first\n{"event": "cannot start", "error": "port 1 is in use"}\n\n')
    assert last_words(log) == "cannot start: port 1 is in use"


def test_images_are_listed(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["images"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["default", "python", "3.13.5,", "go", "1.27.3"]
    assert "\x1b" not in second
    assert call(["images", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["toolchains"]["uv"] == "1"


def test_an_image_is_asked_for_by_name(gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    assert call(["create", "--image", "go1.26"]) == 0
    assert call(["run", "--image", "go1.26", str(tmp_path / "main.py")]) == 0
    assert call(["create"]) == 0
    assert [request.image for request in gateway.create_requests] == ["go1.26", "go1.26", ""]
