from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as pb
from services.executor.audit import Audit
from services.executor.egress.fake_doors import FakeDoors
from services.executor.egress.policy import Ceiling
from services.executor.errors import DiskLowError
from services.executor.ids import mint_sandbox_id
from services.executor.images import DEFAULT_NAME, Image, Images
from services.executor.profile import Limits
from services.executor.quota import QuotaChoice
from services.executor.runtime.fake import FakeRuntime
from services.executor.runtime.port import Quota, SandboxSpec
from services.executor.sandbox_record import SandboxRecord, write_record
from services.executor.sandboxes import Sandboxes, Settings
from services.executor.servicer import ExecutorServicer
from services.executor.space import HostSpace, LowWater
from services.executor.trust import TrustStore
from services.rpc.errors import ErrorCode, QilaError

LIMITS = Limits(cpu_millis=1000, memory_bytes=1 << 30, pids=64, disk_bytes=1 << 30)
CONTEXT: Any = None


class Disk:
    """A file system of 100 GiB, in blocks of 1 MiB."""

    def __init__(self, free_mebibytes: int) -> None:
        self.free = free_mebibytes
        self.looks = 0
        self.time = 100.0

    def look(self, _path: Path) -> os.statvfs_result:
        self.looks += 1
        reserved = 500
        return os.statvfs_result((1 << 20, 1 << 20, 100 << 10, self.free + reserved, self.free, 0, 0, 0, 0, 255))

    def space(self, path: Path, mark: LowWater) -> HostSpace:
        return HostSpace([path, path], mark, look=self.look, now=lambda: self.time)


def test_work_is_refused_below_the_mark_with_what_is_free_and_what_to_do(tmp_path: Path) -> None:
    disk = Disk(2047)
    with pytest.raises(DiskLowError) as caught:
        disk.space(tmp_path, LowWater(size=2 << 30)).check()
    assert str(caught.value) == (
        f"the host's disk is low: 2047 MiB are free at {tmp_path}, new work needs 2048 MiB; "
        "remove sandboxes or files, or make room on the host"
    )
    Disk(2048).space(tmp_path, LowWater(size=2 << 30)).check()


@pytest.mark.parametrize(("percent", "refused"), [(0, False), (4, False), (5, False), (6, True)])
def test_the_mark_may_be_a_share(tmp_path: Path, percent: int, *, refused: bool) -> None:
    disk = Disk(5 << 10)
    systems = disk.space(tmp_path, LowWater(percent=percent)).file_systems()
    assert [system.free < system.mark for system in systems] == [refused]


def test_a_burst_looks_once_and_a_second_later_again(tmp_path: Path) -> None:
    disk = Disk(10)
    space = disk.space(tmp_path, LowWater(size=1 << 20))
    for _ in range(100):
        space.check()
    assert disk.looks == 1
    disk.free = 0
    space.check()
    disk.time += 1
    with pytest.raises(DiskLowError):
        space.check()


def test_a_real_file_system_has_something_free(tmp_path: Path) -> None:
    (system,) = HostSpace([tmp_path], LowWater(percent=50)).file_systems()
    assert 0 < system.free < 2 * system.mark


class Host:
    """An executor with one sandbox, on a disk that is low."""

    def __init__(self, directory: Path) -> None:
        self.disk = Disk(10)
        self.sandbox_id = mint_sandbox_id()
        settings = Settings(
            images=Images(Image(name=DEFAULT_NAME, reference="image")),
            state_directory=directory / "state",
            run_directory=directory / "run",
            max_sandboxes=5,
            idle_stop_s=60,
            ceiling=Ceiling(),
            package_policy="",
        )
        self.runtime = FakeRuntime(images=["image"])
        audit = Audit()
        self.doors = FakeDoors(on_egress=audit.take)
        space = self.disk.space(directory, LowWater(size=1 << 30))
        self.sandboxes = Sandboxes(
            settings, self.runtime, self.doors, audit=audit, trust=TrustStore(None, directory / "trust"), space=space
        )
        choice = QuotaChoice(quota=Quota.LOOP, detail="")
        self.servicer = ExecutorServicer(self.sandboxes, LIMITS, choice)
        record = SandboxRecord(
            id=self.sandbox_id, image="image", limits=LIMITS, create_time="2026-01-01T00:00:00+00:00"
        )
        write_record(settings.state_directory / "sandboxes" / record.id, record)

    async def open(self, directory: Path) -> None:
        await self.doors.start()
        await self.runtime.create(
            SandboxSpec(sandbox_id=self.sandbox_id, image="image", limits=LIMITS, socket_directory=directory)
        )
        await self.sandboxes.adopt()

    def process(self, user: pb.User.ValueType) -> pb.RunProcessRequest:
        spec = pb.ProcessSpec(argv=["true"], user=user)
        return pb.RunProcessRequest(sandbox_id=self.sandbox_id, process_id="p", spec=spec)

    async def write(self, user: pb.User.ValueType) -> None:
        async def requests() -> AsyncIterator[pb.WriteFileRequest]:
            header = pb.WriteFileHeader(sandbox_id=self.sandbox_id, path="file", user=user)
            yield pb.WriteFileRequest(header=header)

        await self.servicer.WriteFile(requests(), CONTEXT)


@pytest.fixture
async def host(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    # No sandboxd ever comes: who gets as far as waiting for it was let in.
    monkeypatch.setattr("services.executor.sandboxes.CONNECT_TIMEOUT_S", 0.01)
    # Sockets below it need a short path.
    with tempfile.TemporaryDirectory(prefix="q") as name:
        made = Host(Path(name))
        await made.open(Path(name))
        yield made
        await made.sandboxes.close()
        await made.doors.stop()


async def test_new_work_is_refused_while_the_hosts_disk_is_low(host: Host) -> None:
    refused = [
        host.servicer.CreateSandbox(pb.CreateSandboxRequest(), CONTEXT),
        anext(host.servicer.RunProcess(host.process(pb.USER_INSTALL), CONTEXT)),
        host.write(pb.USER_PROGRAM),
    ]
    for call in refused:
        with pytest.raises(QilaError) as caught:
            await call
        assert (caught.value.code, caught.value.reason) == (ErrorCode.RESOURCE_EXHAUSTED, "DISK_LOW")
    assert [status.sandbox_id for status in await host.runtime.list()] == [host.sandbox_id]


async def test_what_runs_and_what_makes_room_goes_on_while_the_hosts_disk_is_low(host: Host) -> None:
    let_in = [
        anext(host.servicer.RunProcess(host.process(pb.USER_PROGRAM), CONTEXT)),
        host.write(pb.USER_INSTALL),
        host.servicer.RemoveFile(pb.RemoveFileRequest(sandbox_id=host.sandbox_id, path="file"), CONTEXT),
    ]
    for call in let_in:
        with pytest.raises(QilaError) as caught:
            await call
        assert caught.value.reason == "AGENT_UNAVAILABLE"
    await host.servicer.RemoveSandbox(pb.RemoveSandboxRequest(sandbox_id=host.sandbox_id), CONTEXT)
    assert await host.runtime.list() == []


async def test_the_operator_sees_the_quota_and_the_room(host: Host) -> None:
    shown = await host.servicer.GetStorage(pb.GetStorageRequest(), CONTEXT)
    assert (shown.quota, shown.default_disk_bytes) == (pb.WORKSPACE_QUOTA_LOOP, 1 << 30)
    assert [(row.free_bytes, row.low_water_bytes) for row in shown.file_systems] == [(10 << 20, 1 << 30)]
