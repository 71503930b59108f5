"""Package rules and limits at the doors themselves, against a registry of the test's own."""

import asyncio
import datetime
import json
import os
import signal
from pathlib import Path

import pytest

from services.executor.egress import policy
from services.executor.egress.config import DoorsConfig
from services.executor.egress.denials import Denial, denial_of
from services.executor.egress.door_process import Doors, DoorsUnavailable
from services.executor.egress.limits import TrafficLimits

from .harness import CONTENT, METADATA, STORED, FakePypi, OpenDoors, StartDoors, listening_socket, sha256

FILE = f"/pypi/files/{sha256(CONTENT)}/{sha256(METADATA)}/{STORED}"
PAGE = "/pypi/simple/demo/"
OTHER = "sb_" + "b" * 26


def days_ago(days: int) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)).isoformat()


async def test_a_denied_package_is_refused_by_name(pypi: FakePypi, start_doors: StartDoors) -> None:
    opened = await start_doors(pypi.url, rules='[pypi]\ndeny = ["Demo"]\n')
    for path in ("/pypi/simple/DEMO/", FILE, f"{FILE}.metadata"):
        reply = await opened.ask(path)
        assert reply.status == 403
        assert b"demo: denied by 'Demo'" in reply.body
        record = await opened.record()
        assert (record.verdict, record.rule) == ("refused", "policy: demo: denied by 'Demo'")
        assert denial_of(record) == Denial(kind="package", package="demo")
    assert pypi.seen == []


async def test_a_denied_release_is_left_out_and_its_link_does_not_work(pypi: FakePypi, start_doors: StartDoors) -> None:
    opened = await start_doors(pypi.url, rules='[pypi]\ndeny = ["demo<2"]\n')
    for accept in ("*/*", "text/html"):
        page = await opened.ask(PAGE, headers=f"Accept: {accept}\r\n")
        assert (page.status, b"demo-1.0" in page.body) == (200, False)
        record = await opened.record()
        assert record.rule == "1 files left out: policy: demo: denied by 'demo<2'"
        assert denial_of(record) == Denial(kind="releases", package="demo")
        assert (await opened.record()).verdict == "allowed"
    assert (await opened.ask(FILE)).status == 403
    assert denial_of(await opened.record()) == Denial(kind="package", package="demo")


@pytest.mark.parametrize(
    ("upload_time", "served"),
    [(days_ago(8), True), (days_ago(6), False), (None, False)],
    ids=["old enough", "too young", "of no age"],
)
async def test_a_release_must_be_old_enough(
    upload_time: str | None,
    served: bool,  # noqa: FBT001  # data
    pypi: FakePypi,
    start_doors: StartDoors,
) -> None:
    opened = await start_doors(pypi.url, rules="[pypi]\nminimum_age_days = 7\n")
    if upload_time is not None:
        pypi.project["files"][0]["upload-time"] = upload_time
    page = await opened.ask(PAGE)
    assert bool(json.loads(page.body)["files"]) is served
    assert ((await opened.ask(FILE)).status == 200) is served
    assert ((await opened.ask(f"{FILE}.metadata")).status == 200) is served


async def test_a_file_of_an_old_form_is_closed_to_every_project_it_could_be_of(
    pypi: FakePypi, start_doors: StartDoors
) -> None:
    opened = await start_doors(pypi.url, rules='[pypi]\ndeny = ["two-words"]\n')
    path = f"/pypi/files/{sha256(CONTENT)}/-/packages/aa/bb/{'c' * 60}/two-words-1.0.tar.bz2"
    assert (await opened.ask(path)).status == 403
    assert pypi.seen == []


async def test_a_broken_policy_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "packages.toml"
    file.write_text("")
    doors = Doors(DoorsConfig(uid=os.getuid(), gid=os.getgid(), package_policy=file), on_egress=lambda _: None)
    with pytest.raises(DoorsUnavailable, match=r"failed to start .it exited with 1"):
        await doors.start()


