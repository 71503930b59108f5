"""The CONNECT door as sandboxd finds it: behind its preamble, under the sandbox's policy and phase."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from services.executor.egress.config import DoorsConfig
from services.executor.egress.connect_hosts import connect_hosts
from services.executor.egress.control import ControlChannel
from services.executor.egress.door_process import Doors, DoorsUnavailable
from services.executor.egress.limits import NO_LIMITS, Allowance
from services.executor.egress.listening import SandboxDoor
from services.executor.egress.policy import CLOSED, DEFAULT, EgressPolicy
from services.executor.egress.records import EgressRecord
from services.executor.egress.registries import load_registries
from services.executor.egress.reports import Reports
from services.executor.egress.verdicts import Refused, Visit

from .dialling import FakeDialler
from .harness import SANDBOX, OpenDoors, listening_socket
from .hellos import real_hello

HOST = "plugins.example.org"
CONNECT = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()
HELLO = real_hello(HOST)
POLICY = EgressPolicy(hosts=frozenset({HOST}))
REGISTRY = load_registries().pypi.origins["index"].host


async def no_mirror(request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
    raise Refused(status=404, rule="the mirror was asked", advice="")


@dataclass
class Bench:
    door: SandboxDoor
    dialler: FakeDialler
    socket_path: str
    executor: ControlChannel
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def dial(self, data: bytes, uid: int = 1000) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self.socket_path)
        self.writers.append(writer)
        writer.write(f"QILA1 connect {uid}\n".encode() + data)
        return reader, writer

    async def answer(self, data: bytes, uid: int = 1000) -> bytes:
        """The first line that the door says."""
        reader, _ = await self.dial(data, uid)
        return await asyncio.wait_for(reader.readline(), 10)

    async def tunnel(self, uid: int = 1000) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A tunnel that has come as far as the other end."""
        reader, writer = await self.dial(CONNECT + HELLO, uid)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await self.dialler.remote()
        self.dialler.reached.clear()
        return reader, writer

    async def close(self) -> None:
        await self.door.close()
        self.executor.close()
        self.dialler.close()
        for writer in self.writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def record(self) -> EgressRecord:
        message = await asyncio.wait_for(self.executor.receive(), 10)
        assert message is not None
        return EgressRecord.from_message(message.fields)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reports = Reports(ControlChannel(theirs))
    reporting = asyncio.create_task(reports.send_all())
    dialler = FakeDialler()
    operator = connect_hosts([HOST], registries=load_registries(), registries_open=False)
    door = SandboxDoor(
        sandbox=SANDBOX, peer_uid=os.geteuid(), answer=no_mirror, connect_hosts=operator, dialler=dialler,
        reports=reports, allowance=Allowance(NO_LIMITS),
    )  # fmt: skip  # one call reads best in two lines
    await door.set_policy(POLICY)
    path = str(tmp_path / "doors.sock")
    await door.listen(listening_socket(path))
    made = Bench(door=door, dialler=dialler, socket_path=path, executor=ControlChannel(ours))
    yield made
    await made.close()
    reporting.cancel()
    await asyncio.gather(reporting, return_exceptions=True)
    theirs.close()


async def test_one_record_for_a_tunnel(bench: Bench) -> None:
    reader, writer = await bench.tunnel()
    remote = bench.dialler.remotes[-1]
    remote.send(b"hello, world")
    assert await reader.readexactly(12) == b"hello, world"
    writer.close()
    remote.shutdown(socket.SHUT_WR)
    assert await bench.record() == EgressRecord(
        sandbox=SANDBOX, phase="RUN", uid=1000, method="CONNECT", host=HOST, path=f"{HOST}:443", status=200,
        verdict="allowed", rule="connect", bytes=12, digest="",
    )  # fmt: skip  # as above


async def test_a_new_policy_cuts_tunnels_at_once(bench: Bench) -> None:
    reader, _ = await bench.tunnel()
    await bench.door.set_policy(CLOSED)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    record = await bench.record()
    assert (record.verdict, record.rule) == ("allowed", "connect: cut")
    assert (await bench.answer(CONNECT)).startswith(b"HTTP/1.1 403 ")
    assert (await bench.record()).rule == "policy: closed"


async def test_a_connection_that_is_cut_before_it_is_looked_at_is_closed(bench: Bench) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(bench.socket_path)
        client.setblocking(False)
        # Accepted, and its task not begun: whoever waits on it must hear that it is over.
        while not bench.door._connections:  # noqa: ASYNC110  # the very turn of the loop is what matters
            await asyncio.sleep(0)
        await bench.door.set_policy(CLOSED)
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), 10) == b""


