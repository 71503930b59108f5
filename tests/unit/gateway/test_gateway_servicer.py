from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.config import read_config
from services.gateway.executor_fake import FakeExecutor, FakeProcess
from services.gateway.resolver_fake import FakeResolver
from services.rpc.config import ConfigError, Environment
from services.rpc.errors import ErrorCode, QilaError

from .gateway_world import LOST, refused


async def upload(sandbox_id: str, path: str, *chunks: bytes) -> AsyncIterator[pb.WriteFileRequest]:
    yield pb.WriteFileRequest(header=pb.WriteFileHeader(sandbox_id=sandbox_id, path=path))
    for chunk in chunks:
        yield pb.WriteFileRequest(chunk=chunk)
    yield pb.WriteFileRequest(end=pb.WriteFileEnd())


async def test_files_go_in_and_out(stub: Any, sandbox_id: str) -> None:
    written = await stub.WriteFile(upload(sandbox_id, "a/b.txt", b"one ", b"two"))
    assert (written.size, written.sha256) == (7, hashlib.sha256(b"one two").hexdigest())
    read = [part.chunk async for part in stub.ReadFile(pb.ReadFileRequest(sandbox_id=sandbox_id, path="a/b.txt"))]
    assert b"".join(read) == b"one two"
    listed = await stub.ListFiles(pb.ListFilesRequest(sandbox_id=sandbox_id, path="a"))
    assert [file.name for file in listed.files] == ["b.txt"]
    await stub.RemoveFile(pb.RemoveFileRequest(sandbox_id=sandbox_id, path="a/b.txt"))
    gone = await refused(anext(aiter(stub.ReadFile(pb.ReadFileRequest(sandbox_id=sandbox_id, path="a/b.txt")))))
    assert gone.reason == "FILE_NOT_FOUND"


async def test_a_part_of_a_file_comes_with_header_and_digest(stub: Any, sandbox_id: str) -> None:
    await stub.WriteFile(upload(sandbox_id, "a", b"0123456789"))
    request = pb.ReadFileRequest(sandbox_id=sandbox_id, path="a", offset=3, length=4)
    header, chunk, end = [part async for part in stub.ReadFile(request)]
    assert (header.header.size, chunk.chunk, end.end.size) == (10, b"3456", 4)
    assert end.end.sha256 == hashlib.sha256(b"3456").hexdigest()
    request.offset = 11
    assert (await refused(anext(aiter(stub.ReadFile(request))))).code is ErrorCode.OUT_OF_RANGE


async def tree(header: pb.WriteTreeHeader, *chunks: bytes, sha256: str = "") -> AsyncIterator[pb.WriteTreeRequest]:
    yield pb.WriteTreeRequest(header=header)
    for chunk in chunks:
        yield pb.WriteTreeRequest(chunk=chunk)
    yield pb.WriteTreeRequest(end=pb.WriteTreeEnd(sha256=sha256))


