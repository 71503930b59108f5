import base64
import datetime
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.executor.egress.ecosystems.npm import Npm
from services.executor.egress.ecosystems.npm_memory import PackumentMemory
from services.executor.egress.ecosystems.npm_packument import PackumentReader, wants_abbreviated
from services.executor.egress.ecosystems.npm_versions import newest
from services.executor.egress.ecosystems.port import (
    Artefact,
    Ask,
    Digest,
    Document,
    Ecosystem,
    Fetched,
    LeftOut,
    Missing,
    Page,
)
from services.executor.egress.registries import Origin, Registry
from services.executor.egress.verdicts import Refused, UpstreamFailed

ORIGIN = "https://registry.example.org"
BASE = "http://127.0.0.1:7480/npm"
ABBREVIATED = "application/vnd.npm.install-v1+json"
NPMS_OWN = f"{ABBREVIATED}; q=1.0, application/json; q=0.8, */*"
SHA1 = "a" * 40
SHA512 = hashlib.sha512(b"tarball")
INTEGRITY = "sha512-" + base64.b64encode(SHA512.digest()).decode()


def manifest(name: str, version: str, **changes: Any) -> dict[str, Any]:
    file = f"{name.rpartition('/')[2]}-{version}.tgz"
    dist = {"tarball": f"{ORIGIN}/{name}/-/{file}", "shasum": SHA1, "integrity": INTEGRITY, "unpackedSize": 1}
    return {"name": name, "version": version, "dist": dist} | changes


def with_dist(version: str = "1.0.0", **changes: Any) -> dict[str, Any]:
    good = manifest("demo", version)
    return good | {"dist": good["dist"] | changes}


def packument(name: str = "demo", versions: tuple[str, ...] = ("1.0.0",), **changes: Any) -> dict[str, Any]:
    return {
        "_id": name,
        "name": name,
        "dist-tags": {"latest": versions[-1]},
        "versions": {version: manifest(name, version) for version in versions},
        "time": {version: f"2026-01-0{day}T00:00:00.000Z" for day, version in enumerate(versions, 1)},
    } | changes


@dataclass
class FakeSource:
    """A registry of one page; `asked` keeps every page that was asked for."""

    body: bytes | None
    asked: list[Page] = field(default_factory=list)

    async def page(self, page: Page) -> Fetched | None:
        self.asked.append(page)
        return None if self.body is None else Fetched(body=self.body)


@dataclass
class FakeRules:
    """Refuses packages, versions and releases of unknown or later time, by name."""

    denied: frozenset[str] = frozenset()
    before: datetime.datetime | None = None

    @property
    def needs_release_times(self) -> bool:
        return self.before is not None

    def refusal(self, name: str, version: str | None, released: datetime.datetime | None) -> str | None:
        if name in self.denied or f"{name}@{version}" in self.denied:
            return "deny"
        if version is not None and self.before is not None and (released is None or released >= self.before):
            return "too new"
        return None


ALLOWING = FakeRules()
LAST = datetime.datetime.max.replace(tzinfo=datetime.UTC)


def npm(rules: FakeRules = ALLOWING) -> Npm:
    registry = Registry(origins={"registry": Origin(url=ORIGIN, host="registry.example.org")}, redirects=())
    return Npm(registry=registry, rules=rules, base=BASE)


async def document(
    page: object, path: str = "/demo", *, accept: str = NPMS_OWN, rules: FakeRules = ALLOWING
) -> tuple[Any, Document]:
    answer = await npm(rules).answer(Ask(path=path, accept=accept), FakeSource(json.dumps(page).encode()))
    assert isinstance(answer, Document)
    return json.loads(answer.body), answer


async def tarball(
    page: object, path: str = "/demo/-/demo-1.0.0.tgz", *, rules: FakeRules = ALLOWING
) -> Artefact | Missing:
    answer = await npm(rules).answer(Ask(path=path), FakeSource(json.dumps(page).encode()))
    assert isinstance(answer, Artefact | Missing)
    return answer


def test_it_is_an_ecosystem() -> None:
    ecosystem: Ecosystem = npm()
    assert ecosystem.prefix == "npm"


