"""Index pages: asked for no more often than needed, and served from the cache while the registry is down."""

import asyncio
import datetime
import json
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.executor.egress.cache.directory import CacheDirectory
from services.executor.egress.cache.disk import DiskCache
from services.executor.egress.cache.port import Cache, NoCache
from services.executor.egress.ecosystems.port import Page
from services.executor.egress.pages import FRESH_SECONDS, FoundPage, Pages
from services.executor.egress.registries import Registry, load_registries
from services.executor.egress.upstream import Upstream
from services.executor.egress.verdicts import Refused, UpstreamFailed
from services.executor.egress.workers import Workers

from .harness import FakePypi, registries_text


class Shelf:
    """Pages whose clock the test turns."""

    def __init__(self, registry: Registry, cache: Cache, workers: Workers, upstream: Upstream, url: str) -> None:
        self.now = 1_800_000_000.0
        self.registry = registry
        self.cache = cache
        self.page = Page(url=f"{url}/simple/demo/", accept="application/json", headers={"X-Fixed": "1"})
        self.pages = Pages(upstream=upstream, cache=cache, workers=workers, clock=lambda: self.now)

    async def get(self, page: Page | None = None) -> FoundPage | None:
        return await self.pages.get(page or self.page, self.registry)


@pytest.fixture(params=["disk"])
async def shelf(request: pytest.FixtureRequest, pypi: FakePypi, tmp_path: Path) -> AsyncIterator[Shelf]:
    file = tmp_path / "registries.toml"
    file.write_text(registries_text(pypi.url))
    workers = Workers(name="test", threads=2)
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    directory = CacheDirectory(root)
    cache = DiskCache(directory, limit=1 << 20, workers=workers)
    upstream = Upstream(ssl.create_default_context())
    yield Shelf(
        load_registries(file).pypi, NoCache() if request.param == "none" else cache, workers, upstream, pypi.url
    )
    await upstream.close()
    cache.close()
    workers.close()


async def test_a_fresh_page_is_not_asked_for_again(shelf: Shelf, pypi: FakePypi) -> None:
    one, other = await shelf.get(), await shelf.get()
    shelf.now += FRESH_SECONDS - 1
    assert one == other == await shelf.get()
    assert len(pypi.seen) == 1
    _, _, headers = pypi.seen[0]
    assert {name: headers.get(name) for name in ("Accept", "X-Fixed", "User-Agent", "If-None-Match")} == {
        "Accept": "application/json", "X-Fixed": "1", "User-Agent": "Qila", "If-None-Match": None,
    }  # fmt: skip
    shelf.now += 2
    await shelf.get()
    assert len(pypi.seen) == 2


async def test_a_clock_that_goes_back_makes_nothing_fresh(shelf: Shelf, pypi: FakePypi) -> None:
    await shelf.get()
    shelf.now -= 1000
    await shelf.get()
    assert len(pypi.seen) == 2


async def test_an_old_page_is_asked_whether_it_changed(shelf: Shelf, pypi: FakePypi) -> None:
    pypi.etag = '"one"'
    pypi.last_modified = "Tue, 01 Dec 2026 00:00:00 GMT"
    one = await shelf.get()
    assert one is not None
    assert one.last_modified == datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC)
    shelf.now += FRESH_SECONDS
    pypi.project["changed"] = True
    assert await shelf.get() == one
    assert pypi.seen[1][2]["If-None-Match"] == '"one"'
    assert pypi.seen[1][2]["If-Modified-Since"] == pypi.last_modified
    # That it has not changed makes it fresh again.
    shelf.now += FRESH_SECONDS - 1
    assert await shelf.get() == one
    assert len(pypi.seen) == 2
    shelf.now += 1
    pypi.etag = '"two"'
    two = await shelf.get()
    assert two is not None
    assert json.loads(two.body)["changed"]
    shelf.now += FRESH_SECONDS
    await shelf.get()
    assert pypi.seen[-1][2]["If-None-Match"] == '"two"'