def archive(**files: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return file.getvalue()


async def test_trees_go_in_and_out_and_go_on(stub: Any, sandbox_id: str) -> None:
    data = archive(a=b"1", b=b"22")
    header = pb.WriteTreeHeader(sandbox_id=sandbox_id, path="t", transfer_id="x-1")
    bad = await refused(stub.WriteTree(tree(header, data[:700], b"x" * 65537)))
    assert bad.reason == "CHUNK_TOO_LARGE"
    asked = pb.GetTransferRequest(sandbox_id=sandbox_id, transfer_id="x-1")
    header.offset = (await stub.GetTransfer(asked)).size
    assert header.offset == 700
    digest = hashlib.sha256(data).hexdigest()
    written = await stub.WriteTree(tree(header, data[700:], sha256=digest))
    assert (written.size, written.sha256, written.file_count) == (len(data), digest, 2)
    parts = [part async for part in stub.ReadTree(pb.ReadTreeRequest(sandbox_id=sandbox_id, path="t"))]
    whole = b"".join(part.chunk for part in parts)
    etag = parts[0].header.etag
    again = pb.ReadTreeRequest(sandbox_id=sandbox_id, path="t", etag=etag, offset=100)
    assert b"".join([part.chunk async for part in stub.ReadTree(again)]) == whole[100:]
    again.etag = "other"
    assert (await refused(anext(aiter(stub.ReadTree(again))))).reason == "FILE_TREE_CHANGED"


async def comparison(
    header: pb.CompareTreeHeader, *batches: list[pb.TreeFile], ends: bool = True
) -> AsyncIterator[pb.CompareTreeRequest]:
    yield pb.CompareTreeRequest(header=header)
    for batch in batches:
        yield pb.CompareTreeRequest(files=pb.CompareTreeFiles(files=batch))
    if ends:
        yield pb.CompareTreeRequest(end=pb.CompareTreeEnd())


async def test_trees_are_compared_by_content(stub: Any, sandbox_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("t/same", "t/other", "t/beyond", "t/.git/x"):
        await stub.WriteFile(upload(sandbox_id, path, b"1"))
    digest = hashlib.sha256(b"1").hexdigest()
    header = pb.CompareTreeHeader(sandbox_id=sandbox_id, path="t", ignored_names=[".git"])
    same, other = pb.TreeFile(path="same", size=1, sha256=digest), pb.TreeFile(path="other", sha256="0" * 64)
    (found,) = [found async for found in stub.CompareTree(comparison(header, [same], [other]))]
    assert (list(found.different), list(found.beyond)) == (["other"], ["beyond"])

    async def refusal(*batches: list[pb.TreeFile], ends: bool = True) -> QilaError:
        return await refused(anext(aiter(stub.CompareTree(comparison(header, *batches, ends=ends)))))

    assert (await refusal([same], ends=False)).reason == "END_MISSING"
    assert (await refusal([same] * 501)).reason == "FILES_TOO_MANY"
    assert (await refusal([pb.TreeFile(path="../x", sha256=digest)])).metadata["field"] == "files.path"
    assert (await refusal([pb.TreeFile(path="x", sha256="1")])).metadata["field"] == "files.sha256"
    monkeypatch.setattr(checks, "MAX_FILES", 1)
    assert (await refusal([same, other])).code is ErrorCode.RESOURCE_EXHAUSTED
    header.ignored_names.append("")
    assert (await refusal([same])).metadata["field"] == "ignored_names"


BAD_TREES = {
    "transfer_id": pb.WriteTreeHeader(transfer_id="a/b"),
    "offset": pb.WriteTreeHeader(offset=1),
    "path": pb.WriteTreeHeader(path="../x"),
}


@pytest.mark.parametrize("field", BAD_TREES)
async def test_bad_headers_of_trees_name_their_field(stub: Any, sandbox_id: str, field: str) -> None:
    header = pb.WriteTreeHeader()
    header.CopyFrom(BAD_TREES[field])
    header.sandbox_id = sandbox_id
    assert (await refused(stub.WriteTree(tree(header)))).metadata["field"] == field


async def test_bad_digests_and_etags_name_their_field(stub: Any, sandbox_id: str) -> None:
    header = pb.WriteTreeHeader(sandbox_id=sandbox_id)
    assert (await refused(stub.WriteTree(tree(header, archive(a=b""), sha256="A" * 64)))).metadata["field"] == "sha256"
    mismatch = await refused(stub.WriteTree(tree(header, archive(a=b""), sha256="0" * 64)))
    assert mismatch.reason == "FILE_DIGEST_MISMATCH"
    request = pb.ReadTreeRequest(sandbox_id=sandbox_id, offset=1)
    assert (await refused(anext(aiter(stub.ReadTree(request))))).metadata["field"] == "etag"
    no_id = pb.GetTransferRequest(sandbox_id=sandbox_id)
    assert (await refused(stub.GetTransfer(no_id))).metadata["field"] == "transfer_id"


async def test_files_are_listed_deep_looked_at_and_moved(stub: Any, sandbox_id: str) -> None:
    for path in ("a/b.py", "a/c/d.py", "a/c/e.txt"):
        await stub.WriteFile(upload(sandbox_id, path, b"1"))
    request = pb.ListFilesRequest(sandbox_id=sandbox_id, path="a", depth=64, patterns=["**/*.py"])
    assert [file.name for file in (await stub.ListFiles(request)).files] == ["b.py", "c/d.py"]
    request.depth = 65
    assert (await refused(stub.ListFiles(request))).metadata["field"] == "depth"
    await stub.MoveFile(pb.MoveFileRequest(sandbox_id=sandbox_id, source="a/c", target="x"))
    found = await stub.StatFile(pb.StatFileRequest(sandbox_id=sandbox_id, path="x/d.py"))
    assert (found.file.name, found.file.size) == ("x/d.py", 1)
    onto = pb.MoveFileRequest(sandbox_id=sandbox_id, source="a/b.py", target="x/d.py")
    assert (await refused(stub.MoveFile(onto))).reason == "FILE_EXISTS"
    onto.replace = True
    await stub.MoveFile(onto)
    await stub.MakeDirectory(pb.MakeDirectoryRequest(sandbox_id=sandbox_id, path="new"))
    found = await stub.StatFile(pb.StatFileRequest(sandbox_id=sandbox_id, path="new"))
    assert found.file.kind == pb.FILE_KIND_DIRECTORY
    gone = await refused(stub.StatFile(pb.StatFileRequest(sandbox_id=sandbox_id, path="a/b.py")))
    assert gone.reason == "FILE_NOT_FOUND"


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", "x" * 256, "a/" * 2500 + "b", "a\0b"]
)
async def test_bad_file_names_are_refused_by_rule(
    stub: Any, sandbox_id: str, executor_fake: FakeExecutor, path: str
) -> None:
    error = await refused(stub.WriteFile(upload(sandbox_id, path, b"x")))
    assert (error.reason, error.metadata["field"]) == ("FIELD_INVALID", "path")
    assert "must" in error.message
    assert executor_fake.sandboxes[sandbox_id].files == {}


async def test_upload_above_the_limit_leaves_nothing(
    stub: Any, sandbox_id: str, executor_fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "MAX_UPLOAD_BYTES", 5)
    assert (await refused(stub.WriteFile(upload(sandbox_id, "a", b"123", b"456")))).reason == "FILE_TOO_LARGE"
    assert executor_fake.sandboxes[sandbox_id].files == {}


async def test_unknown_sandbox_says_what_to_do(stub: Any) -> None:
    for call in (
        stub.GetSandbox(pb.GetSandboxRequest(sandbox_id=LOST)),
        stub.ListFiles(pb.ListFilesRequest(sandbox_id="nonsense")),
        stub.WriteFile(upload(LOST, "a", b"x")),
        stub.GetLock(pb.GetLockRequest(sandbox_id=LOST)),
        anext(aiter(stub.Exec(pb.ExecRequest(sandbox_id=LOST, command=pb.Command(argv=["true"]))))),
    ):
        error = await refused(call)
        assert error.reason == "SANDBOX_NOT_FOUND"
        assert "CreateSandbox" in error.message


async def test_exec_streams_and_is_on_record(stub: Any, sandbox_id: str, executor_fake: FakeExecutor) -> None:
    async def speak(process: FakeProcess) -> int:
        process.write(b"hello")
        return 7

    executor_fake.programs["speak"] = speak
    request = pb.ExecRequest(sandbox_id=sandbox_id, command=pb.Command(argv=["speak"]))
    events = [response.event async for response in stub.Exec(request)]
    assert [event.WhichOneof("event") for event in events] == ["created", "phase_started", "output", "ended"]
    exec_id = events[0].created.exec_id
    found = await stub.GetExec(pb.GetExecRequest(sandbox_id=sandbox_id, exec_id=exec_id))
    assert (found.exec.ended.exited, found.exec.phase) == (7, pb.PHASE_RUN)
    attach = pb.AttachExecRequest(sandbox_id=sandbox_id, exec_id=exec_id)
    assert [response.event async for response in stub.AttachExec(attach)] == events
    no_lock = await refused(stub.GetLock(pb.GetLockRequest(sandbox_id=sandbox_id, exec_id=exec_id)))
    assert no_lock.reason == "NO_LOCK"


async def test_lost_client_does_not_end_the_exec(stub: Any, sandbox_id: str, executor_fake: FakeExecutor) -> None:
    release = asyncio.Event()

    async def wait(process: FakeProcess) -> int:
        process.write(b"waiting")
        await release.wait()
        return 0

    executor_fake.programs["wait"] = wait
    call = stub.Exec(pb.ExecRequest(sandbox_id=sandbox_id, command=pb.Command(argv=["wait"])))
    exec_id = (await anext(aiter(call))).event.created.exec_id
    call.cancel()
    release.set()
    attach = stub.AttachExec(pb.AttachExecRequest(sandbox_id=sandbox_id, exec_id=exec_id))
    assert [response.event async for response in attach][-1].ended.WhichOneof("end") == "exited"


async def test_removed_sandbox_is_gone_and_removing_repeats(stub: Any, sandbox_id: str) -> None:
    for _ in range(2):
        await stub.RemoveSandbox(pb.RemoveSandboxRequest(sandbox_id=sandbox_id))
    assert list((await stub.ListSandboxes(pb.ListSandboxesRequest())).sandboxes) == []


async def test_images_are_listed_chosen_and_on_record(stub: Any, executor_fake: FakeExecutor) -> None:
    executor_fake.images["go1.26"] = {"go": "1.26.6"}
    listed = (await stub.ListImages(pb.ListImagesRequest())).images
    assert [(image.name, image.is_default) for image in listed] == [("default", True), ("go1.26", False)]
    assert dict(listed[1].toolchains) == {"go": "1.26.6"}
    for asked, name in (("", "default"), ("go1.26", "go1.26")):
        made = (await stub.CreateSandbox(pb.CreateSandboxRequest(image=asked))).sandbox
        assert made.image == name
        assert (await stub.GetSandbox(pb.GetSandboxRequest(sandbox_id=made.id))).sandbox.image == name
    shown = {sandbox.image for sandbox in (await stub.ListSandboxes(pb.ListSandboxesRequest())).sandboxes}
    assert shown == {"default", "go1.26"}
    error = await refused(stub.CreateSandbox(pb.CreateSandboxRequest(image="debian:latest")))
    assert (error.reason, error.message.endswith("default, go1.26")) == ("IMAGE_UNKNOWN", True)


async def test_egress_policy_is_the_executor_s(stub: Any, sandbox_id: str, executor_fake: FakeExecutor) -> None:
    closed = pb.EgressPolicy(mode=pb.EGRESS_MODE_NONE)
    made = await stub.CreateSandbox(pb.CreateSandboxRequest(egress=closed))
    assert made.sandbox.egress == closed
    found = await stub.GetSandbox(pb.GetSandboxRequest(sandbox_id=sandbox_id))
    assert found.sandbox.egress == pb.EgressPolicy(mode=pb.EGRESS_MODE_REGISTRIES)
    for _ in range(2):
        answer = await stub.SetEgressPolicy(pb.SetEgressPolicyRequest(sandbox_id=sandbox_id, policy=closed))
        assert answer.policy == closed
    found = await stub.GetSandbox(pb.GetSandboxRequest(sandbox_id=sandbox_id))
    assert found.sandbox.egress == closed
    executor_fake.down = True
    listed = await stub.ListSandboxes(pb.ListSandboxesRequest())
    assert {sandbox.HasField("egress") for sandbox in listed.sandboxes} == {False}


async def test_bad_policies_say_what_to_do(stub: Any, sandbox_id: str) -> None:
    wide = pb.EgressPolicy(mode=pb.EGRESS_MODE_REGISTRIES, hosts=["evil.example.org"])
    error = await refused(stub.SetEgressPolicy(pb.SetEgressPolicyRequest(sandbox_id=sandbox_id, policy=wide)))
    assert (error.reason, "evil.example.org" in error.message) == ("HOST_NOT_ALLOWED", True)
    error = await refused(stub.SetEgressPolicy(pb.SetEgressPolicyRequest(sandbox_id=sandbox_id)))
    assert error.reason == "INVALID_FIELD"
    error = await refused(stub.SetEgressPolicy(pb.SetEgressPolicyRequest(sandbox_id=LOST, policy=wide)))
    assert error.reason == "SANDBOX_NOT_FOUND"


async def test_egress_records_are_passed_on(stub: Any, sandbox_id: str, executor_fake: FakeExecutor) -> None:
    sandbox = executor_fake.sandboxes[sandbox_id]
    exec_id = "ex_" + "a" * 26
    sandbox.decide(path="/1", verdict=executor.EGRESS_VERDICT_ALLOWED, uid=1000, bytes=5)
    sandbox.decide(
        path="/2",
        verdict=executor.EGRESS_VERDICT_REFUSED,
        exec_id=exec_id,
        phase=executor.EGRESS_PHASE_INSTALL,
        denial=executor.EGRESS_DENIAL_RELEASES,
        package="demo",
    )
    request = pb.ListEgressRequest(sandbox_id=sandbox_id)
    found = [record async for response in stub.ListEgress(request) for record in response.records]
    for record in found:
        record.ClearField("time")
    assert found == [
        pb.EgressRecord(sequence=1, path="/1", verdict=pb.EGRESS_VERDICT_ALLOWED, uid=1000, bytes=5),
        pb.EgressRecord(
            sequence=2,
            path="/2",
            verdict=pb.EGRESS_VERDICT_REFUSED,
            exec_id=exec_id,
            phase=pb.EGRESS_PHASE_INSTALL,
            denial=pb.EGRESS_DENIAL_RELEASES,
            package="demo",
        ),
    ]
    request = pb.ListEgressRequest(sandbox_id=sandbox_id, follow=True, verdict=pb.EGRESS_VERDICT_REFUSED)
    tail = aiter(stub.ListEgress(request))
    assert (await anext(tail)).records[0].sequence == 2
    sandbox.decide(path="/3", verdict=executor.EGRESS_VERDICT_REFUSED)
    assert (await anext(tail)).records[0].sequence == 3
    await stub.RemoveSandbox(pb.RemoveSandboxRequest(sandbox_id=sandbox_id))
    assert [response async for response in tail] == []
    bad = await refused(anext(aiter(stub.ListEgress(pb.ListEgressRequest(sandbox_id=sandbox_id, exec_id="mine")))))
    assert bad.metadata["field"] == "exec_id"


BAD_EXECS: dict[str, dict[str, Any]] = {
    "what": {},
    "exec_id": {"exec_id": "mine", "command": pb.Command(argv=["true"])},
    "command.argv": {"command": pb.Command()},
    "command.working_directory": {"command": pb.Command(argv=["true"], working_directory="../..")},
    "program.file": {"program": pb.Program(file="/etc/passwd")},
    "program.args": {"program": pb.Program(args=["a\0b"])},
    "env": {"command": pb.Command(argv=["true"]), "env": {"A=B": "c"}},
    "output_limit_bytes": {"command": pb.Command(argv=["true"]), "output_limit_bytes": 2 << 30},
}


@pytest.mark.parametrize("field", BAD_EXECS)
def test_bad_exec_names_its_field(field: str) -> None:
    request = pb.ExecRequest(sandbox_id=LOST, **BAD_EXECS[field])
    with pytest.raises(QilaError) as caught:
        checks.check_exec_request(request)
    assert caught.value.metadata["field"] == field


@pytest.mark.parametrize("seconds", [-1, 86401])
def test_timeout_out_of_bounds_is_refused(seconds: int) -> None:
    request = pb.ExecRequest(sandbox_id=LOST, command=pb.Command(argv=["true"]))
    request.run_timeout.seconds = seconds
    with pytest.raises(QilaError, match="run_timeout: must be 0"):
        checks.check_exec_request(request)


def test_config_reads_places_and_refuses_bad_values() -> None:
    config = read_config(Environment({"QILA_STATE_DIR": "/s", "QILA_RUN_DIR": "/r"}))
    assert (config.address, config.executor_address) == ("127.0.0.1:7450", "unix:/r/executor.sock")
    assert config.database == Path("/s/gateway/gateway.db")
    with pytest.raises(ConfigError, match="QILA_RUN_TIMEOUT"):
        read_config(Environment({"QILA_RUN_TIMEOUT": "soon"}))


async def test_given_lock_is_read_before_the_sandbox_is_made_and_goes_into_its_plans(
    stub: Any, executor_fake: FakeExecutor, resolver_fake: FakeResolver
) -> None:
    broken = pb.CreateSandboxRequest(lock=pb.Lockfile(name="pylock.toml", content=b"broken"))
    assert (await refused(stub.CreateSandbox(broken))).reason == "LOCK_INVALID"
    assert executor_fake.sandboxes == {}
    content = b"x" * (8 << 20)
    made = await stub.CreateSandbox(pb.CreateSandboxRequest(lock=pb.Lockfile(name="pylock.toml", content=content)))
    await stub.WriteFile(upload(made.sandbox.id, "main.py", b""))
    request = pb.ExecRequest(sandbox_id=made.sandbox.id, program=pb.Program(file="main.py"))
    assert [event async for event in stub.Exec(request)]
    given = resolver_fake.headers[-1].given_lock
    assert (given.name, given.content) == ("pylock.toml", content)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"program": {"file": "a.py", "module": "a"}}, "program"),
        ({"program": {"module": "a;b"}}, "program.module"),
        ({"program": {"script": "x\0"}}, "program.script"),
        ({"program": {"command": [""]}}, "program.command"),
        ({"program": {}, "extras": ["a b"]}, "extras"),
        ({"program": {}, "groups": ["a"] * 65}, "groups"),
        ({"command": {"argv": ["true"]}, "install_missing": True}, "install_missing"),
    ],
)
async def test_bad_options_are_refused_by_rule(stub: Any, sandbox_id: str, fields: dict[str, Any], field: str) -> None:
    error = await refused(anext(aiter(stub.Exec(pb.ExecRequest(sandbox_id=sandbox_id, **fields)))))
    assert (error.reason, error.metadata["field"]) == ("FIELD_INVALID", field)
