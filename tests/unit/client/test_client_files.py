"""Files, trees and ports with both clients, over the real gateway; connections break in the middle."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from qila.client import (
    AsyncClient,
    Client,
    FailedPreconditionError,
    LocalFile,
    QilaError,
    UnavailableError,
    async_unpack,
    unpack,
)
from qila.executor.v1 import executor_pb2 as executor
from services.rpc.errors import unavailable

from .fakes_server import FakesServer

LARGE = random.Random(2).randbytes(9 << 20)


class InThread:
    """The synchronous client, with calls that are awaited."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any, **options: Any) -> Any:
            found = await asyncio.to_thread(getattr(self._client, name), *arguments, **options)
            return found if not hasattr(found, "__next__") else await asyncio.to_thread(b"".join, found)

        return call


class Awaited:
    """The asynchronous client, with its streams as bytes."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any, **options: Any) -> Any:
            found = getattr(self._client, name)(*arguments, **options)
            return await found if hasattr(found, "__await__") else b"".join([chunk async for chunk in found])

        return call


@pytest.fixture(params=["plain", "awaited"])
async def client(fakes: FakesServer, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "plain":
        with Client(fakes.address, reconnect_seconds=10) as opened:
            yield InThread(opened)
    else:
        async with AsyncClient(fakes.address, reconnect_seconds=10) as awaited:
            yield Awaited(awaited)


def break_upload(server: FakesServer, name: str, after: int) -> list[int]:
    """The next upload breaks off once so many bytes have come. Answers the offsets of all uploads, as they begin."""
    whole = getattr(server.executor, name)
    offsets: list[int] = []

    async def breaking(header: Any, chunks: AsyncIterator[bytes], *, sha256: Callable[[], str]) -> Any:
        offsets.append(header.offset)

        async def some() -> AsyncIterator[bytes]:
            size = 0
            async for chunk in chunks:
                yield chunk
                size += len(chunk)
                if size >= after and len(offsets) == 1:
                    raise unavailable("RESTARTING", "it restarts")

        return await whole(header, some(), sha256=sha256)

    setattr(server.executor, name, breaking)
    return offsets


def break_download(server: FakesServer, name: str, after: int) -> list[int]:
    """The next download breaks off after so many messages. Answers the offsets of all."""
    whole = getattr(server.executor, name)
    offsets: list[int] = []

    async def breaking(request: Any) -> AsyncGenerator[Any, None]:
        offsets.append(request.offset)
        count = 0
        async for response in whole(request):
            if count == after and len(offsets) == 1:
                raise unavailable("RESTARTING", "it restarts")
            yield response
            count += 1

    setattr(server.executor, name, breaking)
    return offsets


def tree(directory: Path, count: int = 40, size: int = 50_000) -> list[LocalFile]:
    files = []
    for number in range(count):
        path = directory / f"d{number % 3}" / str(number)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(random.Random(number).randbytes(size))
        files.append(LocalFile(source=path, path=f"{path.parent.name}/{number}", size=size, executable=False))
    return files


async def test_a_large_file_goes_on_where_it_broke(client: Any, fakes: FakesServer) -> None:
    made = await client.create()
    offsets = break_upload(fakes, "write_file", 1 << 20)
    written = await client.put(made.id, "large", io.BytesIO(b"before" + LARGE))
    assert written.size == len(LARGE) + 6
    assert fakes.executor.sandboxes[made.id].files["large"] == b"before" + LARGE
    assert offsets[0] == 0
    assert offsets[1] >= 1 << 20


async def test_a_tree_goes_on_where_it_broke_both_ways(client: Any, fakes: FakesServer, tmp_path: Path) -> None:
    made = await client.create()
    files = tree(tmp_path / "up")
    offsets = break_upload(fakes, "write_tree", 500_000)
    assert (await client.put_tree(made.id, files, "to")).file_count == len(files)
    assert offsets[1] >= 500_000
    offsets = break_download(fakes, "read_tree", 9)
    packed = await client.get_tree(made.id, "to")
    assert offsets == [0, 8 << 16]
    await asyncio.to_thread(unpack, [packed], tmp_path / "down")
    assert {file.path: file.source.read_bytes() for file in files} == {
        path.relative_to(tmp_path / "down").as_posix(): path.read_bytes()
        for path in (tmp_path / "down").rglob("*")
        if path.is_file()
    }


async def test_a_download_goes_on_where_it_broke(client: Any, fakes: FakesServer) -> None:
    made = await client.create()
    await client.put(made.id, "large", io.BytesIO(LARGE))
    offsets = break_download(fakes, "read_file", 2)
    assert await client.get(made.id, "large", offset=5) == LARGE[5:]
    assert offsets == [5, len(LARGE)]


async def test_only_what_differs_is_sent(client: Any, fakes: FakesServer, tmp_path: Path) -> None:
    made = await client.create()
    files = tree(tmp_path, 5, 10)
    there = fakes.executor.sandboxes[made.id].files
    there |= {"to/d0/0": files[0].source.read_bytes(), "to/d1/1": b"old", "to/beyond": b"", "to/left/x": b""}
    done = await client.sync_tree(made.id, files, "to", delete=True, ignored_names=["left"])
    assert (done.uploaded, done.removed, done.unchanged) == (["d0/3", "d1/1", "d1/4", "d2/2"], ["beyond"], 1)
    assert there == {f"to/{file.path}": file.source.read_bytes() for file in files} | {"to/left/x": b""}
    there["to/kept"] = there["to/gone"] = b""
    chosen = await client.sync_tree(made.id, files, "to", delete=lambda path: path == "gone", ignored_names=["left"])
    assert chosen.removed == ["gone"]
    again = await client.sync_tree(made.id, files, "to")
    assert (again.uploaded, again.removed, again.unchanged) == ([], [], 5)


async def test_the_smaller_calls(client: Any) -> None:
    made = await client.create()
    await client.put(made.id, "a/b.py", io.BytesIO(b"1"))
    await client.mkdir(made.id, "c")
    await client.mv(made.id, "a/b.py", "c/d.py")
    assert [file.name for file in await client.ls(made.id, depth=2, patterns=["**/*.py"])] == ["c/d.py"]
    assert (await client.stat(made.id, "c/d.py")).size == 1


async def test_a_file_that_changes_while_it_is_sent_is_told(client: Any, tmp_path: Path) -> None:
    made = await client.create()
    (tmp_path / "a").write_bytes(b"12")
    local = [LocalFile(source=tmp_path / "a", path=f"{n}", size=n, executable=False) for n in (2, 3)]
    with pytest.raises(QilaError) as caught:
        await client.put_tree(made.id, local)
    assert caught.value.reason == "FILE_CHANGED"


async def test_a_source_that_fails_is_what_is_raised(client: Any) -> None:
    class Broken(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError("the disk is gone")

    made = await client.create()
    with pytest.raises(OSError, match="the disk is gone"):
        await client.put(made.id, "a", Broken(b"1"))


async def test_what_stays_lost_is_an_error(fakes: FakesServer) -> None:
    async with AsyncClient(fakes.address, reconnect_seconds=0) as opened:
        made = await opened.create()
        break_upload(fakes, "write_tree", 0)
        file = LocalFile(source=Path(__file__), path="a", size=Path(__file__).stat().st_size, executable=False)
        with pytest.raises(UnavailableError):
            await opened.put_tree(made.id, [file])


async def test_an_upload_that_is_given_up_leaves_no_thread_that_reads(fakes: FakesServer) -> None:
    reading, may_go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Slow(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            loop.call_soon_threadsafe(reading.set)
            asyncio.run_coroutine_threadsafe(may_go_on.wait(), loop).result()
            return b""

        def seekable(self) -> bool:
            return False

    async with AsyncClient(fakes.address) as opened:
        made = await opened.create()
        upload = asyncio.create_task(opened.put(made.id, "a", Slow()))
        await reading.wait()
        upload.cancel()
        done, _ = await asyncio.wait({upload}, timeout=0.1)
        assert not done
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await upload


async def test_an_archive_is_unpacked_as_it_comes(fakes: FakesServer, tmp_path: Path) -> None:
    async with AsyncClient(fakes.address) as opened:
        made = await opened.create()
        await opened.put_files(made.id, tree(tmp_path / "up", 4))
        await async_unpack(opened.get_tree(made.id), tmp_path / "down")
        with pytest.raises(NotADirectoryError):
            await async_unpack(opened.get_tree(made.id, "d0"), tmp_path / "up/d0/0")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "0",
        "0",
        "1",
        "1",
        "2",
        "2",
        "3",
        "3",
    ]


async def test_a_port_of_both_ways(fakes: FakesServer) -> None:
    async with AsyncClient(fakes.address) as opened:
        made = await opened.create()
        fakes.executor.sandboxes[made.id].servers[8000] = lambda data: data[::-1]
        async with await opened.connect_port(made.id, 8000) as port:
            await port.send(b"abc")
            assert await port.receive() == b"cba"
            await port.end()
            assert await port.receive() == b""
        with pytest.raises(FailedPreconditionError) as caught:
            await opened.connect_port(made.id, 9)
        assert caught.value.reason == "PORT_CLOSED"


async def test_a_port_that_breaks_is_told_to_both_sides(fakes: FakesServer) -> None:
    async def broken(requests: AsyncIterator[Any]) -> AsyncGenerator[executor.ConnectPortResponse, None]:
        yield executor.ConnectPortResponse(connected=executor.PortConnected())
        await anext(aiter(requests))
        await anext(aiter(requests))
        raise unavailable("RESTARTING", "it restarts")

    fakes.executor.connect_port = broken  # type: ignore[method-assign]  # another executor's behaviour
    async with AsyncClient(fakes.address) as opened:
        made = await opened.create()
        async with await opened.connect_port(made.id, 8000) as port:
            await port.send(b"1")
            with pytest.raises(UnavailableError):
                await port.receive()
            with pytest.raises(UnavailableError):
                await port.send(b"2")
