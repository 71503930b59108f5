from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from qila.executor.v1 import executor_pb2 as executor
from services.gateway.executor_fake import FakeProcess
from services.rpc.errors import unavailable

from .gateway_world import World
from .http_world import client_of

LOST = "sb_" + "z" * 26
EXEC = "ex_" + "a" * 26
FORM_TYPE = "application/x-www-form-urlencoded"


@pytest.fixture(name="client")
async def make_client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as client:
        yield client


def reason(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert set(error) == {"code", "reason", "message", "metadata"}
    return response.status_code, error["reason"]


async def test_the_four_calls_of_a_first_user(world: World, client: httpx.AsyncClient) -> None:
    # As curl -d sends it.
    headers = {"content-type": FORM_TYPE}
    made = await client.post("/v1/sandboxes", content='{"language": "python"}', headers=headers)
    assert made.status_code == 201
    sandbox_id = made.json()["id"]
    assert made.json()["language"] == "python"
    files = [("file", ("main.py", b"import yaml")), ("file", ("requirements.txt", b"pyyaml"))]
    uploaded = await client.post(f"/v1/sandboxes/{sandbox_id}/files", files=files)
    assert [item["path"] for item in uploaded.json()["files"]] == ["main.py", "requirements.txt"]
    assert uploaded.json()["files"][0]["sha256"] == hashlib.sha256(b"import yaml").hexdigest()
    call = {"content": '{"filename": "main.py"}', "headers": headers}
    first = (await client.post(f"/v1/sandboxes/{sandbox_id}/exec", **call)).json()  # type: ignore[arg-type]
    assert first["output"].startswith("Installing yaml==6.0\nfirst second")
    assert (first["stdout"], first["stderr"], first["exit_code"]) == ("first second", "bad", 3)
    assert first["end"] == {"exited": 3}
    assert first["packages"] == [{"name": "yaml", "version": "6.0"}]
    assert first["plan"]["installed"] is False
    second = (await client.post(f"/v1/sandboxes/{sandbox_id}/exec", **call)).json()  # type: ignore[arg-type]
    assert sorted(second["output"]) == sorted("first secondbad")
    assert second["plan"]["installed"] is True
    assert second["id"] != first["id"]


async def test_exec_takes_what_the_other_door_takes(world: World, client: httpx.AsyncClient) -> None:
    body = {
        "command": ["nothing", "a b"],
        "env": {"A": "1"},
        "run_timeout": 1.5,
        "exec_id": EXEC,
        "working_directory": "d",
    }
    told = (await client.post(f"/v1/sandboxes/{world.sandbox_id}/exec", json=body)).json()
    assert told["id"] == EXEC
    assert told["end"]["start_failed"]["error"] == "ENOENT"
    assert told["exit_code"] is None
    spec = world.sandbox.processes[EXEC].spec
    assert (list(spec.argv), dict(spec.env), spec.working_directory) == (["nothing", "a b"], {"A": "1"}, "d")
    assert spec.timeout.ToMilliseconds() == 1500
    body = {"filename": "main.py", "args": ["x"], "launch": ["program", "-v"], "install_missing": True}
    told = (await client.post(f"/v1/sandboxes/{world.sandbox_id}/exec", json=body)).json()
    assert told["plan"]["launch_argv"] == ["program", "-v", "x"]
    assert world.resolver.headers[-1].options.install_missing


async def test_a_repeat_with_the_same_id_joins(world: World, client: httpx.AsyncClient) -> None:
    body = {"filename": "main.py", "exec_id": EXEC}
    url = f"/v1/sandboxes/{world.sandbox_id}/exec"
    first, second = await asyncio.gather(client.post(url, json=body), client.post(url, json=body))
    assert first.json() == second.json()
    assert (await client.get(f"/v1/sandboxes/{world.sandbox_id}/execs/{EXEC}/result")).json() == first.json()
    assert world.executor.started.count(EXEC) == 1
    assert reason(await client.post(url, json={"filename": "other.py", "exec_id": EXEC})) == (409, "EXEC_EXISTS")


async def test_an_exec_that_is_not_waited_for_goes_on(world: World, client: httpx.AsyncClient) -> None:
    world.close_gate("run")
    url = f"/v1/sandboxes/{world.sandbox_id}"
    begun = await client.post(f"{url}/exec", json={"filename": "main.py", "wait": False})
    assert begun.status_code == 202
    await world.at("run")
    exec_id = begun.json()["id"]
    assert (await client.get(f"{url}/execs/{exec_id}")).json()["phase"] == "run"
    assert (await client.post(f"{url}/execs/{exec_id}/cancel")).status_code == 200
    assert (await client.get(f"{url}/execs/{exec_id}/result")).json()["end"] == {"cancelled": {}}
    assert (await client.post(f"{url}/execs/{exec_id}/cancel")).json()["ended"]["cancelled"] == {}


async def test_output_is_text_and_exact_bytes_where_it_is_none(world: World, client: httpx.AsyncClient) -> None:
    async def binary(process: FakeProcess) -> int:
        process.write(b"\xff\x00ok")
        process.write("ü".encode(), executor.STREAM_STDERR)
        return 0

    world.executor.programs["binary"] = binary
    told = (await client.post(f"/v1/sandboxes/{world.sandbox_id}/exec", json={"command": ["binary"]})).json()
    assert told["stdout"] == "\ufffd\0ok"
    assert base64.b64decode(told["stdout_base64"]) == b"\xff\x00ok"
    assert told["stderr"] == "ü"
    assert "stderr_base64" not in told


async def test_output_that_is_too_long_for_an_answer_loses_its_middle(world: World, client: httpx.AsyncClient) -> None:
    async def long(process: FakeProcess) -> int:
        process.write(b"begin")
        for _ in range(40):
            process.write(b"x" * 65_000)
        process.write(b"end")
        return 0

    world.executor.programs["long"] = long
    told = (await client.post(f"/v1/sandboxes/{world.sandbox_id}/exec", json={"command": ["long"]})).json()
    assert told["output"].startswith("beginx")
    assert told["output"].endswith("xend")
    assert len(told["output"]) == 1 << 20
    assert told["output_bytes_left_out"] == 40 * 65_000 + 8 - (1 << 20)


async def test_what_keeps_a_program_from_starting_is_a_status(world: World, client: httpx.AsyncClient) -> None:
    url = f"/v1/sandboxes/{world.sandbox_id}/exec"
    assert reason(await client.post(url, json={"filename": "gone.py"})) == (409, "TARGET_NOT_FOUND")
    assert reason(await client.post(f"/v1/sandboxes/{LOST}/exec", json={})) == (404, "SANDBOX_NOT_FOUND")
    world.executor.break_off()
    assert reason(await client.post(url, json={"filename": "main.py"})) == (503, "EXECUTOR_UNAVAILABLE")


async def test_an_install_that_fails_is_an_answer(world: World, client: httpx.AsyncClient) -> None:
    world.sandbox.files["requirements.txt"] = b"broken"
    told = (await client.post(f"/v1/sandboxes/{world.sandbox_id}/exec", json={"filename": "main.py"})).json()
    assert told["exit_code"] is None
    assert told["end"]["install_failed"]["reason"] == "not_found"
    assert "no such package" in told["end"]["install_failed"]["detail"]


async def test_sandboxes_are_made_listed_told_and_removed(world: World, client: httpx.AsyncClient) -> None:
    world.executor.connect_hosts.add("a.test")
    body = {"limits": {"memory_bytes": 1 << 30}, "egress": {"mode": "registries", "hosts": ["a.test"]}}
    made = (await client.post("/v1/sandboxes", json=body)).json()
    assert made["limits"]["memory_bytes"] == 1 << 30
    url = f"/v1/sandboxes/{made['id']}"
    assert (await client.get(url)).json() == made
    assert made["id"] in [item["id"] for item in (await client.get("/v1/sandboxes")).json()["sandboxes"]]
    assert (await client.put(f"{url}/egress", json={"mode": "none"})).json()["mode"] == "none"
    assert (await client.get(f"{url}/egress")).json() == {"mode": "none", "hosts": [], "install_only": False}
    for _ in range(2):
        assert (await client.delete(url)).status_code == 204
    assert reason(await client.get(url)) == (404, "SANDBOX_NOT_FOUND")
    lock = {"name": "qila.lock.json", "content": "broken"}
    assert reason(await client.post("/v1/sandboxes", json={"lock": lock})) == (400, "LOCK_INVALID")


async def test_files_are_written_read_listed_and_removed(world: World, client: httpx.AsyncClient) -> None:
    url = f"/v1/sandboxes/{world.sandbox_id}/files"
    content = bytes(range(256)) * 1024
    put = await client.put(f"{url}/dir/ü b.bin", content=content)
    assert put.json() == {"path": "dir/ü b.bin", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    read = await client.get(f"{url}/dir/ü b.bin")
    assert read.content == content
    assert read.headers["content-type"] == "application/octet-stream"
    assert read.headers["content-disposition"] == "attachment"
    assert read.headers["x-content-type-options"] == "nosniff"
    assert [item["name"] for item in (await client.get(url, params={"path": "dir"})).json()["files"]] == ["ü b.bin"]
    assert (await client.put(f"{url}/empty", content=b"")).json()["size"] == 0
    assert (await client.get(f"{url}/empty")).content == b""
    assert (await client.delete(f"{url}/dir")).status_code == 204
    assert reason(await client.get(f"{url}/dir/ü b.bin")) == (404, "FILE_NOT_FOUND")


async def test_a_form_may_say_where_its_files_go(world: World, client: httpx.AsyncClient) -> None:
    url = f"/v1/sandboxes/{world.sandbox_id}/files"
    fields = [
        ("path", (None, b"src/")),
        ("file", ("a.py", b"a")),
        ("path", (None, b"pkg/b.py")),
        ("file", ("other.py", b"b")),
        ("file", ("deep/c.py", b"c")),
    ]
    written = (await client.post(url, files=fields)).json()["files"]
    assert [item["path"] for item in written] == ["src/a.py", "pkg/b.py", "deep/c.py"]
    assert world.sandbox.files["pkg/b.py"] == b"b"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{}", "application/json"),
        (b"", "multipart/form-data"),
        (b"", "multipart/form-data; boundary=" + "b" * 300),
        (b"nonsense", "multipart/form-data; boundary=b"),
        (
            b"--b\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\nhalf",
            "multipart/form-data; boundary=b",
        ),
        (b"--b--\r\n", "multipart/form-data; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="path"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (b'--b\r\nContent-Disposition: form-data; name="odd"\r\n\r\nx\r\n--b--\r\n', "multipart/form-data; boundary=b"),
        (b"--b\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
    ],
)
async def test_what_is_no_form_of_files_is_refused(
    world: World, client: httpx.AsyncClient, body: bytes, content_type: str
) -> None:
    before = dict(world.sandbox.files)
    url = f"/v1/sandboxes/{world.sandbox_id}/files"
    answer = await client.post(url, content=body, headers={"content-type": content_type})
    assert reason(answer) == (400, "FORM_INVALID")
    assert world.sandbox.files == before


async def test_a_large_file_is_never_whole_in_memory(world: World, client: httpx.AsyncClient) -> None:
    sizes: list[int] = []
    arrived = asyncio.Event()
    sent_all = False

    async def count(
        header: executor.WriteFileHeader, chunks: AsyncIterator[bytes], **_: Any
    ) -> executor.WriteFileResponse:
        async for chunk in chunks:
            # The first bytes are here before the last were sent.
            assert sizes or not sent_all
            arrived.set()
            sizes.append(len(chunk))
        return executor.WriteFileResponse(size=sum(sizes), sha256="")

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent_all
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="big"\r\n\r\n'
        for index in range(64):
            yield b"x" * (1 << 20)
            if not index:
                await asyncio.wait_for(arrived.wait(), 10)
        sent_all = True
        yield b"\r\n--b--\r\n"

    world.executor.write_file = count  # type: ignore[method-assign]
    url = f"/v1/sandboxes/{world.sandbox_id}/files"
    answer = await client.post(url, content=body(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.json()["files"][0]["size"] == 64 << 20
    assert max(sizes) <= 64 << 10


async def test_locks_sboms_and_comparisons(world: World, client: httpx.AsyncClient) -> None:
    url = f"/v1/sandboxes/{world.sandbox_id}"
    assert reason(await client.get(f"{url}/lock")) == (404, "NO_LOCK")
    assert reason(await client.get(f"{url}/sbom")) == (409, "SBOM_NOT_READY")
    told = (await client.post(f"{url}/exec", json={"filename": "main.py"})).json()
    lock = await client.get(f"{url}/lock")
    assert [package["name"] for package in lock.json()["packages"]] == ["pyyaml", "pyyaml-dep"]
    assert lock.headers["x-qila-exec-id"] == told["id"]
    native = await client.get(f"{url}/lock", params={"native": "true", "exec_id": told["id"]})
    assert native.content == b"locked in public"
    assert native.headers["x-qila-lock-name"] == "pylock.txt"
    sbom = await client.get(f"{url}/sbom", params={"format": "spdx"})
    assert sbom.headers["content-type"] == "application/spdx+json"
    assert sbom.text.startswith(f"{told['id']} 2 ")
    sides = {"before": {"exec": {"sandbox_id": world.sandbox_id}}, "after": {"lock": {"name": "x", "content": "new"}}}
    changes = (await client.post("/v1/diff", json=sides)).json()["changes"]
    assert changes[-1]["after"]["name"] == "new"
    assert reason(await client.post("/v1/diff", json={"before": {}, "after": {}})) == (400, "FIELD_INVALID")


async def test_egress_records_come_in_pages_and_as_a_stream(world: World, client: httpx.AsyncClient) -> None:
    url = f"/v1/sandboxes/{world.sandbox_id}/egress/records"
    for number in range(3):
        world.sandbox.decide(host=f"h{number}", verdict=executor.EGRESS_VERDICT_REFUSED)
    page = (await client.get(url, params={"limit": 2})).json()
    assert ([item["host"] for item in page["records"]], page["more"]) == (["h0", "h1"], True)
    page = (await client.get(url, params={"after": 2, "verdict": "refused"})).json()
    assert ([item["host"] for item in page["records"]], page["more"]) == (["h2"], False)
    headers = {"accept": "text/event-stream", "last-event-id": "2"}
    async with client.stream("GET", url, headers=headers) as stream:
        lines = stream.aiter_lines()
        assert [await anext(lines) for _ in range(2)] == ["id: 3", "event: record"]
        world.sandbox.decide(host="h3")
        await world.executor.remove_sandbox(world.sandbox_id)
        assert "id: 4" in [line async for line in lines]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{", "JSON_INVALID"),
        ("[]", "JSON_INVALID"),
        ('{"args": [NaN]}', "JSON_INVALID"),
        (b"\xff", "JSON_INVALID"),
        ('{"filename": 1}', "FIELD_INVALID"),
        ('{"file": "main.py"}', "FIELD_INVALID"),
        ('{"filename": "../main.py"}', "FIELD_INVALID"),
        ('{"filename": "\\ud800"}', "JSON_INVALID"),
        ('{"filename": "a", "command": ["b"]}', "FIELD_INVALID"),
        ('{"command": []}', "FIELD_INVALID"),
        ('{"exec_id": "ex_1"}', "FIELD_INVALID"),
        ('{"run_timeout": -1}', "FIELD_INVALID"),
        ('{"run_timeout": 1e400}', "FIELD_INVALID"),
        ('{"env": {"A": "\\u0000"}}', "FIELD_INVALID"),
    ],
)
async def test_a_bad_body_is_told_what_is_wrong(
    world: World, client: httpx.AsyncClient, body: str | bytes, expected: str
) -> None:
    answer = await client.post(f"/v1/sandboxes/{world.sandbox_id}/exec", content=body)
    assert reason(answer) == (400, expected)
    assert not world.executor.started


@pytest.mark.parametrize(
    "bomb",
    [b"[" + b"[]," * 100_000 + b"[]]", b"[" + b"1," * 100_000 + b"1]", b"{" + b'"":"",' * 50_001 + b'"":""}'],
)
async def test_an_attack_by_a_body_of_many_values_is_refused_unread(
    world: World, client: httpx.AsyncClient, bomb: bytes
) -> None:
    answer = await client.post(f"/v1/sandboxes/{world.sandbox_id}/exec", content=b'{"filename": ' + bomb + b"}")
    assert reason(answer) == (400, "JSON_INVALID")
    assert "values" in answer.text


async def test_text_is_not_taken_for_values(world: World, client: httpx.AsyncClient) -> None:
    text = '\\"[{,' * 30_000
    answer = await client.post("/v1/diff", json={"before": {"lock": {"name": "x", "content": text}}})
    assert reason(answer) == (400, "FIELD_INVALID")


async def test_a_bad_query_path_or_method_is_told_so(world: World, client: httpx.AsyncClient) -> None:
    url = f"/v1/sandboxes/{world.sandbox_id}"
    assert reason(await client.get(f"{url}/files?path=a&path=b")) == (400, "QUERY_INVALID")
    assert reason(await client.get(f"{url}/files?dir=a")) == (400, "FIELD_INVALID")
    assert reason(await client.get(f"{url}/sbom?format=x")) == (400, "FIELD_INVALID")
    assert reason(await client.get("/v1/nothing")) == (404, "NO_SUCH_PATH")
    assert reason(await client.get("/v1/sandboxes/%ff")) == (400, "PATH_INVALID")
    refused = await client.patch(url)
    assert reason(refused) == (405, "METHOD_NOT_ALLOWED")
    assert set(refused.headers["allow"].split(", ")) == {"GET", "DELETE"}


async def test_a_fault_keeps_its_words_to_itself(world: World, client: httpx.AsyncClient) -> None:
    async def fail(sandbox_id: str) -> executor.Sandbox:
        raise ZeroDivisionError("a secret")

    world.executor.sandbox = fail  # type: ignore[method-assign]
    answer = await client.get(f"/v1/sandboxes/{world.sandbox_id}")
    assert reason(answer) == (500, "INTERNAL")
    assert "secret" not in answer.text
    assert answer.headers["x-qila-request-id"].startswith("rq_")

    async def silent(sandbox_id: str) -> executor.Sandbox:
        raise unavailable("EXECUTOR_UNAVAILABLE", "it does not answer")

    world.executor.sandbox = silent  # type: ignore[method-assign]
    assert reason(await client.get(f"/v1/sandboxes/{world.sandbox_id}")) == (503, "EXECUTOR_UNAVAILABLE")


async def test_the_document_names_every_path(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    assert "/v1/sandboxes/{sandbox_id}/exec" in document["paths"]
    # Nothing is fetched from elsewhere to read it.
    assert "://" not in json.dumps(document)


async def test_a_preview_that_is_switched_off_is_told(world: World, client: httpx.AsyncClient) -> None:
    url = f"/v1/sandboxes/{world.sandbox_id}/previews"
    assert reason(await client.post(url, json={"port": 8000, "ttl": 60})) == (409, "PREVIEW_OFF")
    assert reason(await client.post(url, json={"port": 7480})) == (400, "FIELD_INVALID")
