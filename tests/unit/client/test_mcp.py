"""`qila mcp` as a child of the SDK's own client, against the real gateway over the fakes."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from qila.client import Client as GatewayClient

from .fakes_server import FakesServer
from .scripted_gateway import PATIENCE, SANDBOX, ScriptedGateway

ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def connected(*options: str) -> AsyncIterator[Client]:
    environment = {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
        "QILA_GATEWAY_ADDRESS": os.environ["QILA_GATEWAY_ADDRESS"],
    }
    child = StdioServerParameters(
        command=sys.executable, args=["-m", "qila.cli", "mcp", *options], env=environment, cwd=ROOT
    )
    async with Client(child, read_timeout_seconds=100) as client:
        yield client


async def ask(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    content = result.structured_content
    assert content is not None
    return content.get("result", content)


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(result.content[0].text)  # type: ignore[union-attr]  # an error is text


async def test_a_session_runs_code_in_one_sandbox_that_goes_with_it(fakes: FakesServer) -> None:
    told: list[str] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    async with connected() as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {
            "run_code", "run_program", "put_file", "read_file", "list_files", "dependencies", "lock", "sbom", "diff",
        }  # fmt: skip
        assert fakes.executor.sandboxes == {}
        await ask(client, "put_file", path="requirements.txt", content="pyyaml")
        call = {"language": "python", "code": "print('hello') warn('careful') exit(3)"}
        result = await client.call_tool("run_code", call, progress_callback=progress)
        ran = result.structured_content or {}
        assert (ran["end"], ran["exit_code"], ran["stdout"], ran["stderr"]) == ("exited", 3, "hello\n", "careful\n")
        assert (ran["requirements"], ran["installed"]) == (["pyyaml"], ["yaml 6.0"])
        assert "installed yaml 6.0" in told
        assert "hello\n" in told
        assert told.index("installing") < told.index("running")
        assert len(fakes.executor.sandboxes) == 1
    assert fakes.executor.sandboxes == {}


async def test_documents_of_runs(fakes: FakesServer) -> None:
    async with connected() as client:
        await ask(client, "put_file", path="requirements.txt", content="pyyaml")
        await ask(client, "put_file", path="main.py", content="print('x')")
        first = await ask(client, "run_program", file="main.py")
        await ask(client, "put_file", path="requirements.txt", content="pyyaml requests")
        second = await ask(client, "run_program", file="main.py", args=["a"])
        lock = await ask(client, "lock", exec_id=first["exec_id"])
        assert (lock["name"], lock["exec_id"]) == ("qila.lock.json", first["exec_id"])
        assert "pyyaml" in lock["content"]
        assert (await ask(client, "lock", native=True))["name"] == "pylock.txt"
        assert first["exec_id"] in (await ask(client, "sbom", exec_id=first["exec_id"], format="spdx"))["content"]
        told = await ask(client, "diff", before=first["exec_id"], after=second["exec_id"])
        assert "2 packages differ" in told


async def test_files_go_in_and_out(fakes: FakesServer) -> None:
    data = bytes(range(256)) * 1000
    async with connected() as client:
        encoded = base64.b64encode(data).decode()
        written = await ask(client, "put_file", path="a/b.bin", content=encoded, encoding="base64")
        assert written["size"] == len(data)
        read = await ask(client, "read_file", path="a/b.bin", encoding="base64", max_bytes=1000)
        assert (base64.b64decode(read["content"]), read["truncated"]) == (data[:1000], True)
        listed = await ask(client, "list_files", path="a")
        assert ([row["name"] for row in listed["files"]], listed["left_out"]) == (["b.bin"], 0)
        assert "FILE_NOT_FOUND" in await refused(client, "read_file", path="gone")
        assert "FIELD_INVALID" in await refused(client, "put_file", path="../x", content="")
        assert "base64" in await refused(client, "put_file", path="x", content="?", encoding="base64")
        assert "language" in await refused(client, "run_code", language="cobol", code="")
        assert "do not go together" in await refused(
            client, "run_code", language="python", code="", stdin="x", install_missing=True
        )


async def test_a_list_of_very_many_files_is_cut(fakes: FakesServer) -> None:
    async with connected() as client:
        await ask(client, "put_file", path="d/0", content="")
        (sandbox,) = fakes.executor.sandboxes.values()
        for number in range(1, 1000):
            sandbox.files[f"d/{number:0200}"] = b""
        result = await client.call_tool("list_files", {"path": "d"})
        listed = result.structured_content or {}
        assert 300 < len(listed["files"]) < 500
        assert len(listed["files"]) + listed["left_out"] == 1000
        assert len(str(listed)) < 150_000


async def test_codes_that_are_run_at_once_do_not_become_each_other(fakes: FakesServer) -> None:
    async with connected() as client:
        codes = [f"print('{number}')" for number in range(4)]
        ran = await asyncio.gather(*(ask(client, "run_code", language="python", code=code) for code in codes))
        assert [report["stdout"] for report in ran] == [f"{number}\n" for number in range(4)]


async def test_dependencies_need_no_sandbox(fakes: FakesServer) -> None:
    async with connected() as client:
        found = await ask(client, "dependencies", language="python", code="import requests\nimport os\n")
        assert (found["source"], found["requirements"]) == ("detected", ["requests"])
        declared = await ask(
            client,
            "dependencies",
            language="python",
            code="import requests\n",
            manifest_name="requirements.txt",
            manifest="flask==3.0\n",
        )
        assert (declared["source"], declared["requirements"]) == ("manifest", ["flask==3.0"])
        assert declared["undeclared"] == ["snippet.py:1 imports requests"]
        assert "manifest_name" in await refused(
            client, "dependencies", language="python", code="", manifest_name="../x", manifest=""
        )
    assert fakes.executor.sandboxes == {}


async def test_a_named_sandbox_is_kept(fakes: FakesServer) -> None:
    with GatewayClient(fakes.address) as gateway:
        made = gateway.create()
        async with connected("--sandbox", made.id) as client:
            await ask(client, "put_file", path="kept", content="x")
        assert [file.name for file in gateway.ls(made.id)] == ["kept"]


async def test_input_reaches_the_program(gateway: ScriptedGateway) -> None:
    gateway.programs["cat.py"] = gateway.programs["cat"]
    async with connected("--sandbox", SANDBOX) as client:
        ran = await ask(client, "run_program", file="cat.py", stdin="hé")
        assert ran["stdout"] == "hé"


async def test_a_call_that_is_given_up_cancels_its_exec(gateway: ScriptedGateway) -> None:
    started = asyncio.Event()

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        started.set()

    async with connected("--sandbox", SANDBOX) as client:
        call = asyncio.create_task(client.call_tool("run_program", {"file": "sleep"}, progress_callback=progress))
        await asyncio.wait_for(started.wait(), PATIENCE)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        (execution,) = gateway.execs.values()

        def cancelled() -> bool:
            with execution.changed:
                return execution.changed.wait_for(lambda: execution.cancelled, PATIENCE)

        assert await asyncio.to_thread(cancelled)


async def test_output_beyond_what_a_model_reads_is_counted(gateway: ScriptedGateway) -> None:
    def flood(running: Any) -> int:
        for _ in range(64):
            running.write(b"x" * 65536)
        return 0

    told: list[str] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    gateway.programs["flood"] = flood
    async with connected("--sandbox", SANDBOX) as client:
        result = await client.call_tool("run_program", {"file": "flood"}, progress_callback=progress)
        ran = result.structured_content or {}
    assert len(ran["stdout"]) + ran["truncated_bytes"] == 64 * 65536
    assert sum(map(len, told)) < 300_000


def test_a_server_that_is_terminated_removes_its_sandbox(gateway: ScriptedGateway) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
    child = subprocess.Popen(
        [sys.executable, "-m", "qila.cli", "mcp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=ROOT,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    hello = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
        '"clientInfo":{"name":"t","version":"1"}}}\n{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
        '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"put_file","arguments":{"path":"a",'
        '"content":"b"}}}\n'
    )
    child.stdin.write(hello)
    child.stdin.flush()
    while '"id":2' not in child.stdout.readline():
        pass
    try:
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE) == 0
    finally:
        child.kill()
        errors = child.communicate()[1]
    assert errors == ""
    assert gateway.removed == [SANDBOX]


def test_no_gateway_is_said_to_the_model() -> None:
    async def talk() -> str:
        async with connected() as client:
            return await refused(client, "list_files")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QILA_GATEWAY_ADDRESS", "127.0.0.1:1")
        assert "qila up" in asyncio.run(talk())
