"""Any path at all, at every door of the mirror: accepted implies that it leads to the exact set, by a plain path.

In this process, so that there are thousands of them: what the attacks do in sandboxes, at the ecosystems themselves.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services.executor.egress.ecosystems.catalogue import branches
from services.executor.egress.ecosystems.no_rules import NO_RULES
from services.executor.egress.ecosystems.port import Answer, Artefact, Ask, Document, Fetched, Page, Source
from services.executor.egress.mirror import Branch
from services.executor.egress.policy import is_host_name
from services.executor.egress.registries import Origin, Registries, Registry
from services.executor.egress.verdicts import TurnedAway

from .frame import Setting, attack


def registry(*roles: str) -> Registry:
    origins = {role: Origin(url=f"https://{role}.example.org", host=f"{role}.example.org") for role in roles}
    return Registry(origins=origins, redirects=("https://bucket.example.org/ours/",))


REGISTRIES: Final = Registries(
    pypi=registry("index", "files"), npm=registry("registry"), go=registry("proxy", "sumdb"), maven=registry("central")
)
DIGEST: Final = "0123456789abcdef" * 4
STORED: Final = f"packages/aa/bb/{'c' * 60}/demo-1.0.tar.gz"
# What the paths of each door are made of, and then what no path should be made of.
PIECES: Final = {
    "pypi": ["/simple/", "demo", "/", f"/files/{DIGEST}/-/", f"/files/{DIGEST}/{DIGEST}/",
             STORED, ".metadata", "packages/"],
    "npm": ["/", "demo", "@scope", "%2f", "/-/", "demo-1.0.0.tgz", "/-/package/", "/dist-tags", "1.0.0", "latest"],
    "go": ["/example.org/m", "/@v/", "list", "/@latest", "v1.0.0", ".info", ".mod", ".zip", "!a",
           "/sumdb/sumdb.example.org/", "lookup/example.org/m@v1.0.0", "tile/8/0/001", "latest", "supported"],
    "maven": ["/org/demo/demo/1.0/", "demo-1.0", ".jar", ".pom", ".sha1", "/maven-metadata.xml",
              "/org", "-SNAPSHOT", ".asc"],
}  # fmt: skip  # a row for each door
# Paths that there are; of npm's files those too that its page names with evil intent.
WHOLE: Final = {
    "pypi": ["/simple/demo/", f"/files/{DIGEST}/-/{STORED}", f"/files/{DIGEST}/{DIGEST}/{STORED}.metadata"],
    "npm": ["/demo", "/@scope/demo", "/demo/1.0.0", "/demo/-/demo-1.0.0.tgz", "/demo/-/../evil.tgz",
             "/-/package/demo/dist-tags"],
    "go": ["/example.org/m/@v/list", "/example.org/m/@v/v1.0.0.zip",
             "/sumdb/sumdb.example.org/lookup/example.org/m@v1.0.0"],
    "maven": ["/org/demo/demo/1.0/demo-1.0.jar", "/org/demo/demo/maven-metadata.xml",
             "/org/demo/demo/1.0/demo-1.0.pom.sha1"],
}  # fmt: skip  # a row for each door
TRICKS: Final = [
    "..", ".", "/", "//", "\\", "%2e", "%2E%2e", "%2f", "%5c", "%00", "\x00", "%", "%25", "%252e", "%0d%0a", "\r\n",
    "\n", " ", "\t",
    "?", "#", "@", ":", ";", "http://evil.example", "//evil.example", "evil.example", "@evil.example", "é", "‥",
    "\uff0e",
    "%c0%ae", "~",
    "*", "+", "%2B", "!", "'", "(", "A", "-", "_", "-rev", "[", "]", "{", "|", "^", "`", '"', "<", ">",
]  # fmt: skip  # a list of tricks reads best close together
LINKS: Final = [
    "https://evil.example/demo/-/demo-1.0.0.tgz", "https://registry.example.org/demo/-/demo-1.0.0.tgz",
    "https://registry.example.org@evil.example/demo/-/demo-1.0.0.tgz", "//evil.example/demo/-/demo-1.0.0.tgz",
    "https://registry.example.org.evil.example/demo/-/demo-1.0.0.tgz", f"https://files.example.org/{STORED}",
    "https://registry.example.org/demo/-/../../evil.tgz",
             "https://registry.example.org/demo/-/%2e%2e/evil.tgz", f"https://files.example.org/../{STORED}",
    f"https://evil.example/{STORED}",
    f"https://files.example.org@evil.example/{STORED}", "https://registry.example.org/demo/-/%2e%2e%2fevil.tgz",
    f"http://files.example.org/{STORED}", "https://registry.example.org:8443/demo/-/demo-1.0.0.tgz",
]  # fmt: skip  # as above
# Of a path that no server can read in two ways.
PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_!@~-](?:[A-Za-z0-9._!@~+-]|%2f|%2B)*)+/?")
URLS: Final = re.compile(rb"(?:https?:)?//[^\s\"'<>\\]+")


@dataclass
class Counting:
    """A registry that has every page; its links lead where `link` says. `urls` are all that was asked for."""

    link: str
    urls: list[str] = field(default_factory=list)

    async def page(self, page: Page) -> Fetched | None:
        self.urls.append(page.url)
        return Fetched(body=self._body(page.url))

    def _body(self, url: str) -> bytes:
        host = split(url).netloc
        name = unquote(split(url).path[1:])
        if host == "registry.example.org":
            dist = {"tarball": self.link, "integrity": "", "shasum": "a" * 40}
            version = {"name": name, "version": "1.0.0", "dist": dist}
            return json.dumps({"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}).encode()
        if host == "index.example.org":
            file = {"filename": "demo-1.0.tar.gz", "url": self.link, "hashes": {"sha256": DIGEST}}
            page = {
                "meta": {"api-version": "1.1"},
                "name": name.removeprefix("simple/").rstrip("/"),
                "versions": ["1.0"],
                "files": [file],
            }
            return json.dumps(page).encode()
        if host == "proxy.example.org":
            return json.dumps({"Version": "v1.0.0", "Time": "2026-01-01T00:00:00Z"}).encode()
        return b"a" * 40


class Pasting:
    """A door that puts the path behind the registry's name, and passes pages on as they are."""

    def __init__(self, branch: Branch) -> None:
        self.prefix = branch.ecosystem.prefix
        self._origin = next(iter(branch.registry.origins.values())).url

    async def answer(self, ask: Ask, source: Source) -> Answer:
        page = await source.page(Page(url=f"{self._origin}{ask.path}"))
        assert page is not None
        return Document(body=page.body, content_type="", rule="")