async def test_the_abbreviated_form_has_what_installing_needs_and_leads_back_here() -> None:
    extra = {"dependencies": {"x": "^1"}, "scripts": {"postinstall": "x"}, "readme": "x" * 9, "_hasShrinkwrap": False}
    page = packument(modified="2026-02-01T00:00:00.000Z", readme="x", _attachments={})
    page["versions"]["1.0.0"] |= extra
    body, answer = await document(page)
    assert body == {
        "name": "demo",
        "modified": "2026-02-01T00:00:00.000Z",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {
            "1.0.0": {
                "name": "demo",
                "version": "1.0.0",
                "dependencies": {"x": "^1"},
                "_hasShrinkwrap": False,
                "hasInstallScript": True,
                "dist": page["versions"]["1.0.0"]["dist"] | {"tarball": f"{BASE}/demo/-/demo-1.0.0.tgz"},
            }
        },
    }
    assert (answer.content_type, answer.rule, answer.vary_accept) == (ABBREVIATED, "npm packument", True)
    assert answer.left_out == ()


async def test_the_full_form_has_times_and_whole_manifests() -> None:
    page = packument("@scope/demo", description="d", _attachments={"x": "y"}, users={"me": True})
    page["versions"]["1.0.0"]["gitHead"] = "abc"
    page["time"] |= {"created": "2025-01-01T00:00:00.000Z", "0.9.0": "2025-01-01T00:00:00.000Z"}
    body, answer = await document(page, "/@scope%2fdemo", accept="application/json")
    assert body["time"] == {"created": "2025-01-01T00:00:00.000Z", "1.0.0": "2026-01-01T00:00:00.000Z"}
    assert body["versions"]["1.0.0"]["gitHead"] == "abc"
    assert body["versions"]["1.0.0"]["dist"]["tarball"] == f"{BASE}/@scope/demo/-/demo-1.0.0.tgz"
    assert body["description"] == "d"
    assert not {"_attachments", "users"} & set(body)
    assert answer.content_type == "application/json"


@pytest.mark.parametrize(
    ("path", "accept", "rules", "url", "upstream_accept"),
    [
        ("/demo", NPMS_OWN, ALLOWING, f"{ORIGIN}/demo", ABBREVIATED),
        ("/demo", "*/*", ALLOWING, f"{ORIGIN}/demo", "application/json"),
        ("/demo", NPMS_OWN, FakeRules(before=LAST), f"{ORIGIN}/demo", "application/json"),
        ("/demo/1.0.0", "*/*", ALLOWING, f"{ORIGIN}/demo", "application/json"),
        ("/-/package/@s%2Fdemo/dist-tags", "*/*", ALLOWING, f"{ORIGIN}/@s%2fdemo", ABBREVIATED),
        ("/@s/demo/-/demo-1.0.0.tgz", "*/*", ALLOWING, f"{ORIGIN}/@s%2fdemo", ABBREVIATED),
    ],
)
async def test_the_registry_is_asked_for_the_form_that_is_needed(
    path: str, accept: str, rules: FakeRules, url: str, upstream_accept: str
) -> None:
    source = FakeSource(None)
    assert isinstance(await npm(rules).answer(Ask(path=path, accept=accept), source), Missing)
    (page,) = source.asked
    assert (page.url, page.accept) == (url, upstream_accept)


