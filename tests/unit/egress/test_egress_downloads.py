"""Downloads without a door before them: what enters the cache, and what happens when the disk gives up in between."""

import asyncio
import hashlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.executor.egress.cache.directory import CacheDirectory, PartialFile
from services.executor.egress.cache.disk import DiskCache
from services.executor.egress.download import DownloadFailed, Follower
from services.executor.egress.downloads import Downloads
from services.executor.egress.ecosystems.port import Artefact, Digest
from services.executor.egress.registries import Registry, load_registries
from services.executor.egress.upstream import Upstream
from services.executor.egress.verdicts import Refused
from services.executor.egress.workers import Workers

from .harness import CONTENT, STORED, FakePypi, registries_text


class Hall:
    def __init__(self, downloads: Downloads, registry: Registry, url: str) -> None:
        self.downloads = downloads
        self.registry = registry
        self.url = f"{url}/{STORED}"

    def artefact(self, digest: Digest | None = None, max_bytes: int = 1 << 30) -> Artefact:
        return Artefact(url=self.url, rule="file", digest=digest, max_bytes=max_bytes)

    async def get(self, artefact: Artefact) -> bytes:
        async with self.downloads.follow(artefact, self.registry) as follower:
            return await rest(follower)

    async def is_kept(self, artefact: Artefact) -> bool:
        held = await self.downloads.kept(artefact)
        if held is None:
            return False
        with held:
            assert held.file.readall() == CONTENT
        return True


async def rest(follower: Follower) -> bytes:
    pieces = []
    while piece := await follower.piece():
        pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture
async def hall(pypi: FakePypi, tmp_path: Path) -> AsyncIterator[Hall]:
    file = tmp_path / "registries.toml"
    file.write_text(registries_text(pypi.url))
    workers = Workers(name="test", threads=4)
    directory = CacheDirectory(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))
    cache = DiskCache(directory, limit=8 << 20, workers=workers)
    upstream = Upstream(ssl.create_default_context())
    yield Hall(Downloads(upstream=upstream, cache=cache, workers=workers), load_registries(file).pypi, pypi.url)
    await upstream.close()
    cache.close()
    workers.close()


async def test_without_a_digest_the_length_decides(hall: Hall, pypi: FakePypi) -> None:
    artefact = hall.artefact()
    pypi.length_is_told = False
    assert await hall.get(artefact) == CONTENT
    assert not await hall.is_kept(artefact)
    pypi.length_is_told = True
    assert await hall.get(artefact) == CONTENT
    assert await hall.is_kept(artefact)


async def test_a_file_that_breaks_off_is_not_kept(hall: Hall, pypi: FakePypi) -> None:
    pypi.breaks_off = True
    for digest in (None, Digest(algorithm="sha256", hex=hashlib.sha256(CONTENT).hexdigest())):
        with pytest.raises(DownloadFailed, match="registry broke off"):
            await hall.get(hall.artefact(digest))
        assert not await hall.is_kept(hall.artefact(digest))


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
async def test_every_kind_of_digest(algorithm: str, hall: Hall, pypi: FakePypi) -> None:
    right = Digest(algorithm=algorithm, hex=hashlib.new(algorithm, CONTENT).hexdigest())  # type: ignore[arg-type]  # one of the three
    wrong = Digest(algorithm=algorithm, hex=hashlib.new(algorithm, b"other").hexdigest())  # type: ignore[arg-type]  # one of the three
    with pytest.raises(DownloadFailed, match="digest mismatch"):
        await hall.get(hall.artefact(wrong))
    assert not await hall.is_kept(hall.artefact())
    assert await hall.get(hall.artefact(right)) == CONTENT
    assert await hall.is_kept(hall.artefact(right))
    assert await hall.is_kept(hall.artefact())
    assert not await hall.is_kept(hall.artefact(wrong))


async def test_what_was_kept_without_a_digest_is_not_taken_for_proven(hall: Hall) -> None:
    await hall.get(hall.artefact())
    sha256 = Digest(algorithm="sha256", hex=hashlib.sha256(CONTENT).hexdigest())
    assert await hall.is_kept(hall.artefact(sha256))
    assert not await hall.is_kept(hall.artefact(Digest(algorithm="sha512", hex="0" * 128)))


@pytest.mark.parametrize("length_is_told", [True, False])
async def test_a_file_that_is_too_large(length_is_told: bool, hall: Hall, pypi: FakePypi) -> None:  # noqa: FBT001  # a parameter
    pypi.length_is_told = length_is_told
    with pytest.raises((Refused, DownloadFailed), match="file too large"):
        await hall.get(hall.artefact(max_bytes=len(CONTENT) - 1))
    assert await hall.get(hall.artefact(max_bytes=len(CONTENT))) == CONTENT


async def test_the_disk_gives_up_in_the_middle(hall: Hall, pypi: FakePypi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readers, one of which is slow: both get all of it, although much more than memory may hold comes after."""
    pypi.content = os.urandom(6 << 20)
    written = 0
    append = PartialFile.append

    def refuse(partial: PartialFile, data: bytes) -> None:
        nonlocal written
        written += len(data)
        if written > 1 << 20:
            append(partial, data[:10])
            raise OSError(28, "No space left on device")
        append(partial, data)

    monkeypatch.setattr(PartialFile, "append", refuse)
    digest = Digest(algorithm="sha512", hex=hashlib.sha512(pypi.content).hexdigest())
    artefact = hall.artefact(digest)
    async with (
        hall.downloads.follow(artefact, hall.registry) as slow,
        hall.downloads.follow(artefact, hall.registry) as quick,
    ):
        beginning = await slow.piece()
        reading = asyncio.create_task(rest(quick))
        done, _ = await asyncio.wait([reading], timeout=0.5)
        assert not done, "memory is not bounded: the quick one has all of it while the slow one has nothing"
        assert beginning + await rest(slow) == pypi.content
        assert await reading == pypi.content
    assert len(pypi.seen) == 1
    assert not await hall.is_kept(artefact)


async def test_a_newcomer_does_not_join_what_is_not_filed(hall: Hall, pypi: FakePypi) -> None:
    pypi.content = os.urandom(9 << 20)
    async with hall.downloads.follow(hall.artefact(), hall.registry) as first:
        assert await first.piece()
        assert await hall.get(hall.artefact()) == pypi.content
        assert len(pypi.seen) == 2


async def test_the_slowest_reader_holds_up_nobody_who_reads_from_the_disk(hall: Hall, pypi: FakePypi) -> None:
    pypi.content = os.urandom(6 << 20)
    async with hall.downloads.follow(hall.artefact(), hall.registry) as slow:
        beginning = await slow.piece()
        assert await hall.get(hall.artefact()) == pypi.content
        assert beginning + await rest(slow) == pypi.content
    assert len(pypi.seen) == 1


async def test_a_file_of_nobody(hall: Hall, pypi: FakePypi) -> None:
    pypi.status = 410
    async with hall.downloads.follow(hall.artefact(), hall.registry) as follower:
        assert await follower.head() is None
    assert await hall.downloads.head(hall.artefact(), hall.registry) is None
