"""What the doors answer to single requests: one process serves all of these tests."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from services.executor.egress import policy
from services.executor.egress.records import EgressRecord

from .harness import (
    CONTENT,
    METADATA,
    SANDBOX,
    STORED,
    FakePypi,
    OpenDoors,
    listening_socket,
    open_doors,
    project,
    sha256,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILE = f"/pypi/files/{sha256(CONTENT)}/{sha256(METADATA)}/{STORED}"


class Registry:
    """A port behind which each test has a registry of its own."""

    def __init__(self) -> None:
        self.current = FakePypi()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self.current.answer(request)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registry() -> AsyncIterator[Registry]:
    made = Registry()
    runner = web.ServerRunner(web.Server(made.answer), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.current.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OpenDoors]:
    """Without a cache: no test finds what another one fetched."""
    made = await open_doors(tmp_path_factory.mktemp("doors"), registry.current.url, cache_bytes=0)
    yield made
    await made.doors.stop()


@pytest.fixture
def pypi(registry: Registry) -> FakePypi:
    url = registry.current.url
    registry.current = FakePypi(url=url, project=project(url))
    return registry.current


@pytest_asyncio.fixture(loop_scope="module")
async def opened(shared: OpenDoors, pypi: FakePypi) -> OpenDoors:
    """A door as new, and no record of an earlier test."""
    await shared.doors.close(SANDBOX)
    Path(shared.socket_path).unlink()
    with listening_socket(shared.socket_path) as listener:
        await shared.doors.open(SANDBOX, listener, policy.DEFAULT)
    # Its answer comes behind every record before it.
    await shared.doors.set_install_phase(SANDBOX, False)
    while not shared.records.empty():
        shared.records.get_nowait()
    return shared


async def test_index_file_and_metadata(opened: OpenDoors, pypi: FakePypi) -> None:
    index = await opened.ask("/pypi/simple/DEMO/")
    assert index.headers["content-type"] == "application/vnd.pypi.simple.v1+json"
    (file,) = json.loads(index.body)["files"]
    assert file["url"] == FILE
    assert (await opened.record()).rule == "pypi index"

    artefact = await opened.ask(file["url"], uid=1234, headers="Range: bytes=0-9\r\n")
    assert (artefact.status, artefact.whole, artefact.body) == (200, True, CONTENT)
    record = await opened.record()
    assert record == EgressRecord(
        sandbox=SANDBOX, phase="RUN", uid=1234, method="GET", host="127.0.0.1", path=FILE, status=200,
        verdict="allowed", rule="pypi file", bytes=len(CONTENT), digest=sha256(CONTENT),
    )  # fmt: skip

    metadata = await opened.ask(f"{file['url']}.metadata")
    assert metadata.body == METADATA
    assert "Range" not in pypi.seen[1][2]
    assert {headers["User-Agent"] for _, _, headers in pypi.seen} == {"Qila"}


async def test_html_and_head(opened: OpenDoors, pypi: FakePypi) -> None:
    page = await opened.ask("/pypi/simple/demo/", headers="Accept: text/html\r\n")
    assert page.headers["content-type"].startswith("text/html")
    head = await opened.ask(FILE, method="HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(CONTENT)), b"")
    assert pypi.seen[-1][0] == "HEAD"


async def test_a_tampered_artefact_never_arrives_whole(opened: OpenDoors, pypi: FakePypi) -> None:
    pypi.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    artefact = await opened.ask(FILE)
    assert not artefact.whole
    record = await opened.record()
    assert (record.verdict, record.rule) == ("failed", "digest mismatch")
    assert record.bytes < len(CONTENT)


async def test_foreign_links_are_dropped_and_recorded(opened: OpenDoors, pypi: FakePypi) -> None:
    pypi.project["files"][0]["url"] = f"https://evil.example/{STORED}"
    index = await opened.ask("/pypi/simple/demo/")
    assert json.loads(index.body)["files"] == []
    record = await opened.record()
    assert (record.verdict, record.rule) == ("refused", "1 files left out: link to another host")


@pytest.mark.parametrize(
    ("request_text", "status", "rule"),
    [
        ("PUT /pypi/simple/demo/ HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method"),
        ("POST /pypi/simple/demo/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 405, "method"),
        ("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 405, "method"),
        ("GET /pypi/simple/demo/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 400, "body"),
        ("GET /pypi/simple/demo/ HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 400, "body"),
        ("GET http://evil.example/pypi/simple/demo/ HTTP/1.1\r\nHost: x\r\n\r\n", 404, "no such path"),
        ("GET /pypi/simple/..%2fdemo/ HTTP/1.1\r\nHost: x\r\n\r\n", 404, "no such path"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404, "no such path"),
        ("nonsense\r\n\r\n", 400, "malformed request"),
        (f"GET /{'a' * 20_000} HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed request"),
    ],
)
async def test_refused(request_text: str, status: int, rule: str, opened: OpenDoors, pypi: FakePypi) -> None:
    # A second request on the connection of a refused one is not served.
    again = "GET /pypi/simple/demo/ HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await opened.raw(f"QILA1 mirror 1000\n{request_text}{again}".encode())
    assert answer.startswith((f"HTTP/1.1 {status} ".encode(), f"HTTP/1.0 {status} ".encode()))
    assert answer.count(b"HTTP/1.") == 1
    record = await opened.record()
    assert (record.verdict, record.rule, record.status) == ("refused", rule, status)
    assert pypi.seen == []


async def test_an_unknown_project_says_so(opened: OpenDoors) -> None:
    reply = await opened.ask("/pypi/simple/nothing-here/")
    assert (reply.status, reply.body) == (404, b"Qila: PyPI has no project nothing-here.\n")
    assert (await opened.record()).verdict == "allowed"


@pytest.mark.parametrize(
    "preamble",
    [b"GET / HTTP/1.1\r\n", b"QILA1 mirror\n", b"QILA1 mirror -1\n", b"QILA1 mirror 01001\n",
     b"QILA1 mirror 4294967295\n",
     b"QILA1 mirror 1001 \n", b"qila1 mirror 1001\n", b"QILA1 Connect 1001\n",
     b"QILA1 connect  1001\n", b"Q" * 64 + b"\n", b"\n",
     "QILA1 mirror \u0661\n".encode()],
)  # fmt: skip
async def test_bad_preambles(preamble: bytes, opened: OpenDoors, pypi: FakePypi) -> None:
    assert await opened.raw(preamble + b"GET /pypi/simple/demo/ HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    assert (await opened.record()).rule == "preamble"
    assert pypi.seen == []


async def test_the_install_user_counts_only_during_an_install(opened: OpenDoors) -> None:
    async def ask(uid: int) -> tuple[int, str, str]:
        reply = await opened.ask("/pypi/simple/demo/", uid=uid)
        record = await opened.record()
        return reply.status, record.phase, record.rule

    assert await ask(1001) == (403, "RUN", "no install is running")
    await opened.doors.set_install_phase(SANDBOX, True)
    assert await ask(1001) == (200, "INSTALL", "pypi index")
    assert await ask(1000) == (200, "RUN", "pypi index")
    await opened.doors.set_install_phase(SANDBOX, False)
    assert await ask(1001) == (403, "RUN", "no install is running")


async def test_an_install_that_ends_loses_its_connections(opened: OpenDoors, pypi: FakePypi) -> None:
    pypi.stall = asyncio.Event()
    await opened.doors.set_install_phase(SANDBOX, True)
    reader, writer = await asyncio.open_unix_connection(opened.socket_path)
    writer.write(f"QILA1 mirror 1001\nGET {FILE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    await opened.doors.set_install_phase(SANDBOX, False)
    assert len(await reader.read()) < len(CONTENT)
    writer.close()
    record = await opened.record()
    assert (record.verdict, record.rule, record.phase) == ("failed", "client closed", "INSTALL")
    pypi.stall.set()


async def test_the_process_has_no_privileges(opened: OpenDoors) -> None:
    status = Path(f"/proc/{opened.doors.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if os.geteuid() == 0:
        assert fields["Uid"].split() == ["65534"] * 4
        assert fields["Gid"].split() == ["65534"] * 4
        assert fields["Groups"].strip() == ""
        assert int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