@pytest.mark.parametrize("path", ["/", "/-/v1/search", "/demo/../other"])
async def test_other_paths_are_refused_and_nothing_is_asked(path: str) -> None:
    source = FakeSource(None)
    with pytest.raises(Refused) as refused:
        await npm().answer(Ask(path=path), source)
    assert (refused.value.status, refused.value.rule) == (404, "no such path")
    assert source.asked == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "the manifest of something else"),
        (manifest("other", "1.0.0"), "the manifest of something else"),
        (manifest("demo", "1.0.1"), "the manifest of something else"),
        (manifest("demo", "1.0.0", dist=[]), "no link"),
        (with_dist(tarball=None), "no link"),
        (with_dist(tarball="http://registry.example.org/demo/-/demo-1.0.0.tgz"), "link to another host"),
        (with_dist(tarball=f"{ORIGIN}.evil.example/demo/-/demo-1.0.0.tgz"), "link to another host"),
        (with_dist(tarball=f"{ORIGIN}:8443/demo/-/demo-1.0.0.tgz"), "link to another host"),
        (with_dist(tarball=f"{ORIGIN}@evil.example/demo/-/demo-1.0.0.tgz"), "link to another host"),
        (with_dist(tarball=f"{ORIGIN}/other/-/demo-1.0.0.tgz"), "link of an unknown form"),
        (with_dist(tarball=f"{ORIGIN}/demo/-/../other/-/demo-1.0.0.tgz"), "link of an unknown form"),
        (with_dist(tarball=f"{ORIGIN}/demo/-/demo-1.0.0.tgz?x"), "link of an unknown form"),
        (with_dist(tarball=f"{ORIGIN}/demo/-/demo-1.0.0.zip"), "link of an unknown form"),
        (with_dist(tarball=f"{ORIGIN}/demo/-/..%2fdemo-1.0.0.tgz"), "link of an unknown form"),
        (with_dist(integrity=None, shasum=None), "no digest"),
        (with_dist(integrity=None, shasum="A" * 40), "no digest"),
        (with_dist(integrity="sha512-AAAA"), "no digest"),
        (with_dist(integrity="sha512-*"), "no digest"),
    ],
)
@pytest.mark.parametrize("accept", [NPMS_OWN, "application/json"])
async def test_bad_releases_are_left_out_and_named(bad: Any, reason: str, accept: str) -> None:
    page = packument(versions=("0.9.0", "1.0.0"))
    page["versions"]["1.0.0"] = bad
    page["dist-tags"] |= {"next": "1.0.0", "old": "0.9.0", "odd": 1}
    body, answer = await document(page, accept=accept)
    assert set(body["versions"]) == {"0.9.0"}
    assert body["dist-tags"] == {"latest": "0.9.0", "old": "0.9.0"}
    assert answer.left_out == (LeftOut(reason=reason, count=1, names=("1.0.0",)),)
    assert isinstance(await tarball(page), Missing)


async def test_a_forged_version_is_named_in_few_words() -> None:
    page = packument()
    page["versions"] |= {"x" * 1000 + str(number): {} for number in range(9)}
    _, answer = await document(page)
    (left_out,) = answer.left_out
    assert (left_out.reason, left_out.count) == ("no version number", 9)
    assert left_out.names == ("x" * 128,) * 5


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff{}",
        b"[]",
        json.dumps(packument()).encode() + b"x",
        b'{"name":"demo"}',
        b'{"name":"other","versions":{}}',
        b'{"name":"demo","versions":[]}',
        b'{"name":"demo","versions":{"1.0.0":NaN}}',
        b'{"name":"demo","versions":{"1.0.0":' + b"[" * 100_000,
        b'{"name":"demo","versions":{' + b",".join(b'"%d":0' % number for number in range(100_001)) + b"}}",
    ],
    ids=lambda body: body[:32],
)
@pytest.mark.parametrize("path", ["/demo", "/demo/1.0.0", "/demo/-/demo-1.0.0.tgz"])
async def test_pages_that_cannot_be_used(body: bytes, path: str) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        await npm().answer(Ask(path=path), FakeSource(body))
    assert (failed.value.status, failed.value.rule) == (502, "invalid index")


async def test_an_unpublished_package_is_missing() -> None:
    page = {"_id": "demo", "name": "demo", "time": {"unpublished": {"name": "x"}}}
    answer = await npm().answer(Ask(path="/demo"), FakeSource(json.dumps(page).encode()))
    assert isinstance(answer, Missing)
    assert "removed" in answer.advice


