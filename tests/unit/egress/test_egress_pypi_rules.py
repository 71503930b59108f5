"""PyPI under an operator's rules: neither the index nor a known URL leads to what they refuse."""

import datetime
import json
from collections.abc import Sequence

import pytest
from packaging.version import Version

from services.executor.egress.ecosystems.no_rules import NO_RULES
from services.executor.egress.ecosystems.port import (
    Artefact,
    Ask,
    Document,
    Fetched,
    LeftOut,
    Missing,
    PackageRules,
    Page,
)
from services.executor.egress.ecosystems.pypi import Pypi
from services.executor.egress.ecosystems.pypi_rules import release_version, releases
from services.executor.egress.registries import Origin, Registry
from services.executor.egress.verdicts import Refused

REGISTRY = Registry(
    origins={
        "index": Origin(url="https://index.example.org", host="index.example.org"),
        "files": Origin(url="https://files.example.org", host="files.example.org"),
    },
    redirects=(),
)
SHA = "a" * 64
META = "b" * 64
OLD = "2020-01-01T00:00:00.5Z"
NEW = "2026-11-01T00:00:00Z"
LIMIT = datetime.datetime(2026, 10, 1, tzinfo=datetime.UTC)


class Rules:
    """Refuses the project `evil`, version 2.0 of `demo`, and what is new or of unknown age."""

    needs_release_times = True

    def refusal(self, name: str, version: str | None, released: datetime.datetime | None) -> str | None:
        if name == "evil":
            return "deny"
        if (name, version) == ("demo", "2.0"):
            return "deny"
        if version is not None and (released is None or released > LIMIT):
            return "younger than 7 days"
        return None


class Shop:
    """A `Source` with one page per project, made of (file name, upload time)."""

    def __init__(self, **projects: Sequence[tuple[str, str | None]]) -> None:
        self.projects = projects
        self.asked: list[Page] = []

    async def page(self, page: Page) -> Fetched | None:
        self.asked.append(page)
        name = page.url.removesuffix("/").rpartition("/")[2]
        if name not in self.projects:
            return None
        files = [
            {"filename": file, "url": f"https://files.example.org/{stored(file)}", "hashes": {"sha256": SHA},
             "core-metadata": {"sha256": META}, "upload-time": time}
            for file, time in self.projects[name]
        ]  # fmt: skip
        versions = ["1.0", "2.0", "3.0", "nonsense"]
        return Fetched(body=json.dumps({"name": name, "versions": versions, "files": files}).encode())


DEMO = [
    ("demo-1.0.tar.gz", OLD), ("demo-1.0-py3-none-any.whl", OLD), ("demo-2.0-py3-none-any.whl", OLD),
    ("demo-3.0-py3-none-any.whl", NEW), ("demo-4.0.tar.gz", None), ("demo-5.0.tar.gz", "yesterday"),
    ("demo-6.0.tar.gz", "2020-01-01T00:00:00"), ("demo-1.0-py2.7.egg", OLD),
]  # fmt: skip


def stored(filename: str) -> str:
    return f"packages/01/23/{'4' * 60}/{filename}"


def path_of(filename: str) -> str:
    return f"/files/{SHA}/{META}/{stored(filename)}"


def pypi(rules: PackageRules = NO_RULES) -> Pypi:
    return Pypi(registry=REGISTRY, rules=rules)


