import asyncio
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.executor.egress.cache.directory import CacheDirectory, DirectoryInUse
from services.executor.egress.cache.disk import DiskCache, open_cache
from services.executor.egress.cache.port import Entry, NoCache
from services.executor.egress.workers import Workers

Open = Callable[..., DiskCache]


@pytest.fixture
def open_disk(tmp_path: Path) -> Iterator[Open]:
    """Opens the one cache of the test, again and again; the earlier one is closed."""
    opened: list[DiskCache] = []
    workers = Workers(name="test", threads=2)

    def open_it(limit: int = 1 << 20) -> DiskCache:
        while opened:
            opened.pop().close()
        opened.append(DiskCache(CacheDirectory(root_of(tmp_path)), limit=limit, workers=workers))
        return opened[-1]

    yield open_it
    for cache in opened:
        cache.close()
    workers.close()


def root_of(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def keep(cache: DiskCache, key: str, content: bytes) -> Entry:
    entry = Entry(key=key, sha256=hashlib.sha256(content).hexdigest(), size=len(content), host="x")
    partial = cache.begin()
    assert partial is not None
    if cache.make_room(partial, len(content)):
        partial.append(content)
        cache.commit(partial, entry)
    else:
        cache.abandon(partial)
    cache.release(partial)
    return entry


async def content_of(cache: DiskCache, key: str) -> bytes | None:
    held = await cache.get(key)
    if held is None:
        return None
    with held:
        return held.file.readall()


def files(path: Path) -> set[str]:
    return {file.name for file in (path / "blobs").iterdir()}


async def test_what_is_kept_is_there_after_a_restart(open_disk: Open, tmp_path: Path) -> None:
    cache = open_disk()
    entry = keep(cache, "a", b"content")
    keep(cache, "b", b"content")
    assert await content_of(cache, "a") == b"content"
    cache = open_disk()
    assert (await content_of(cache, "a"), await content_of(cache, "b")) == (b"content", b"content")
    assert await content_of(cache, "c") is None
    assert files(tmp_path) == {entry.sha256}
    cache.forget("a")
    cache = open_disk()
    assert (await content_of(cache, "a"), await content_of(cache, "b")) == (None, b"content")
    cache.forget("b")
    open_disk()
    assert files(tmp_path) == set()


@pytest.mark.parametrize("restarts", [True, False])
@pytest.mark.parametrize("damage", [b"c0ntent", b"content and more", b"cont", b"", None])
async def test_a_tampered_blob_is_never_served(
    damage: bytes | None, *, restarts: bool, open_disk: Open, tmp_path: Path
) -> None:
    cache = open_disk()
    entry = keep(cache, "a", b"content")
    assert await content_of(cache, "a") == b"content"
    blob = tmp_path / "blobs" / entry.sha256
    blob.unlink() if damage is None else blob.write_bytes(damage)
    if restarts:
        cache = open_disk()
    assert await content_of(cache, "a") is None
    keep(cache, "a", b"content")
    assert await content_of(cache, "a") == b"content"


async def test_the_least_recently_used_goes_first(open_disk: Open, tmp_path: Path) -> None:
    cache = open_disk(limit=300)
    for key in "abc":
        keep(cache, key, key.encode() * 100)
    assert await content_of(cache, "a") is not None
    cache = open_disk(limit=300)
    keep(cache, "d", b"d" * 100)
    assert [await content_of(cache, key) is not None for key in "abcd"] == [True, False, True, True]
    keep(cache, "e", b"e" * 250)
    cache = open_disk(limit=300)
    assert [await content_of(cache, key) is not None for key in "abcde"] == [False, False, False, False, True]
    assert len(files(tmp_path)) == 1


async def test_a_lower_limit_holds_from_the_start(open_disk: Open, tmp_path: Path) -> None:
    cache = open_disk(limit=300)
    for key in "abc":
        keep(cache, key, key.encode() * 100)
    open_disk(limit=150)
    assert sum(file.stat().st_size for file in (tmp_path / "blobs").iterdir()) == 100


async def test_what_is_larger_than_all_evicts_nothing(open_disk: Open) -> None:
    cache = open_disk(limit=300)
    keep(cache, "a", b"a" * 100)
    assert not cache.fits(301)
    keep(cache, "b", b"b" * 301)
    assert await content_of(cache, "a") is not None
    assert await content_of(cache, "b") is None


async def test_what_is_being_written_counts(open_disk: Open) -> None:
    cache = open_disk(limit=300)
    one, other = cache.begin(), cache.begin()
    assert one is not None
    assert other is not None
    assert cache.make_room(one, 200)
    assert not cache.make_room(other, 101)
    cache.abandon(one)
    assert cache.make_room(other, 101)
    cache.abandon(other)
    cache.release(one)
    cache.release(other)


async def test_what_is_open_outlives_its_eviction(open_disk: Open) -> None:
    cache = open_disk(limit=100)
    keep(cache, "a", b"a" * 100)
    held = await cache.get("a")
    assert held is not None
    keep(cache, "b", b"b" * 100)
    assert await content_of(cache, "a") is None
    with held:
        assert held.file.readall() == b"a" * 100


async def test_leftovers_are_cleared_away(open_disk: Open, tmp_path: Path) -> None:
    keep(open_disk(), "a", b"content")
    open_disk()
    (tmp_path / "partial" / "7").write_bytes(b"half of someth")
    (tmp_path / "blobs" / ("f" * 64)).write_bytes(b"in nobody's index")
    with (tmp_path / "journal").open("ab") as journal:
        journal.write(b"\n0000 torn")
    cache = open_disk()
    assert await content_of(cache, "a") == b"content"
    assert list((tmp_path / "partial").iterdir()) == []
    assert len(files(tmp_path)) == 1


async def test_a_lost_journal_is_an_empty_cache(open_disk: Open, tmp_path: Path) -> None:
    keep(open_disk(), "a", b"content")
    open_disk()
    (tmp_path / "journal").write_bytes(os.urandom(1000))
    assert await content_of(open_disk(), "a") is None
    assert files(tmp_path) == set()


async def test_the_journal_stays_short(open_disk: Open, tmp_path: Path) -> None:
    cache = open_disk()
    entry = keep(cache, "a", b"content")
    for _ in range(25_000):
        cache.refresh(entry)
    cache = open_disk()
    assert await content_of(cache, "a") == b"content"
    for _ in range(25_000):
        cache.refresh(entry)
    cache.close()
    assert 5_000 < len((tmp_path / "journal").read_bytes().splitlines()) < 6_000
    open_disk()


async def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.executor.egress.cache.directory._LOCK_SECONDS", 0.2)
    other = root_of(tmp_path)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(DirectoryInUse):
        CacheDirectory(root_of(tmp_path))
    workers = Workers(name="test", threads=1)
    assert isinstance(open_cache(root_of(tmp_path), limit=1, workers=workers), NoCache)
    release = asyncio.get_running_loop().call_later(0.05, os.close, other)
    cache = await asyncio.to_thread(open_cache, root_of(tmp_path), limit=1, workers=workers)
    assert isinstance(cache, DiskCache)
    release.cancel()
    cache.close()
    workers.close()


async def test_what_comes_after_the_end(open_disk: Open, tmp_path: Path) -> None:
    cache = open_disk()
    kept = keep(cache, "a", b"content")
    partial, other = cache.begin(), cache.begin()
    assert partial is not None
    assert other is not None
    cache.close()
    assert await cache.get("a") is None
    assert cache.begin() is None
    cache.make_room(partial, 1 << 20)
    cache.commit(partial, kept)
    cache.abandon(other)
    cache.release(partial)
    cache.forget("a")
    assert await content_of(open_disk(), "a") == b"content"


async def test_a_disk_that_refuses(open_disk: Open, tmp_path: Path) -> None:
    cache = open_disk()
    keep(cache, "a", b"content")
    # Somebody removes the directories below the running cache.
    for name in ("blobs", "partial"):
        (tmp_path / name).rename(tmp_path / f"{name}-gone")
        for file in (tmp_path / f"{name}-gone").iterdir():
            file.unlink()
        (tmp_path / f"{name}-gone").rmdir()
    assert await content_of(cache, "a") is None
    assert cache.begin() is None