async def test_a_tarball_is_held_against_its_strongest_digest() -> None:
    found = await tarball(packument())
    assert isinstance(found, Artefact)
    assert found.url == f"{ORIGIN}/demo/-/demo-1.0.0.tgz"
    assert found.digest == Digest(algorithm="sha512", hex=SHA512.hexdigest())
    page = packument()
    page["versions"]["1.0.0"] = with_dist(integrity=f"sha1-x {INTEGRITY}")
    assert await tarball(page) == found
    del page["versions"]["1.0.0"]["dist"]["integrity"]
    old = await tarball(page)
    assert isinstance(old, Artefact)
    assert old.digest == Digest(algorithm="sha1", hex=SHA1)


async def test_a_tarball_of_an_unusual_name_is_found_by_both_names() -> None:
    page = packument(versions=("1.0.0-beta", "1.0.0+b"))
    page["versions"]["1.0.0-beta"]["dist"]["tarball"] = f"{ORIGIN}/demo/-/demo-1.0.0beta.tgz"
    body, _ = await document(page)
    assert body["versions"]["1.0.0-beta"]["dist"]["tarball"] == f"{BASE}/demo/-/demo-1.0.0-beta.tgz"
    assert body["versions"]["1.0.0+b"]["dist"]["tarball"] == f"{BASE}/demo/-/demo-1.0.0%2Bb.tgz"
    for file, stored in [
        ("demo-1.0.0-beta.tgz", "demo-1.0.0beta.tgz"),
        ("demo-1.0.0beta.tgz", "demo-1.0.0beta.tgz"),
        ("demo-1.0.0%2bb.tgz", "demo-1.0.0%2Bb.tgz"),
    ]:
        found = await tarball(page, f"/demo/-/{file}")
        assert isinstance(found, Artefact)
        assert found.url == f"{ORIGIN}/demo/-/{stored}"


async def test_a_tarball_that_the_packument_does_not_name_is_missing() -> None:
    assert await tarball(packument(), "/demo/-/demo-6.6.6.tgz") == Missing(
        rule="npm tarball", advice="npm's page of demo names no file demo-6.6.6.tgz."
    )


async def test_a_changed_page_is_read_again_for_a_tarball() -> None:
    door, source = npm(), FakeSource(json.dumps(packument()).encode())
    ask = Ask(path="/demo/-/demo-2.0.0.tgz")
    assert isinstance(await door.answer(ask, source), Missing)
    source.body = json.dumps(packument(versions=("1.0.0", "2.0.0"))).encode()
    assert isinstance(await door.answer(ask, source), Artefact)


def test_the_memory_forgets_the_least_recently_used() -> None:
    reader, memory = PackumentReader(origin=ORIGIN, base=BASE), PackumentMemory(max_releases=4)
    pages = {name: json.dumps(packument(name)).encode() for name in ("a", "b", "c")}
    for name in ("a", "b"):
        memory.put(pages[name], reader.read(pages[name], name=name, form="releases"))
    assert memory.get("a", pages["a"]) is not None
    assert memory.get("a", pages["b"]) is None
    memory.put(pages["c"], reader.read(pages["c"], name="c", form="releases"))
    assert [memory.get(name, page) is not None for name, page in pages.items()] == [True, False, True]


DENY_ALL = FakeRules(denied=frozenset({"demo"}))
DENY_NEWEST = FakeRules(denied=frozenset({"demo@2.0.0"}))
EVERY_PATH = ["/demo", "/demo/2.0.0", "/demo/latest", "/-/package/demo/dist-tags", "/demo/-/demo-2.0.0.tgz"]


@pytest.mark.parametrize("path", EVERY_PATH)
async def test_a_refused_package_is_refused_at_every_path_before_anything_is_asked(path: str) -> None:
    source = FakeSource(None)
    with pytest.raises(Refused) as refused:
        await npm(DENY_ALL).answer(Ask(path=path), source)
    assert (refused.value.status, refused.value.rule) == (403, "policy: deny")
    assert "demo" in refused.value.advice
    assert source.asked == []