async def test_the_index_has_only_what_is_allowed() -> None:
    answer = await pypi(Rules()).answer(Ask(path="/simple/Demo/"), Shop(demo=DEMO))
    assert isinstance(answer, Document)
    page = json.loads(answer.body)
    assert [file["filename"] for file in page["files"]] == ["demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl"]
    assert page["versions"] == ["1.0"]
    assert answer.left_out == (
        LeftOut(reason="policy: deny", count=1, names=("demo-2.0-py3-none-any.whl",)),
        LeftOut(reason="policy: no version in the file name", count=1, names=("demo-1.0-py2.7.egg",)),
        LeftOut(
            reason="policy: younger than 7 days", count=4,
            names=("demo-3.0-py3-none-any.whl", "demo-4.0.tar.gz", "demo-5.0.tar.gz", "demo-6.0.tar.gz"),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("filename", "rule"),
    [
        ("demo-2.0-py3-none-any.whl", "policy: deny"),
        ("demo-3.0-py3-none-any.whl", "policy: younger than 7 days"),
        ("demo-4.0.tar.gz", "policy: younger than 7 days"),
        ("demo-7.0.tar.gz", "policy: not in the index"),
        ("demo-1.0-py2.7.egg", "policy: not in the index"),
        ("evil-1.0.tar.gz", "policy: deny"),
        ("evil-1.0-2.tar.gz", "policy: deny"),
        ("unknown-1.0.tar.gz", "policy: not in the index"),
        ("nothing", "policy: not in the index"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".metadata"])
async def test_a_known_url_is_no_way_around_the_rules(filename: str, rule: str, suffix: str) -> None:
    shop = Shop(demo=DEMO, evil=[("evil-1.0.tar.gz", OLD), ("evil-1.0-2.tar.gz", OLD)])
    with pytest.raises(Refused) as refused:
        await pypi(Rules()).answer(Ask(path=path_of(filename) + suffix), shop)
    assert (refused.value.status, refused.value.rule) == (403, rule)


async def test_another_directory_does_not_make_it_another_file() -> None:
    path = path_of("demo-1.0.tar.gz").replace("packages/01", "packages/02")
    with pytest.raises(Refused, match="policy: not in the index"):
        await pypi(Rules()).answer(Ask(path=path), Shop(demo=DEMO))


@pytest.mark.parametrize("filename", ["demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl"])
async def test_what_is_allowed_is_served(filename: str) -> None:
    for suffix, digest in (("", SHA), (".metadata", META)):
        answer = await pypi(Rules()).answer(Ask(path=path_of(filename) + suffix), Shop(demo=DEMO))
        assert isinstance(answer, Artefact)
        assert answer.url == f"https://files.example.org/{stored(filename)}{suffix}"
        assert answer.digest is not None
        assert (answer.digest.algorithm, answer.digest.hex) == ("sha256", digest)


async def test_a_refused_project_is_not_even_asked_for() -> None:
    shop = Shop(evil=[("evil-1.0.tar.gz", OLD)])
    with pytest.raises(Refused) as refused:
        await pypi(Rules()).answer(Ask(path="/simple/Evil/"), shop)
    assert (refused.value.status, refused.value.rule) == (403, "policy: deny")
    assert "deny" in refused.value.advice
    assert shop.asked == []


async def test_without_rules_a_file_costs_no_page() -> None:
    shop = Shop(demo=DEMO)
    assert isinstance(await pypi().answer(Ask(path=path_of("demo-3.0-py3-none-any.whl")), shop), Artefact)
    assert shop.asked == []
    answer = await pypi().answer(Ask(path="/simple/demo/"), shop)
    assert isinstance(answer, Document)
    assert len(json.loads(answer.body)["files"]) == len(DEMO)
    assert isinstance(await pypi().answer(Ask(path="/simple/none/"), shop), Missing)


@pytest.mark.parametrize(
    ("filename", "name", "version"),
    [
        ("Demo_Project-1.0-py3-none-any.whl", "demo-project", "1.0"),
        ("demo_project-1.0-1-py3-none-any.whl", "demo-project", "1.0"),
        ("demo-project-1.0.tar.gz", "demo-project", "1.0"),
        ("demo-1.0-2.tar.gz", "demo", "1.0.post2"),
        ("demo-1.0-2.tar.gz", "demo-1-0", "2"),
        ("demo-1!1.0+x.zip", "demo", "1!1.0+x"),
        ("demo-1.0.tar.bz2", "demo", "1.0"),
        ("demo-1.0.tar.gz", "other", None),
        ("demo-1.0.exe", "demo", None),
        ("demo.tar.gz", "demo", None),
    ],
)
def test_versions_in_file_names(filename: str, name: str, version: str | None) -> None:
    assert release_version(filename, name) == (None if version is None else Version(version))


def test_a_file_name_that_can_stand_for_two_projects() -> None:
    assert [name for name, _ in releases("demo-1.0-2.tar.gz")] == ["demo-1-0", "demo"]