def broken_laws(branch: Branch, path: str, link: str) -> list[str]:
    """What one question brought about that it must not."""
    source = Counting(link=link)
    try:
        answer = asyncio.run(branch.ecosystem.answer(Ask(path=path), source))
    except TurnedAway:
        return [url for url in source.urls if not is_lawful(branch.registry, url)]
    urls = [*source.urls, *([answer.url] if isinstance(answer, Artefact) else [])]
    broken = [url for url in urls if not is_lawful(branch.registry, url)]
    if isinstance(answer, Document):
        links = [found.decode() for found in URLS.findall(answer.body)]
        broken += [found for found in links if not found.startswith("http://127.0.0.1:7480/npm/")]
    return broken


def is_lawful(registry: Registry, url: str) -> bool:
    parts = split(url)
    origins = {origin.url for origin in registry.origins.values()}
    return (
        f"{parts.scheme}://{parts.netloc}" in origins
        and registry.owns(url)
        and not parts.query
        and not parts.fragment
        and PLAIN.fullmatch(parts.path) is not None
        and not {".", ".."} & set(unquote(unquote(parts.path)).split("/"))
    )


def split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", url, "", "")


def bend(path: str, place: int, trick: str) -> str:
    """A path of the door's with one part replaced, or with something before one."""
    parts = path.split("/")
    at = 1 + place // 2 % (len(parts) - 1)
    parts[at] = trick if place % 2 else trick + parts[at]
    return "/".join(parts)