async def test_a_policy_that_broke_keeps_everything_closed_after_kill_9(
    pypi: FakePypi, start_doors: StartDoors
) -> None:
    opened = await start_doors(pypi.url, rules='[pypi]\ndeny = ["other"]\n')
    good = opened.package_policy.read_text()
    opened.package_policy.write_text("[pypi\n")
    assert opened.doors.pid is not None
    os.kill(opened.doors.pid, signal.SIGKILL)
    assert await opened.raw(f"QILA1 mirror 1000\nGET {PAGE} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) == b""
    assert pypi.seen == []
    opened.package_policy.write_text(good)
    await opened.doors.set_install_phase("sb_" + "a" * 26, False)
    assert (await opened.ask(PAGE)).status == 200


async def test_the_bytes_of_a_day_end_in_the_middle_of_a_file(pypi: FakePypi, start_doors: StartDoors) -> None:
    opened = await start_doors(pypi.url, traffic=TrafficLimits(bytes_per_day=200_000))
    cut = await opened.ask(FILE)
    assert not cut.whole
    assert len(cut.body) <= 200_000
    record = await opened.record()
    assert (record.verdict, record.rule) == ("refused", "limit: bytes")
    refused = await opened.ask(PAGE)
    assert (refused.status, b"24 hours" in refused.body) == (403, True)
    assert denial_of(await opened.record()) == Denial(kind="egress")


async def test_a_page_that_does_not_fit_is_not_sent(pypi: FakePypi, start_doors: StartDoors) -> None:
    opened = await start_doors(pypi.url, traffic=TrafficLimits(bytes_per_day=100))
    assert await opened.raw(f"QILA1 mirror 1000\nGET {PAGE} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) == b""
    assert (await opened.record()).rule == "limit: bytes"
    assert (await opened.ask(PAGE)).status == 403


async def test_the_rate_holds(pypi: FakePypi, start_doors: StartDoors) -> None:
    opened = await start_doors(pypi.url, traffic=TrafficLimits(bytes_per_second=200_000))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    replies = await asyncio.gather(opened.ask(FILE), opened.ask(FILE))
    # 600,000 bytes, of which a second's worth is free.
    assert loop.time() - begun >= 1.9
    assert all(reply.body == CONTENT for reply in replies)


async def test_a_greedy_sandbox_leaves_another_its_share(opened: OpenDoors, pypi: FakePypi, tmp_path: Path) -> None:
    pypi.stall = asyncio.Event()
    path = str(tmp_path / "other.sock")
    with listening_socket(path) as listener:
        await opened.doors.open(OTHER, listener, policy.DEFAULT)
    # With a digest of its own, each is a download of its own.
    files = [FILE.replace(sha256(CONTENT), f"{number:064x}") for number in range(100)]
    greedy = [asyncio.create_task(opened.ask(file)) for file in files]
    async with asyncio.timeout(20):
        for _ in range(24):
            await pypi.stalled.get()
    other = OpenDoors(
        doors=opened.doors,
        records=opened.records,
        socket_path=path,
        registries=opened.registries,
        cache=opened.cache,
        package_policy=opened.package_policy,
    )
    try:
        async with asyncio.timeout(10):
            assert (await other.ask(PAGE)).status == 200
        assert len(pypi.seen) == 25
    finally:
        pypi.stall.set()
    assert {reply.status for reply in await asyncio.gather(*greedy)} == {200}


async def test_a_download_is_cut_when_its_policy_is_replaced(opened: OpenDoors, pypi: FakePypi) -> None:
    pypi.stall = asyncio.Event()
    reader, writer = await asyncio.open_unix_connection(opened.socket_path)
    writer.write(f"QILA1 mirror 1000\nGET {FILE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    await opened.doors.set_policy("sb_" + "a" * 26, policy.CLOSED)
    pypi.stall.set()
    assert len(await reader.read()) < len(CONTENT)
    writer.close()
    assert (await opened.record()).verdict == "failed"