async def test_a_policy_that_changes_before_the_hello_cuts_as_well(bench: Bench) -> None:
    reader, writer = await bench.dial(CONNECT)
    await reader.readuntil(b"\r\n\r\n")
    await bench.door.set_policy(CLOSED)
    writer.write(HELLO)
    # Hanging up on something unread is a reset, and writing to who has hung up a broken pipe.
    with suppress(ConnectionResetError, BrokenPipeError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    record = await bench.record()
    assert (record.verdict, record.rule) == ("failed", "connect: cut")
    assert bench.dialler.asked == []


async def test_the_end_of_an_install_cuts_its_tunnels_and_no_others(bench: Bench) -> None:
    bench.door.set_install(is_open=True)
    theirs, _ = await bench.tunnel()
    ours, _ = await bench.tunnel(uid=1001)
    bench.door.set_install(is_open=False)
    assert await asyncio.wait_for(ours.read(), 10) == b""
    record = await bench.record()
    assert (record.uid, record.phase, record.rule) == (1001, "INSTALL", "connect: cut")
    assert (await bench.answer(CONNECT, uid=1001)).startswith(b"HTTP/1.1 403 Qila: no install is running")
    assert (await bench.record()).rule == "no install is running"
    bench.dialler.remotes[0].send(b"still here")
    assert await asyncio.wait_for(theirs.readexactly(10), 10) == b"still here"


async def test_the_phase_is_that_of_the_request_not_of_the_connection(bench: Bench) -> None:
    reader, writer = await bench.dial(b"", uid=1001)
    while 1001 not in bench.door._connections.values():  # noqa: ASYNC110 - nothing tells that a preamble was read
        await asyncio.sleep(0)
    bench.door.set_install(is_open=True)
    writer.write(CONNECT)
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 200 ")
    bench.door.set_install(is_open=False)
    assert (await bench.record()).phase == "INSTALL"


async def test_a_closed_policy_and_a_mere_registries_policy_open_no_tunnel(bench: Bench) -> None:
    for policy, rule in ((CLOSED, "policy: closed"), (DEFAULT, "connect: host")):
        await bench.door.set_policy(policy)
        assert (await bench.answer(CONNECT + HELLO)).startswith(b"HTTP/1.1 403 ")
        record = await bench.record()
        assert (record.verdict, record.rule, record.path) == ("refused", rule, f"{HOST}:443")
    assert bench.dialler.asked == []


async def test_what_a_sandbox_sends_cannot_forge_a_line_of_the_log(bench: Bench) -> None:
    target = b"evil.example:443\x1b[2J" + b'","event":"egress'
    assert (await bench.answer(b"CONNECT " + target + b" HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    record = await bench.record()
    assert (record.method, record.path, record.host) == ("", "", "")
    await bench.answer(b"CONNECT evil.example:443 HTTP/1.0\r\n\r\n")
    assert (await bench.record()).path == "evil.example:443"
    await bench.answer(b"CONNECT " + b"a" * 5000 + b":443 HTTP/1.0\r\n\r\n")
    record = await bench.record()
    assert (record.host, len(record.path)) == ("", 2048)


async def test_each_door_understands_its_own_protocol_alone(bench: Bench) -> None:
    assert (await bench.answer(b"GET /pypi/simple/demo/ HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
    assert (await bench.record()).rule == "connect: method"


async def test_the_doors_process_has_a_connect_door(opened: OpenDoors) -> None:
    request = f"CONNECT {REGISTRY}:443 HTTP/1.0\r\n\r\n".encode()
    assert (await opened.raw(b"QILA1 connect 1000\n" + request)).startswith(b"HTTP/1.1 403 ")
    record = await opened.record()
    assert (record.method, record.verdict, record.rule) == ("CONNECT", "refused", "connect: host")


async def test_a_bad_list_of_hosts_stops_the_start() -> None:
    for host in ("*.example.org", REGISTRY):
        config = DoorsConfig(uid=os.getuid(), gid=os.getgid(), connect_hosts=(host,))
        with pytest.raises(DoorsUnavailable, match=r"failed to start .it exited with 1"):
            await Doors(config, on_egress=lambda _: None).start()


def test_the_configuration_survives_its_way_to_the_process() -> None:
    config = DoorsConfig(uid=1, gid=2, connect_hosts=(HOST, "data.example.org"), connect_registries=True)
    assert DoorsConfig.from_argument(config.to_argument()) == config
