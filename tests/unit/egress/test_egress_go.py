import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.egress.ecosystems.go import GoModules
from services.executor.egress.ecosystems.port import Answer, Artefact, Ask, Document, LeftOut, Missing
from services.executor.egress.ecosystems.releases import MAX_LOOKUPS
from services.executor.egress.verdicts import Refused, TurnedAway, UpstreamFailed

from .fake_source import DATABASE, GO, NO_RULES, NORMALISED_URL, PROXY, FakeRules, FakeSource

A = f"{PROXY}/example.com/a"
SUMDB = "/sumdb/sum.example"
NEW_YEAR = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def info(version: str, time: str = "2025-06-01T12:00:00Z") -> bytes:
    return json.dumps({"Version": version, "Time": time}).encode()


async def ask(path: str, source: FakeSource, rules: FakeRules = NO_RULES) -> Answer:
    return await GoModules(registry=GO, rules=rules).answer(Ask(path=path), source)


async def body(path: str, source: FakeSource, rules: FakeRules = NO_RULES) -> bytes:
    answer = await ask(path, source, rules)
    assert isinstance(answer, Document), answer
    return answer.body


async def test_the_pages_of_a_module() -> None:
    source = FakeSource(
        pages={
            f"{A}/@v/list": b"v1.0.0\nv1.1.0 2025-01-01T00:00:00Z\n\nv0.9.0",
            f"{A}/@latest": info("v1.1.0"),
            f"{A}/@v/v1.0.0.info": info("v1.0.0"),
            f"{A}/@v/v1.0.0.mod": b"module example.com/a\n",
        }
    )
    assert await body("/example.com/a/@v/list", source) == b"v1.0.0\nv1.1.0\nv0.9.0\n"
    assert await body("/example.com/a/@latest", source) == info("v1.1.0")
    assert await body("/example.com/a/@v/v1.0.0.info", source) == info("v1.0.0")
    assert await body("/example.com/a/@v/v1.0.0.mod", source) == b"module example.com/a\n"
    assert [page.immutable for page in source.asked] == [False, False, True, True]


async def test_a_zip_is_streamed() -> None:
    source = FakeSource()
    answer = await ask("/github.com/!burnt!sushi/toml/@v/v1.0.0-!r!c1.zip", source)
    assert isinstance(answer, Artefact)
    assert answer.url == f"{PROXY}/github.com/!burnt!sushi/toml/@v/v1.0.0-!r!c1.zip"
    assert answer.headers == {"Disable-Module-Fetch": "true"}
    assert source.asked == []


