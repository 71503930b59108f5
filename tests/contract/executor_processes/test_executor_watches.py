"""Watches of directories: one suite for the executor in memory, its own code over a directory, and a sandbox."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from qila.executor.v1 import executor_pb2 as pb
from services.executor.profile import load_profile
from services.executor.runtime.docker import DockerRuntime
from services.executor.runtime.fake import FakeRuntime
from services.executor.runtime.images import WorkspaceImages
from services.executor.runtime.port import Runtime, SandboxSpec
from services.gateway.executor_client import ExecutorClient
from services.gateway.executor_fake import FakeExecutor
from services.gateway.ports import ExecutorPort
from services.rpc.errors import QilaError

from .fake_file_sandboxd import FakeFileSandboxd
from .world import executor

pytestmark = pytest.mark.timeout(120)

KINDS = {
    pb.FILE_CHANGE_KIND_CREATED: "created",
    pb.FILE_CHANGE_KIND_MODIFIED: "modified",
    pb.FILE_CHANGE_KIND_REMOVED: "removed",
    pb.FILE_CHANGE_KIND_MOVED: "moved",
}
Told = tuple[str, str]


@dataclass(kw_only=True)
class Subject:
    """A sandbox, and what to do with it."""

    port: ExecutorPort
    sandbox_id: str
    stop: Callable[[], Awaitable[None]]

    async def write(self, path: str, content: bytes) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield content

        header = pb.WriteFileHeader(sandbox_id=self.sandbox_id, path=path, user=pb.USER_PROGRAM)
        await self.port.write_file(header, chunks())

    async def make(self, path: str) -> None:
        await self.port.make_directory(self.sandbox_id, path)

    async def remove(self, path: str) -> None:
        await self.port.remove_file(self.sandbox_id, path, pb.USER_PROGRAM)

    async def move(self, source: str, target: str) -> None:
        request = pb.MoveFileRequest(sandbox_id=self.sandbox_id, source=source, target=target)
        await self.port.move_file(request)

    @asynccontextmanager
    async def watching(self, path: str = "", **fields: object) -> AsyncIterator[Watch]:
        """A watch that is ready."""
        request = pb.WatchFilesRequest(sandbox_id=self.sandbox_id, path=path, **fields)  # type: ignore[arg-type]
        async with aclosing(self.port.watch_files(request)) as events:
            assert (await anext(events)).HasField("ready")
            yield Watch(events)


class Watch:
    """What is told."""

    def __init__(self, events: AsyncIterator[pb.WatchFilesResponse]) -> None:
        self._events = events

    async def next(self) -> list[Told]:
        return [(KINDS[change.kind], change.path) for change in await self.changes()]

    async def changes(self) -> list[pb.FileChange]:
        return list((await anext(self._events)).changes.changes)

    async def end(self) -> pb.WatchEndReason.ValueType:
        async for event in self._events:
            if event.HasField("ended"):
                assert await anext(self._events, None) is None
                return event.ended.reason
        raise AssertionError("no end")


@asynccontextmanager
async def in_memory() -> AsyncIterator[Subject]:
    fake = FakeExecutor()
    made = await fake.create_sandbox(pb.CreateSandboxRequest())

    async def stop() -> None:
        fake.sandboxes[made.id].stopped = True
        fake.sandboxes[made.id].bell.ring()

    yield Subject(port=fake, sandbox_id=made.id, stop=stop)


@asynccontextmanager
async def over(directory: Path, runtime: Runtime, image: str) -> AsyncIterator[Subject]:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runtime.close)
        stub = await stack.enter_async_context(executor(directory, runtime, image))
        client = ExecutorClient.__new__(ExecutorClient)
        client._stub = stub
        made = await client.create_sandbox(pb.CreateSandboxRequest())
        stack.push_async_callback(client.remove_sandbox, made.id)

        async def stop() -> None:
            await runtime.kill(made.id)

        yield Subject(port=client, sandbox_id=made.id, stop=stop)


@pytest.fixture(params=["memory", "directory", pytest.param("docker", marks=pytest.mark.docker)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        async with in_memory() as made:
            yield made
        return
    with tempfile.TemporaryDirectory(prefix="qila-") as name:
        directory = Path(name)
        if request.param == "docker":
            images = WorkspaceImages(directory=directory / "w", links=directory / "l", max_inodes=10_000)
            instance = f"test-{secrets.token_hex(4)}"
            docker = DockerRuntime(instance=instance, profile=load_profile(), images=images)
            async with over(directory, docker, request.getfixturevalue("sandbox_image")) as made:
                yield made
            return
        running = dict[str, FakeFileSandboxd]()
        (directory / "workspace").mkdir()

        async def start(spec: SandboxSpec) -> None:
            running[spec.sandbox_id] = FakeFileSandboxd(spec, directory / "workspace")

        async def kill(spec: SandboxSpec) -> None:
            await running.pop(spec.sandbox_id).stop()

        async with over(directory, FakeRuntime(images=["image"], on_start=start, on_kill=kill), "image") as made:
            yield made


async def test_each_kind_of_change_is_told(subject: Subject) -> None:
    async with subject.watching() as watch:
        await subject.write("a", b"four")
        [created] = await watch.changes()
        assert (KINDS[created.kind], created.path, created.file_kind, created.size) == (
            "created",
            "a",
            pb.FILE_KIND_FILE,
            4,
        )
        await subject.write("a", b"other")
        [modified] = await watch.changes()
        assert (KINDS[modified.kind], modified.path, modified.size) == ("modified", "a", 5)
        await subject.make("d")
        assert await watch.next() == [("created", "d")]
        await subject.move("a", "d/b")
        [moved] = await watch.changes()
        assert (KINDS[moved.kind], moved.from_path, moved.path, moved.size) == ("moved", "a", "d/b", 5)
        await subject.remove("d")
        assert await watch.next() == [("removed", "d/b"), ("removed", "d")]


async def test_what_is_asked_for_alone_is_told(subject: Subject) -> None:
    await subject.make("src/cache")
    await subject.make("src/deep/deeper")
    async with subject.watching("src", depth=2, patterns=["**/*.py"], ignored_names=["cache"]) as watch:
        for path in ("a.py", "src/a.txt", "src/cache/b.py", "src/deep/deeper/c.py"):
            await subject.write(path, b"")
        await subject.write("src/deep/d.py", b"")
        assert await watch.next() == [("created", "deep/d.py")]
        await subject.move("src/deep/d.py", "src/deep/d.txt")
        assert await watch.next() == [("removed", "deep/d.py")]


async def test_all_watchers_hear_the_same(subject: Subject) -> None:
    async with subject.watching() as one, subject.watching() as other:
        await subject.write("a", b"")
        assert await one.next() == await other.next() == [("created", "a")]


async def test_so_many_watches_and_no_more(subject: Subject) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(subject.watching())
        with pytest.raises(QilaError) as caught:
            await stack.enter_async_context(subject.watching())
        assert caught.value.reason == "LIMIT_REACHED"
    async with subject.watching() as watch:
        await subject.write("a", b"")
        assert await watch.next() == [("created", "a")]


@pytest.mark.parametrize(("path", "reason"), [("none", "FILE_NOT_FOUND"), ("file", "FILE_NOT_A_DIRECTORY")])
async def test_what_cannot_be_watched_is_refused(subject: Subject, path: str, reason: str) -> None:
    await subject.write("file", b"")
    with pytest.raises(QilaError) as caught:
        async with subject.watching(path):
            raise AssertionError("it began")
    assert caught.value.reason == reason


async def test_the_path_goes(subject: Subject) -> None:
    await subject.make("above/watched")
    async with subject.watching("above/watched") as watch:
        await subject.remove("above")
        assert await watch.end() == pb.WATCH_END_REASON_PATH_GONE


async def test_the_sandbox_stops(subject: Subject) -> None:
    async with subject.watching() as watch:
        await subject.stop()
        assert await watch.end() == pb.WATCH_END_REASON_SANDBOX_STOPPED


async def test_the_sandbox_is_removed(subject: Subject) -> None:
    async with subject.watching() as watch:
        await subject.port.remove_sandbox(subject.sandbox_id)
        assert await watch.end() == pb.WATCH_END_REASON_SANDBOX_REMOVED