@pytest.mark.parametrize("accept", [NPMS_OWN, "application/json"])
async def test_a_refused_version_is_nowhere_in_the_packument(accept: str) -> None:
    page = packument(versions=("1.0.0", "1.1.0-rc.1", "2.0.0"))
    page["dist-tags"] |= {"next": "2.0.0", "rc": "1.1.0-rc.1"}
    body, answer = await document(page, accept=accept, rules=DENY_NEWEST)
    assert set(body["versions"]) == {"1.0.0", "1.1.0-rc.1"}
    assert body["dist-tags"] == {"latest": "1.0.0", "rc": "1.1.0-rc.1"}
    assert "2.0.0" not in answer.body.decode()
    assert answer.left_out == (LeftOut(reason="policy: deny", count=1, names=("2.0.0",)),)


@pytest.mark.parametrize("path", ["/demo/2.0.0", "/demo/-/demo-2.0.0.tgz"])
async def test_a_refused_version_cannot_be_reached_by_a_known_path(path: str) -> None:
    page = packument(versions=("1.0.0", "2.0.0"))
    with pytest.raises(Refused) as refused:
        await npm(DENY_NEWEST).answer(Ask(path=path), FakeSource(json.dumps(page).encode()))
    assert (refused.value.status, refused.value.rule) == (403, "policy: deny")


async def test_a_refused_version_cannot_be_reached_by_the_registrys_own_file_name() -> None:
    page = packument(versions=("1.0.0", "2.0.0"))
    page["versions"]["2.0.0"]["dist"]["tarball"] = f"{ORIGIN}/demo/-/demo-2.tgz"
    with pytest.raises(Refused):
        await tarball(page, "/demo/-/demo-2.tgz", rules=DENY_NEWEST)


async def test_tags_lead_around_a_refused_version() -> None:
    page = packument(versions=("1.0.0", "2.0.0"))
    body, _ = await document(page, "/-/package/demo/dist-tags", rules=DENY_NEWEST)
    assert body == {"latest": "1.0.0"}
    body, answer = await document(page, "/demo/latest", rules=DENY_NEWEST)
    assert (body["version"], answer.rule) == ("1.0.0", "npm manifest")


async def test_young_releases_wait() -> None:
    page = packument(versions=("1.0.0", "1.0.1", "1.0.2", "1.0.3"))
    page["time"] |= {"1.0.2": "2026-01-03T00:00:00", "1.0.3": "soon"}
    rules = FakeRules(before=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))
    body, answer = await document(page, rules=rules)
    assert set(body["versions"]) == {"1.0.0"}
    assert answer.left_out == (LeftOut(reason="policy: too new", count=3, names=("1.0.1", "1.0.2", "1.0.3")),)
    assert isinstance(await tarball(page, rules=rules), Artefact)
    with pytest.raises(Refused, match="policy: too new"):
        await tarball(page, "/demo/-/demo-1.0.1.tgz", rules=rules)


async def test_a_package_without_a_permitted_version_says_why() -> None:
    with pytest.raises(Refused, match="403 policy: deny"):
        await document(packument(versions=("2.0.0",)), rules=DENY_NEWEST)


async def test_a_version_or_tag_that_is_not_there_is_missing() -> None:
    for version in ("6.6.6", "next"):
        answer = await npm().answer(Ask(path=f"/demo/{version}"), FakeSource(json.dumps(packument()).encode()))
        assert answer == Missing(rule="npm manifest", advice=f"npm has no demo@{version}.")


@pytest.mark.parametrize(
    ("versions", "before", "expected"),
    [
        (("1.9.0", "1.10.0", "1.10.1-rc.1"), "1.11.0", "1.10.0"),
        (("4.9.0", "5.0.0"), "4.9.1", "4.9.0"),
        (("5.0.0", "6.0.0"), "4.9.1", "6.0.0"),
        (("1.0.0", "2.0.0"), None, "2.0.0"),
        (("1.0.0", "2.0.0"), "no version", "2.0.0"),
        (("1.0.0beta", "1.0.0-rc.1"), None, None),
        ((), "1.0.0", None),
    ],
)
def test_the_newest_release(versions: tuple[str, ...], before: str | None, expected: str | None) -> None:
    assert newest(versions, before=before) == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (NPMS_OWN, True),
        (ABBREVIATED.upper(), True),
        ("application/json", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_the_abbreviated_form_is_for_those_who_name_it(accept: str, *, expected: bool) -> None:
    assert wants_abbreviated(accept) is expected