EVERY_FORM = ["@v/list", "@latest", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip"]


@pytest.mark.parametrize("form", EVERY_FORM)
async def test_a_module_of_an_attackers_host_is_never_fetched_by_the_proxy(form: str) -> None:
    source = FakeSource()
    answer = await ask(f"/evil.example/secret-as-a-path/{form}", source)
    headers = [page.headers for page in source.asked]
    if isinstance(answer, Artefact):
        headers.append(answer.headers)
    assert headers == [{"Disable-Module-Fetch": "true"}]


async def test_a_lookup_of_a_version_that_the_proxy_does_not_hold_goes_nowhere() -> None:
    source = FakeSource()
    answer = await ask(f"{SUMDB}/lookup/evil.example/secret@v1.0.0", source)
    assert isinstance(answer, Missing)
    assert "does not hold evil.example/secret v1.0.0" in answer.advice
    assert [(page.url, dict(page.headers)) for page in source.asked] == [
        (f"{PROXY}/evil.example/secret/@v/v1.0.0.mod", {"Disable-Module-Fetch": "true"})
    ]


async def test_a_lookup_of_a_version_that_the_proxy_holds_is_asked_below_the_proxy() -> None:
    source = FakeSource(
        pages={
            f"{A}/@v/v1.0.0.mod": b"module example.com/a\n",
            f"{PROXY}{SUMDB}/lookup/example.com/a@v1.0.0": b"1\nexample.com/a v1.0.0 h1:x\n",
        }
    )
    assert await body(f"{SUMDB}/lookup/example.com/a@v1.0.0", source) == b"1\nexample.com/a v1.0.0 h1:x\n"
    assert not any(url.startswith(DATABASE) for url in source.urls)


@pytest.mark.parametrize(
    ("path", "immutable"), [("latest", False), ("tile/8/0/000", True), ("lookup/example.com/a@v1.0.0", True)]
)
async def test_the_databases_own_origin_is_asked_only_where_the_proxy_has_nothing(
    path: str, *, immutable: bool
) -> None:
    source = FakeSource(pages={f"{A}/@v/v1.0.0.mod": b"module example.com/a\n", f"{DATABASE}/{path}": b"tree"})
    assert await body(f"{SUMDB}/{path}", source) == b"tree"
    below, own = source.asked[-2:]
    assert (below.url, own.url) == (f"{PROXY}{SUMDB}/{path}", f"{DATABASE}/{path}")
    assert below.immutable is own.immutable is immutable
    assert dict(own.headers) == {}


async def test_a_proxy_that_fails_is_not_gone_around() -> None:
    failure = UpstreamFailed(status=502, rule="registry error", advice="")
    source = FakeSource(broken={f"{PROXY}{SUMDB}/latest": failure}, pages={f"{DATABASE}/latest": b"tree"})
    with pytest.raises(UpstreamFailed):
        await ask(f"{SUMDB}/latest", source)


async def test_the_database_is_always_supported() -> None:
    assert await body(f"{SUMDB}/supported", FakeSource()) == b""


@pytest.mark.parametrize("form", ["@v/list", "@latest", "@v/v1.0.0.info", "@v/v1.0.0.mod"])
async def test_what_is_not_there_is_missing_with_advice(form: str) -> None:
    answer = await ask(f"/example.com/a/{form}", FakeSource())
    assert isinstance(answer, Missing)
    assert "example.com/a" in answer.advice


async def test_a_path_that_the_protocol_does_not_have_is_refused_and_nobody_is_asked() -> None:
    source = FakeSource()
    with pytest.raises(Refused) as refused:
        await ask("/example.com/a/@v/master.info", source)
    assert (refused.value.status, refused.value.rule) == (404, "no such path")
    assert "branches" in refused.value.advice
    assert source.asked == []


@pytest.mark.parametrize("page", [b"", b"[]", b"{}", b'{"Version": 1}', b'{"Version": "v9.9.9"}', b"[" * 100_000])
async def test_an_info_of_another_version_or_form_is_not_passed_on(page: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        await ask("/example.com/a/@v/v1.0.0.info", FakeSource(pages={f"{A}/@v/v1.0.0.info": page}))


async def test_lines_of_a_list_that_are_no_versions_are_left_out_and_told() -> None:
    source = FakeSource(pages={f"{A}/@v/list": b"v1.0.0\n../../evil\nv1.0.0\nmaster\n"})
    answer = await ask("/example.com/a/@v/list", source)
    assert isinstance(answer, Document)
    assert answer.body == b"v1.0.0\n"
    assert answer.left_out == (LeftOut(reason="no version of Go's form", count=2, names=("../../evil", "master")),)


@pytest.mark.parametrize("form", [*EVERY_FORM, "lookup"])
async def test_a_denied_module_is_refused_everywhere_and_nobody_is_asked(form: str) -> None:
    source = FakeSource()
    path = f"{SUMDB}/lookup/example.com/a@v1.0.0" if form == "lookup" else f"/example.com/a/{form}"
    with pytest.raises(Refused) as refused:
        await ask(path, source, FakeRules(packages=frozenset({"example.com/a"})))
    assert (refused.value.status, refused.value.rule) == (403, "policy: example.com/a: denied")
    assert source.asked == []


DENIED = FakeRules(releases=frozenset({("example.com/a", "v1.1.0")}))
YOUNG = FakeRules(before=NEW_YEAR)
RELEASES = FakeSource(
    pages={
        f"{A}/@v/list": b"v1.0.0\nv1.1.0\n",
        f"{A}/@latest": info("v1.1.0", "2026-06-01T00:00:00Z"),
        f"{A}/@v/v1.0.0.info": info("v1.0.0"),
        f"{A}/@v/v1.1.0.info": info("v1.1.0", "2026-06-01T00:00:00Z"),
        f"{A}/@v/v1.2.0.info": info("v1.2.0", "yesterday"),
        f"{A}/@v/v1.3.0.info": info("v1.3.0", "2020-01-01T00:00:00"),
    }
)


@pytest.mark.parametrize(("rules", "why"), [(DENIED, "denied"), (YOUNG, "too young")])
@pytest.mark.parametrize("form", ["@latest", "@v/v1.1.0.info", "@v/v1.1.0.mod", "@v/v1.1.0.zip", "lookup"])
async def test_a_refused_version_is_refused_in_every_form(form: str, rules: FakeRules, why: str) -> None:
    path = f"{SUMDB}/lookup/example.com/a@v1.1.0" if form == "lookup" else f"/example.com/a/{form}"
    with pytest.raises(Refused) as refused:
        await ask(path, RELEASES, rules)
    assert (refused.value.status, refused.value.rule) == (403, f"policy: example.com/a: {why}")
    assert f"refuse example.com/a v1.1.0: {why}." in refused.value.advice


@pytest.mark.parametrize(("rules", "why"), [(DENIED, "denied"), (YOUNG, "too young")])
async def test_a_refused_version_is_left_out_of_the_list(rules: FakeRules, why: str) -> None:
    answer = await ask("/example.com/a/@v/list", RELEASES, rules)
    assert isinstance(answer, Document)
    assert answer.body == b"v1.0.0\n"
    assert answer.left_out == (LeftOut(reason=f"policy: example.com/a: {why}", count=1, names=("v1.1.0",)),)


@pytest.mark.parametrize("version", ["v1.2.0", "v1.3.0", "v1.4.0"])
async def test_a_release_whose_time_cannot_be_read_is_refused_where_ages_count(version: str) -> None:
    with pytest.raises(Refused, match=r"policy: example\.com/a: age unknown"):
        await ask(f"/example.com/a/@v/{version}.zip", RELEASES, YOUNG)


async def test_an_allowed_version_passes_where_ages_count() -> None:
    assert isinstance(await ask("/example.com/a/@v/v1.0.0.zip", RELEASES, YOUNG), Artefact)


async def test_only_the_newest_of_a_long_list_are_looked_up_a_few_at_a_time() -> None:
    versions = [f"v1.{minor}.0" for minor in range(MAX_LOOKUPS + 50)]
    pages = {f"{A}/@v/{version}.info": info(version) for version in versions}
    source = FakeSource(pages={f"{A}/@v/list": "\n".join(versions).encode(), **pages})
    answer = await ask("/example.com/a/@v/list", source, YOUNG)
    assert isinstance(answer, Document)
    assert answer.body.decode().split() == versions[50:]
    assert [(entry.count, entry.reason[:38]) for entry in answer.left_out] == [
        (50, "policy: example.com/a: age not looked ")
    ]
    assert len(source.asked) == 1 + MAX_LOOKUPS
    assert 1 < source.most_at_once <= 16


async def test_one_release_whose_age_cannot_be_had_does_not_spoil_the_list() -> None:
    failure = UpstreamFailed(status=502, rule="registry error", advice="")
    source = FakeSource(pages=RELEASES.pages, broken={f"{A}/@v/v1.1.0.info": failure})
    assert await body("/example.com/a/@v/list", source, YOUNG) == b"v1.0.0\n"
    everything = {f"{A}/@v/{version}.info": failure for version in ("v1.0.0", "v1.1.0")}
    with pytest.raises(UpstreamFailed):
        await ask("/example.com/a/@v/list", FakeSource(pages=RELEASES.pages, broken=everything), YOUNG)


VALID = [
    "/example.com/a/@v/list", "/github.com/!burnt!sushi/toml/@latest", "/example.com/a/@v/v1.0.0-!r!c1.zip",
    "/example.com/a/@v/v2.0.0+incompatible.info", f"{SUMDB}/lookup/example.com/a@v1.0.0", f"{SUMDB}/latest",
    f"{SUMDB}/tile/8/0/x001/000.p/7",
]  # fmt: skip  # three lines of paths read better than seven
TRICKS = [
    "..",
    "/..",
    "/../",
    "//",
    "@v",
    "/@v/list",
    "%2f",
    "%2e%2e/",
    "%21",
    "!a",
    "A",
    "\\",
    "?",
    "#",
    "\0",
    "\n",
    "@",
    ":",
]
tricks = st.one_of(st.just(""), st.sampled_from(TRICKS), st.text(alphabet="az019.!%@/~+-", max_size=6))


@given(path=st.sampled_from(VALID), at=st.integers(0, 50), length=st.integers(0, 3), trick=tricks)
async def test_accepted_implies_a_normalised_path_at_the_registrys_own_origin(
    path: str, at: int, length: int, trick: str
) -> None:
    source = FakeSource()
    urls: list[str] = []
    try:
        answer = await ask(path[:at] + trick + path[at + length :], source)
    except TurnedAway:
        assert source.asked == []
        return
    if isinstance(answer, Artefact):
        urls.append(answer.url)
    for url in [*urls, *source.urls]:
        assert url.startswith((f"{PROXY}/", f"{DATABASE}/"))
        assert NORMALISED_URL.fullmatch(url), url
