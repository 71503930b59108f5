import asyncio
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