def counterexample(branch: Branch) -> list[str]:
    """The smallest question that breaks the law, if there is one; and there were questions that were accepted."""
    pieces = PIECES[branch.ecosystem.prefix]
    found: list[list[str]] = []
    whole = st.builds(
        bend, st.sampled_from(WHOLE[branch.ecosystem.prefix]), st.integers(0, 19), st.sampled_from(TRICKS)
    )
    paths = whole | st.lists(st.sampled_from([*pieces * 4, *TRICKS]) | st.text(max_size=3), min_size=1, max_size=7).map(
        "".join
    )

    @settings(
        max_examples=400,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(path=paths, link=st.sampled_from(LINKS))
    def ask(path: str, link: str) -> None:
        broken = broken_laws(branch, path, link)
        if broken:
            found.append([path, link, *broken])
        assert not broken

    try:
        ask()
    except AssertionError:
        return found[-1]
    return []


DOORS: Final = {branch.ecosystem.prefix: branch for branch in branches(REGISTRIES, lambda _name: NO_RULES)}


@pytest.mark.parametrize("door", list(DOORS))
@attack(weakened="a path is pasted to the registry's name")
def test_find_a_path_that_leads_out_of_a_registry(setting: Setting, door: str) -> list[str]:
    branch = DOORS[door]
    return counterexample(branch if setting is Setting.SHIPPED else replace(branch, ecosystem=Pasting(branch)))


@dataclass(frozen=True, kw_only=True)
class Prefixed(Registry):
    """Follows what begins like an origin."""

    def follows(self, url: str) -> bool:
        return url.lower().startswith((*(origin.url for origin in self.origins.values()), *self.redirects))


@attack(weakened="a redirect need only begin like an origin")
def test_find_a_redirect_that_leads_out_of_a_registry(setting: Setting) -> list[str]:
    shipped = REGISTRIES.go
    judge = shipped if setting is Setting.SHIPPED else Prefixed(origins=shipped.origins, redirects=shipped.redirects)
    starts = [
        *(origin.url for origin in shipped.origins.values()),
        *shipped.redirects,
        "http://proxy.example.org",
        "https:/",
        "//",
    ]
    found: list[str] = []

    @settings(max_examples=800, deadline=None, database=None, derandomize=True)
    @given(
        start=st.sampled_from(starts),
        rest=st.lists(st.sampled_from([*TRICKS, "/m/@v/", "ours", ".evil.example"]), max_size=5),
    )
    def ask(start: str, rest: list[str]) -> None:
        url = start + "".join(rest)
        if judge.follows(url) and not leads_in(shipped, url):
            found.append(url)

    ask()
    return found[:3]


def leads_in(registry: Registry, url: str) -> bool:
    parts = split(url)
    place = f"{parts.scheme}://{parts.netloc}"
    path = unquote(unquote(parts.path)).replace("\\", "/")
    below = place == "https://bucket.example.org" and path.startswith("/ours/")
    at = place in {origin.url for origin in registry.origins.values()}
    climbs = {".", ".."} & set(parts.path.split("/")) or (below and {".", ".."} & set(path.split("/")))
    return (at or below) and not climbs and url.isascii() and url.isprintable() and " " not in url


@attack(weakened="a host is found by a search")
def test_find_a_spelling_that_passes_for_a_host(setting: Setting) -> list[str]:
    pieces = [
        *TRICKS,
        "plugins",
        "example",
        "org",
        ".",
        "127",
        "0x7f",
        "0",
        "::1",
        "[",
        "443",
        "xn--",
        "ª",
        "\u017f",
        "K",
    ]
    found: list[str] = []

    @settings(max_examples=800, deadline=None, database=None, derandomize=True)
    @given(pieces=st.lists(st.sampled_from(pieces), min_size=1, max_size=6))
    def ask(pieces: list[str]) -> None:
        text = "".join(pieces)
        accepted = (
            is_host_name(text) if setting is Setting.SHIPPED else re.search(r"[a-z0-9-]+\.[a-z]+", text) is not None
        )
        plain = re.fullmatch(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+", text) and not text.rpartition(".")[2].isdigit()
        if accepted and (not plain or text.rpartition(".")[2].startswith("0x")):
            found.append(text)

    ask()
    return found[:3]
