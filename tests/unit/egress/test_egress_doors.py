import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from services.executor.egress import policy
from services.executor.egress.config import DoorsConfig
from services.executor.egress.door_process import DoorControl, Doors, DoorsUnavailable, UnknownSandbox
from services.executor.egress.fake_doors import FakeDoors
from services.executor.egress.records import EgressRecord

from .harness import CONTENT, METADATA, SANDBOX, STORED, FakePypi, OpenDoors, StartDoors, listening_socket, sha256

FILE = f"/pypi/files/{sha256(CONTENT)}/{sha256(METADATA)}/{STORED}"


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


async def test_a_killed_process_comes_back_with_its_doors(opened: OpenDoors, pypi: FakePypi) -> None:
    pypi.stall = asyncio.Event()
    await opened.doors.set_install_phase(SANDBOX, True)
    reader, writer = await asyncio.open_unix_connection(opened.socket_path)
    writer.write(f"QILA1 mirror 1000\nGET {FILE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    killed = opened.doors.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    assert len(await reader.read()) < len(CONTENT)
    writer.close()
    pypi.stall.set()
    reply = await opened.ask("/pypi/simple/demo/", uid=1001)
    assert reply.status == 200
    assert (await opened.record()).phase == "INSTALL"
    await opened.doors.set_install_phase(SANDBOX, False)
    assert opened.doors.pid not in {None, killed}


async def test_everything_is_refused_while_the_process_cannot_start(opened: OpenDoors, pypi: FakePypi) -> None:
    good = opened.registries.read_text()
    opened.registries.write_text("broken")
    assert opened.doors.pid is not None
    os.kill(opened.doors.pid, signal.SIGKILL)
    request = b"QILA1 mirror 1000\nGET /pypi/simple/demo/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert await opened.raw(request) == b""
    assert pypi.seen == []
    opened.registries.write_text(good)
    await opened.doors.set_install_phase(SANDBOX, False)
    assert (await opened.ask("/pypi/simple/demo/")).status == 200


async def test_a_closed_sandbox_is_not_served(opened: OpenDoors) -> None:
    await opened.doors.close(SANDBOX)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_unix_connection(opened.socket_path)
    await opened.doors.close(SANDBOX)
    with pytest.raises(UnknownSandbox):
        await opened.doors.set_install_phase(SANDBOX, True)


async def test_an_unreachable_registry_is_an_answer(start_doors: StartDoors, unused_port: int) -> None:
    opened = await start_doors(f"http://127.0.0.1:{unused_port}")
    reply = await opened.ask("/pypi/simple/demo/")
    assert reply.status == 502
    assert b"cannot be reached" in reply.body
    record = await opened.record()
    assert (record.verdict, record.rule) == ("failed", "registry unreachable")


async def test_a_bad_registries_file_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "registries.toml"
    file.write_text("")
    doors = Doors(DoorsConfig(uid=os.getuid(), gid=os.getgid(), registries=file), on_egress=lambda _: None)
    with pytest.raises(DoorsUnavailable, match=r"failed to start .it exited with 1"):
        await doors.start()


@pytest.mark.parametrize("kind", ["real", "fake"])
async def test_both_kinds_of_doors_behave_alike(kind: str, tmp_path: Path) -> None:
    records: list[EgressRecord] = []
    doors: DoorControl = (
        FakeDoors(on_egress=records.append)
        if kind == "fake"
        else Doors(DoorsConfig(uid=os.getuid(), gid=os.getgid()), on_egress=records.append)
    )
    await doors.start()
    try:
        with pytest.raises(UnknownSandbox):
            await doors.set_install_phase(SANDBOX, True)
        with listening_socket(str(tmp_path / "doors.sock")) as listener:
            await doors.open(SANDBOX, listener, policy.DEFAULT)
            await doors.open(SANDBOX, listener, policy.DEFAULT)
            await doors.set_install_phase(SANDBOX, True)
            await doors.set_policy(SANDBOX, policy.CLOSED)
            await doors.close(SANDBOX)
            await doors.close(SANDBOX)
            # The caller's own copy is still the caller's.
            assert listener.fileno() >= 0
    finally:
        await doors.stop()


async def test_a_policy_holds_at_once_and_after_a_restart(opened: OpenDoors, pypi: FakePypi) -> None:
    await opened.doors.set_policy(SANDBOX, policy.CLOSED)
    assert (await opened.ask("/pypi/simple/demo/")).status == 403
    assert (await opened.record()).rule == "policy: closed"
    assert opened.doors.pid is not None
    os.kill(opened.doors.pid, signal.SIGKILL)
    await opened.doors.set_install_phase(SANDBOX, True)
    assert (await opened.ask("/pypi/simple/demo/", uid=1001)).status == 403
    await opened.doors.set_policy(SANDBOX, policy.EgressPolicy(registries=True, install_only=True))
    assert (await opened.ask("/pypi/simple/demo/", uid=1000)).status == 403
    assert pypi.seen == []
    assert (await opened.ask("/pypi/simple/demo/", uid=1001)).status == 200