async def test_an_immutable_page_is_never_asked_for_again(shelf: Shelf, pypi: FakePypi) -> None:
    page = Page(url=shelf.page.url, immutable=True)
    await shelf.get(page)
    shelf.now += 1e9
    await shelf.get(page)
    assert len(pypi.seen) == 1


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_kept_page_is_served_while_the_registry_fails(status: int, shelf: Shelf, pypi: FakePypi) -> None:
    one = await shelf.get()
    assert one is not None
    assert not one.is_stale
    shelf.now += 1e6
    pypi.status = status
    kept = await shelf.get()
    assert kept is not None
    assert (kept.body, kept.is_stale) == (one.body, True)
    with pytest.raises(UpstreamFailed):
        await shelf.get(Page(url=f"{pypi.url}/simple/other/"))
    pypi.status = 200
    again = await shelf.get()
    assert again is not None
    assert not again.is_stale


async def test_a_registry_that_does_not_answer_is_left_alone_for_a_while(shelf: Shelf, pypi: FakePypi) -> None:
    await shelf.get()
    shelf.now += 1e6
    pypi.breaks = True
    asked = []
    for _ in range(5):
        kept = await shelf.get()
        assert kept is not None
        assert kept.is_stale
        asked.append(len(pypi.seen))
    assert asked == [asked[0]] * 5


@pytest.mark.parametrize("status", [403, 451])
async def test_a_registry_that_refuses_is_obeyed(status: int, shelf: Shelf, pypi: FakePypi) -> None:
    await shelf.get()
    shelf.now += FRESH_SECONDS
    pypi.status = status
    with pytest.raises(UpstreamFailed, match="registry error"):
        await shelf.get()


@pytest.mark.parametrize("status", [404, 410])
async def test_a_page_that_is_gone_does_not_come_back(status: int, shelf: Shelf, pypi: FakePypi) -> None:
    await shelf.get()
    shelf.now += FRESH_SECONDS
    pypi.status = status
    assert await shelf.get() is None
    pypi.status = 503
    with pytest.raises(UpstreamFailed):
        await shelf.get()


async def test_redirects_to_elsewhere_are_no_reason_to_serve_what_is_kept(shelf: Shelf, pypi: FakePypi) -> None:
    await shelf.get()
    shelf.now += FRESH_SECONDS
    pypi.redirects["/simple/demo/"] = "https://evil.example/"
    with pytest.raises(Refused, match="redirect"):
        await shelf.get()


async def test_pages_outside_the_registry_are_not_asked_for(shelf: Shelf, pypi: FakePypi) -> None:
    for url in ("https://evil.example/", f"{pypi.url}@evil.example/", f"{pypi.url}/simple/../demo/"):
        with pytest.raises(Refused, match="outside the registry"):
            await shelf.get(Page(url=url))
    assert pypi.seen == []


@pytest.mark.parametrize("shelf", ["disk", "none"], indirect=True)
async def test_all_who_ask_at_once_share_one_request(shelf: Shelf, pypi: FakePypi) -> None:
    asking = [asyncio.create_task(shelf.get()) for _ in range(10)]
    await asyncio.sleep(0)
    asking[0].cancel()
    found = await asyncio.gather(*asking[1:])
    assert len({page.body for page in found if page is not None}) == 1
    assert len(pypi.seen) == 1


async def test_a_page_that_is_too_large(shelf: Shelf, pypi: FakePypi) -> None:
    await shelf.get()
    for url in (shelf.page.url, f"{pypi.url}/simple/demo/"):
        small = Page(url=url, accept=shelf.page.accept, headers=shelf.page.headers, max_bytes=10)
        with pytest.raises(Refused, match="index too large"):
            await shelf.get(small)
    with pytest.raises(Refused, match="index too large"):
        await shelf.get(Page(url=shelf.page.url, max_bytes=10))


async def test_pages_differ_by_what_the_registry_is_asked(shelf: Shelf, pypi: FakePypi) -> None:
    for page in (shelf.page, Page(url=shelf.page.url), Page(url=shelf.page.url, headers={"X-Fixed": "1"})):
        await shelf.get(page)
        await shelf.get(page)
    assert len(pypi.seen) == 3
