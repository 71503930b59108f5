"""Watches of directories at the gateway: heartbeats, restarts of the executor, and what a client may not ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import pulse
from services.gateway.executor_fake import FakeExecutor
from services.gateway.file_watching import watch_files
from services.rpc.errors import ErrorCode, QilaError

Events = AsyncGenerator[pb.WatchFilesResponse, None]


@pytest.fixture
async def fake() -> FakeExecutor:
    made = FakeExecutor()
    await made.create_sandbox(executor.CreateSandboxRequest())
    return made


def watching(fake: FakeExecutor, path: str = "", patience: float = 5.0) -> Events:
    [sandbox_id] = fake.sandboxes
    return watch_files(fake, executor.WatchFilesRequest(sandbox_id=sandbox_id, path=path), patience)


async def write(fake: FakeExecutor, path: str) -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"content"

    [sandbox_id] = fake.sandboxes
    await fake.write_file(executor.WriteFileHeader(sandbox_id=sandbox_id, path=path), chunks())


async def kind(events: Events) -> str:
    async with asyncio.timeout(5):
        return str((await anext(events)).WhichOneof("event"))


async def test_silence_is_told(fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "SILENCE_SECONDS", 0.02)
    async with aclosing(watching(fake)) as events:
        assert [await kind(events) for _ in range(3)] == ["ready", "heartbeat", "heartbeat"]
        await write(fake, "a")
        while (event := await anext(events)).HasField("heartbeat"):
            pass
        [change] = event.changes.changes
        assert (change.kind, change.path, change.size) == (pb.FILE_CHANGE_KIND_CREATED, "a", 7)


async def test_a_restart_of_the_executor_is_told_as_lost_changes(fake: FakeExecutor) -> None:
    async with aclosing(watching(fake)) as events:
        assert await kind(events) == "ready"
        fake.break_off()
        waiting = asyncio.create_task(kind(events))
        await fake.refused.wait()
        fake.down = False
        assert await waiting == "overflow"
        await write(fake, "a")
        assert await kind(events) == "changes"


async def test_an_executor_that_does_not_come_back_is_the_end(fake: FakeExecutor) -> None:
    async with aclosing(watching(fake, patience=0.05)) as events:
        assert await kind(events) == "ready"
        fake.break_off()
        with pytest.raises(QilaError) as caught:
            await anext(events)
        assert caught.value.code is ErrorCode.UNAVAILABLE


async def test_a_directory_that_went_while_the_executor_was_away_is_gone(fake: FakeExecutor) -> None:
    await write(fake, "d/a")
    [sandbox] = fake.sandboxes.values()
    async with aclosing(watching(fake, "d")) as events:
        assert await kind(events) == "ready"
        fake.break_off()
        waiting = asyncio.create_task(anext(events))
        await fake.refused.wait()
        sandbox.files.clear()
        fake.down = False
        assert (await waiting).ended.reason == pb.WATCH_END_REASON_PATH_GONE
        assert await anext(events, None) is None


async def test_a_watch_that_cannot_begin_is_refused_at_once(fake: FakeExecutor) -> None:
    fake.down = True
    with pytest.raises(QilaError) as caught:
        await anext(watching(fake))
    assert caught.value.code is ErrorCode.UNAVAILABLE


async def test_a_watcher_who_never_reads_holds_up_nothing(fake: FakeExecutor) -> None:
    [sandbox] = fake.sandboxes.values()
    async with aclosing(watching(fake)) as silent, aclosing(watching(fake)) as events:
        assert await kind(silent) == await kind(events) == "ready"
        for number in range(100):
            await write(fake, f"f{number}")
            [change] = (await anext(events)).changes.changes
            assert change.path == f"f{number}"
        told = 0
        frames = 0
        while told < 100:
            told += len((await anext(silent)).changes.changes)
            frames += 1
        assert frames < 10
    assert sandbox.watches == 0
