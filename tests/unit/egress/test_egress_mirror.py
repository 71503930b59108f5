"""The mirror as a sandbox sees it: real doors processes before a registry that misbehaves."""

import asyncio
import itertools
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from .harness import CONTENT, SANDBOX, STORED, FakePypi, OpenDoors, sha256

FILE = f"/pypi/files/{sha256(CONTENT)}/-/{STORED}"
REQUEST = f"QILA1 mirror 1000\nGET {FILE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
Start = Callable[..., Awaitable[OpenDoors]]


class Client:
    """One request whose answer is read bit by bit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def ask(cls, opened: OpenDoors, path: str) -> "Client":
        reader, writer = await asyncio.open_unix_connection(opened.socket_path)
        writer.write(f"QILA1 mirror 1000\nGET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return cls(reader, writer)

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    def leave(self) -> None:
        self.writer.close()


async def kill(opened: OpenDoors) -> None:
    """Kill the doors process and wait for the next one."""
    killed = opened.doors.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    await opened.doors.set_install_phase(SANDBOX, False)
    while opened.doors.pid in {None, killed}:
        await opened.doors.set_install_phase(SANDBOX, False)


def kept(opened: OpenDoors) -> list[bytes]:
    return [file.read_bytes() for file in (opened.cache / "blobs").iterdir()]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what another process does to its disk tells nobody
            await asyncio.sleep(0.01)


async def test_an_artefact_is_fetched_once(opened: OpenDoors, pypi: FakePypi) -> None:
    for _ in range(3):
        reply = await opened.ask(FILE)
        assert (reply.whole, reply.body) == (True, CONTENT)
        record = await opened.record()
        assert (record.rule, record.bytes, record.digest) == ("pypi file", len(CONTENT), sha256(CONTENT))
        assert record.host == "127.0.0.1"
    head = await opened.ask(FILE, method="HEAD")
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(CONTENT)), b"")
    assert (await opened.record()).bytes == 0
    await kill(opened)
    assert (await opened.ask(FILE)).body == CONTENT
    assert len(pypi.seen) == 1


async def test_a_kept_artefact_needs_no_registry(opened: OpenDoors, pypi: FakePypi) -> None:
    await opened.ask(FILE)
    pypi.status = 503
    assert (await opened.ask(FILE)).body == CONTENT
    assert (await opened.ask("/pypi/simple/demo/")).status == 502


async def test_kill_in_the_middle_of_a_download(opened: OpenDoors, pypi: FakePypi) -> None:
    pypi.stall = asyncio.Event()
    client = await Client.ask(opened, FILE)
    await client.head()
    await until(lambda: [file.stat().st_size for file in (opened.cache / "partial").iterdir()] == [100_000])
    await kill(opened)
    assert len(await client.reader.read()) < len(CONTENT)
    client.leave()
    assert list((opened.cache / "partial").iterdir()) == []
    assert kept(opened) == []
    pypi.stall.set()
    assert (await opened.ask(FILE)).body == CONTENT
    assert kept(opened) == [CONTENT]


async def test_kill_at_any_moment(opened: OpenDoors, pypi: FakePypi) -> None:
    for milliseconds in range(0, 50, 10):
        request = asyncio.create_task(opened.raw(REQUEST))
        await asyncio.sleep(milliseconds / 1000)
        await kill(opened)
        await request
        assert kept(opened) in ([], [CONTENT])
        reply = await opened.ask(FILE)
        assert (reply.whole, reply.body) == (True, CONTENT)
        (opened.cache / "blobs" / sha256(CONTENT)).unlink()


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_blob_that_was_tampered_with(*, restarts: bool, opened: OpenDoors, pypi: FakePypi) -> None:
    await opened.ask(FILE)
    (blob,) = (opened.cache / "blobs").iterdir()
    blob.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    if restarts:
        await kill(opened)
    assert (await opened.ask(FILE)).body == CONTENT
    assert len(pypi.seen) == 2
    assert kept(opened) == [CONTENT]


async def test_two_clients_share_one_download(opened: OpenDoors, pypi: FakePypi) -> None:
    pypi.stall = asyncio.Event()
    first = await Client.ask(opened, FILE)
    await first.head()
    second = await Client.ask(opened, FILE)
    await second.head()
    # Both have the beginning while the registry still holds back the rest.
    assert await first.reader.readexactly(20_000) == await second.reader.readexactly(20_000) == CONTENT[:20_000]
    first.leave()
    assert (await opened.record()).rule == "client closed"
    pypi.stall.set()
    assert await second.reader.read() == CONTENT[20_000:]
    second.leave()
    assert (await opened.record()).verdict == "allowed"
    assert len(pypi.seen) == 1
    assert kept(opened) == [CONTENT]


async def test_a_download_that_nobody_wants_is_dropped(opened: OpenDoors, pypi: FakePypi) -> None:
    pypi.stall = asyncio.Event()
    client = await Client.ask(opened, FILE)
    await client.head()
    client.leave()
    await until(lambda: list((opened.cache / "partial").iterdir()) == [])
    assert kept(opened) == []
    pypi.stall.set()
    assert (await opened.ask(FILE)).body == CONTENT


async def test_stopping_in_the_middle_of_a_download(
    opened: OpenDoors, pypi: FakePypi, capfd: pytest.CaptureFixture[str]
) -> None:
    pypi.stall = asyncio.Event()
    client = await Client.ask(opened, FILE)
    await client.head()
    async with asyncio.timeout(9):
        await opened.doors.stop()
    assert len(await client.reader.read()) < len(CONTENT)
    client.leave()
    assert kept(opened) == []
    assert "Traceback" not in capfd.readouterr().err


async def test_a_client_that_claims_another_digest_spoils_nothing(opened: OpenDoors, pypi: FakePypi) -> None:
    lie = FILE.replace(sha256(CONTENT), "0" * 64)
    pypi.stall = asyncio.Event()
    honest = await Client.ask(opened, FILE)
    await honest.head()
    liar = await Client.ask(opened, lie)
    await liar.head()
    pypi.stall.set()
    assert len(await liar.reader.read()) < len(CONTENT)
    assert await honest.reader.read() == CONTENT
    honest.leave()
    liar.leave()
    assert not (await opened.ask(lie)).whole
    assert (await opened.ask(FILE)).whole
    assert len(pypi.seen) == 3
    assert kept(opened) == [CONTENT]


async def test_a_tampered_artefact_is_not_kept(opened: OpenDoors, pypi: FakePypi) -> None:
    pypi.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    assert not (await opened.ask(FILE)).whole
    assert (await opened.record()).rule == "digest mismatch"
    pypi.content = CONTENT
    assert (await opened.ask(FILE)).whole
    assert kept(opened) == [CONTENT]


@pytest.mark.parametrize("content", [b"", b"small and wrong"])
async def test_of_a_small_tampered_artefact_nothing_arrives(content: bytes, opened: OpenDoors, pypi: FakePypi) -> None:
    pypi.content = content
    reply = await opened.ask(FILE)
    assert (reply.status, reply.whole) == (502, True)
    assert b"not what its index promises" in reply.body
    record = await opened.record()
    assert (record.verdict, record.rule, record.status) == ("failed", "digest mismatch", 502)
    assert kept(opened) == []


async def test_without_a_length_the_end_is_held_back_too(opened: OpenDoors, pypi: FakePypi) -> None:
    pypi.length_is_told = False
    pypi.content = CONTENT[:-1]
    assert not (await opened.raw(REQUEST)).endswith(b"\r\n0\r\n\r\n")
    assert kept(opened) == []
    pypi.content = CONTENT
    assert (await opened.raw(REQUEST)).endswith(b"\r\n0\r\n\r\n")
    assert kept(opened) == [CONTENT]


BUCKET = "https://bucket.example.org/proxy-bucket/"


async def test_redirects_inside_are_followed(pypi: FakePypi, start_doors: Start) -> None:
    opened = await start_doors(pypi.url, cache_bytes=0, redirects=[BUCKET])
    for location in (
        "/elsewhere",
        f"{pypi.url}/elsewhere",
        pypi.url.removeprefix("http:") + "/elsewhere",
        "/a/../elsewhere",
    ):
        pypi.seen.clear()
        pypi.redirects[f"/{STORED}"] = location
        reply = await opened.ask(FILE)
        assert (reply.status, reply.body) == (200, CONTENT)
        assert "Location" not in reply.headers
        assert pypi.paths == [f"/{STORED}", "/elsewhere"]
        assert (await opened.record()).verdict == "allowed"
    # Followed, but there is no such host.
    pypi.redirects[f"/{STORED}"] = f"{BUCKET}file"
    assert (await opened.ask(FILE)).status == 502
    assert (await opened.record()).rule == "registry unreachable"


ELSEWHERE = [
    "http://127.0.0.1:{other}/elsewhere", "http://127.0.0.2:{port}/elsewhere", "http://localhost:{port}/elsewhere",
    "http://user@127.0.0.1:{port}/elsewhere", "http://127.0.0.1:{port}@evil.example/elsewhere",
    "https://127.0.0.1:{port}/elsewhere", "//evil.example/elsewhere", "/\\evil.example/elsewhere",
    "https://bucket.example.org/other-bucket/elsewhere", "https://bucket.example.org/proxy-bucket",
    "https://bucket.example.org/proxy-bucket/../other-bucket/elsewhere",
    "https://bucket.example.org/proxy-bucket/%2e%2e/other-bucket/elsewhere",
    "https://bucket.example.org/proxy-bucket/..%2fother-bucket/elsewhere",
    "https://bucket.example.org:8443/proxy-bucket/elsewhere", "http://bucket.example.org/proxy-bucket/elsewhere",
    "https://bucket.example.org.evil.example/proxy-bucket/elsewhere", "file:///etc/passwd", "http://[::1", "",
]  # fmt: skip


async def test_redirects_to_elsewhere_are_not_followed(pypi: FakePypi, start_doors: Start) -> None:
    opened = await start_doors(pypi.url, redirects=[BUCKET])
    port = int(pypi.url.rpartition(":")[2])
    for location in ELSEWHERE:
        place = location.format(port=port, other=port - 1)
        pypi.redirects = {f"/{STORED}": place, "/simple/demo/": place}
        for path in (FILE, "/pypi/simple/demo/"):
            reply = await opened.ask(path)
            record = await opened.record()
            assert (reply.status, record.verdict, record.rule) == (502, "refused", "redirect"), location
    assert "/elsewhere" not in pypi.paths
    assert kept(opened) == []


@pytest.mark.parametrize(("hops", "status"), [(3, 200), (4, 502)])
async def test_three_redirects_at_most(hops: int, status: int, opened: OpenDoors, pypi: FakePypi) -> None:
    steps = [f"/{STORED}", *(f"/hop{number}" for number in range(1, hops)), "/elsewhere"]
    pypi.redirects = dict(itertools.pairwise(steps))
    assert (await opened.ask(FILE)).status == status


async def test_a_full_disk_fails_no_download(pypi: FakePypi, start_doors: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The doors inherit that no file can become larger.
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        opened = await start_doors(pypi.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    reply = await opened.ask(FILE)
    assert (reply.whole, reply.body) == (True, CONTENT)
    assert (await opened.record()).verdict == "allowed"
    assert kept(opened) == []
    await until(lambda: list((opened.cache / "partial").iterdir()) == [])
    await kill(opened)
    assert (await opened.ask(FILE)).whole
    assert kept(opened) == [CONTENT]


@pytest.mark.parametrize("cache_bytes", [0, 200_000])
async def test_without_room_to_keep_it(cache_bytes: int, pypi: FakePypi, start_doors: Start) -> None:
    opened = await start_doors(pypi.url, cache_bytes=cache_bytes)
    for length_is_told in (True, False):
        pypi.length_is_told = length_is_told
        pypi.content = CONTENT
        for _ in range(2):
            assert len(await opened.raw(REQUEST)) > len(CONTENT)
            record = await opened.record()
            assert (record.verdict, record.bytes) == ("allowed", len(CONTENT))
        pypi.content = CONTENT[:-1]
        await opened.raw(REQUEST)
        assert (await opened.record()).rule == "digest mismatch"
    assert len(pypi.seen) == 6
    assert not cache_bytes or kept(opened) == []


async def test_a_cache_that_cannot_be_used(pypi: FakePypi, start_doors: Start, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "blobs").write_text("a file where a directory should be")
    opened = await start_doors(pypi.url)
    for _ in range(2):
        assert (await opened.ask(FILE)).body == CONTENT
    assert len(pypi.seen) == 2
