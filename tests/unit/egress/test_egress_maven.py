import datetime
import hashlib

import pytest

from services.executor.egress.ecosystems.maven import MavenCentral
from services.executor.egress.ecosystems.maven_metadata import InvalidMetadata, read_metadata
from services.executor.egress.ecosystems.port import Answer, Artefact, Ask, Digest, Document, Fetched, LeftOut, Missing
from services.executor.egress.ecosystems.releases import MAX_LOOKUPS
from services.executor.egress.verdicts import Refused, UpstreamFailed

from .fake_source import CENTRAL, MAVEN, NO_RULES, FakeRules, FakeSource

B = f"{CENTRAL}/maven2/org/example/b"
NEW_YEAR = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SHA1 = hashlib.sha1(b"jar").hexdigest()


def metadata(*versions: str, latest: str, release: str = "") -> bytes:
    listed = "".join(f"<version>{version}</version>" for version in versions)
    return (
        "<?xml version='1.0' encoding='UTF-8'?><!-- a comment --><metadata><groupId>org.example</groupId>"
        f"<artifactId>b</artifactId><versioning><latest>{latest}</latest><release>{release or latest}</release>"
        f"<versions>{listed}</versions><lastUpdated>20260701000000</lastUpdated></versioning></metadata>"
    ).encode()


def pom(year: int) -> Fetched:
    return Fetched(body=b"<project/>", last_modified=datetime.datetime(year, 6, 1, tzinfo=datetime.UTC))


PLUGINS = (
    b"<metadata><plugins><plugin><name>B &amp; co</name><prefix>b</prefix><artifactId>b-maven-plugin</artifactId>"
    b"</plugin><plugin><name>C</name><prefix>c</prefix><artifactId>c-maven-plugin</artifactId></plugin></plugins>"
    b"</metadata>"
)
PAGE = metadata("1.0", "1.1", "2.0", latest="2.0")
REGISTRY = FakeSource(
    pages={
        f"{B}/maven-metadata.xml": PAGE,
        f"{B}/1.0/b-1.0.pom": pom(2024),
        f"{B}/1.1/b-1.1.pom": pom(2025),
        f"{B}/2.0/b-2.0.pom": pom(2026),
        f"{B}/1.0/b-1.0.jar.sha1": SHA1.encode(),
        f"{B}/1.0/b-1.0.jar.asc": b"-----BEGIN PGP SIGNATURE-----",
        f"{CENTRAL}/maven2/org/example/maven-metadata.xml": PLUGINS,
    }
)


async def ask(path: str, source: FakeSource = REGISTRY, rules: FakeRules = NO_RULES) -> Answer:
    return await MavenCentral(registry=MAVEN, rules=rules).answer(Ask(path=path), source)


async def document(path: str, source: FakeSource = REGISTRY, rules: FakeRules = NO_RULES) -> Document:
    answer = await ask(path, source, rules)
    assert isinstance(answer, Document), answer
    return answer


async def test_an_index_comes_as_it_is_where_nothing_is_left_out() -> None:
    for path, page in (("/org/example/b", PAGE), ("/org/example", PLUGINS)):
        answer = await document(f"{path}/maven-metadata.xml")
        assert (answer.body, answer.left_out) == (page, ())


@pytest.mark.parametrize(
    "checksum",
    [SHA1.encode(), SHA1.upper().encode(), f"{SHA1}  b-1.0.jar\n".encode(), f"SHA1(b-1.0.jar)= {SHA1}\n".encode()],
)
async def test_a_file_is_held_against_the_checksum_beside_it(checksum: bytes) -> None:
    source = FakeSource(pages={f"{B}/1.0/b-1.0.jar.sha1": checksum})
    assert await ask("/org/example/b/1.0/b-1.0.jar", source) == Artefact(
        url=f"{B}/1.0/b-1.0.jar", rule="maven file", digest=Digest(algorithm="sha1", hex=SHA1)
    )
    assert [page.immutable for page in source.asked] == [True]


async def test_a_file_without_a_checksum_is_not_passed_on() -> None:
    answer = await ask("/org/example/b/1.0/b-1.0.jar", FakeSource())
    assert isinstance(answer, Missing)
    assert "checksum" in answer.advice


@pytest.mark.parametrize("checksum", [b"", b"<html></html>", SHA1[:-1].encode(), f"{SHA1}0".encode(), b"0" * 64])
async def test_a_checksum_that_is_none_is_a_failure(checksum: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="invalid checksum"):
        await ask("/org/example/b/1.0/b-1.0.jar", FakeSource(pages={f"{B}/1.0/b-1.0.jar.sha1": checksum}))


async def test_checksums_and_signatures_come_as_they_are() -> None:
    assert (await document("/org/example/b/1.0/b-1.0.jar.sha1")).body == SHA1.encode()
    assert (await document("/org/example/b/1.0/b-1.0.jar.asc")).body.startswith(b"-----BEGIN")
    assert isinstance(await ask("/org/example/b/1.0/b-1.0.jar.sha512"), Missing)


async def test_a_snapshot_is_refused_and_nobody_is_asked() -> None:
    source = FakeSource()
    with pytest.raises(Refused) as refused:
        await ask("/org/example/b/1.0-SNAPSHOT/maven-metadata.xml", source)
    assert (refused.value.status, refused.value.rule) == (404, "snapshot")
    assert source.asked == []


async def test_an_index_that_is_not_there_is_missing() -> None:
    assert isinstance(await ask("/org/example/nothing/maven-metadata.xml"), Missing)


BILLION_LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    b"<metadata><versioning><latest>&b;</latest></versioning></metadata>"
)


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        (BILLION_LAUGHS, "document type"),
        (b'<!DOCTYPE metadata SYSTEM "file:///etc/passwd"><metadata/>', "document type"),
        (b'<!DOCTYPE metadata SYSTEM "http://127.0.0.1/"><metadata/>', "document type"),
        (BILLION_LAUGHS.decode().encode("utf-16"), "UTF-8"),
        (BILLION_LAUGHS.decode().encode("utf-16-be"), "UTF-8"),
        (BILLION_LAUGHS.decode().encode("utf-16-le"), "UTF-8"),
        (BILLION_LAUGHS.replace(b"?>", b" encoding='utf-7'?>").replace(b"<!", b"+ADwAIQ-"), "no XML"),
        (BILLION_LAUGHS.replace(b"<!DOCTYPE", b"<!doctype"), "document type"),
        (b"<metadata>&nbsp;</metadata>", "no XML"),
        (b"<metadata>", "no XML"),
        (b"", "no XML"),
        (b"\0" * 100, "UTF-8"),
        (b"<project/>", "no metadata"),
        (b"<metadata xmlns='http://x'/>", "no metadata"),
        (b"<a>" * 300_000, "no XML"),
    ],
)
async def test_xml_that_could_be_a_bomb_is_not_parsed_and_other_rubbish_is_refused(page: bytes, problem: str) -> None:
    with pytest.raises(InvalidMetadata, match=problem):
        read_metadata(page)
    with pytest.raises(UpstreamFailed) as failed:
        await ask("/org/example/b/maven-metadata.xml", FakeSource(pages={f"{B}/maven-metadata.xml": page}))
    assert problem in failed.value.advice


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert read_metadata(b"\xef\xbb\xbf" + PAGE) == read_metadata(PAGE)


def test_depth_alone_breaks_nothing() -> None:
    assert read_metadata(b"<metadata>" + b"<a>" * 300_000 + b"</a>" * 300_000 + b"</metadata>").versions == ()


async def test_versions_of_an_unknown_form_are_left_out_and_told() -> None:
    page = metadata("1.0", "../../x", "1.0-SNAPSHOT", "", latest="../../x")
    answer = await document("/org/example/b/maven-metadata.xml", FakeSource(pages={f"{B}/maven-metadata.xml": page}))
    assert answer.left_out == (
        LeftOut(reason="name of an unknown form", count=3, names=("../../x", "1.0-SNAPSHOT", "")),
    )
    read = read_metadata(answer.body)
    assert (read.versions, read.latest, read.release) == (("1.0",), "1.0", "1.0")


DENIED = FakeRules(releases=frozenset({("org.example:b", "2.0")}))
YOUNG = FakeRules(before=NEW_YEAR)
REFUSING = pytest.mark.parametrize(("rules", "why"), [(DENIED, "denied"), (YOUNG, "too young")])


@REFUSING
async def test_a_refused_version_is_left_out_of_the_index_and_no_longer_the_latest(rules: FakeRules, why: str) -> None:
    answer = await document("/org/example/b/maven-metadata.xml", rules=rules)
    assert answer.left_out == (LeftOut(reason=f"policy: org.example:b: {why}", count=1, names=("2.0",)),)
    assert b"2.0" not in answer.body
    read = read_metadata(answer.body)
    assert (read.versions, read.latest, read.release) == (("1.0", "1.1"), "1.1", "1.1")
    assert read.last_updated == "20260701000000"


async def test_the_latest_stays_if_it_is_allowed() -> None:
    page = metadata("1.0", "2.0", "1.1", latest="1.0", release="1.1")
    source = FakeSource(pages={f"{B}/maven-metadata.xml": page})
    read = read_metadata((await document("/org/example/b/maven-metadata.xml", source, DENIED)).body)
    assert (read.versions, read.latest, read.release) == (("1.0", "1.1"), "1.0", "1.1")


@pytest.mark.parametrize("rules", [NO_RULES, DENIED, YOUNG])
@pytest.mark.parametrize("algorithm", ["sha1", "md5", "sha256", "sha512"])
async def test_an_indexs_checksum_is_of_what_is_served(algorithm: str, rules: FakeRules) -> None:
    page = await document("/org/example/b/maven-metadata.xml", rules=rules)
    checksum = await document(f"/org/example/b/maven-metadata.xml.{algorithm}", rules=rules)
    assert checksum.body.decode() == hashlib.new(algorithm, page.body).hexdigest()
    assert checksum.left_out == ()


FILES = ["b-2.0.pom", "b-2.0.jar", "b-2.0.jar.sha1", "b-2.0-sources.jar", "b-2.0.jar.asc", "b-2.0.module"]


@REFUSING
@pytest.mark.parametrize("filename", FILES)
async def test_every_file_of_a_refused_version_is_refused(filename: str, rules: FakeRules, why: str) -> None:
    with pytest.raises(Refused) as refused:
        await ask(f"/org/example/b/2.0/{filename}", rules=rules)
    assert (refused.value.status, refused.value.rule) == (403, f"policy: org.example:b: {why}")
    assert f"refuse org.example:b 2.0: {why}." in refused.value.advice


@pytest.mark.parametrize("path", ["maven-metadata.xml", "maven-metadata.xml.sha1", "1.0/b-1.0.jar", "1.0/b-1.0.pom"])
async def test_a_denied_package_is_refused_everywhere(path: str) -> None:
    with pytest.raises(Refused) as refused:
        await ask(f"/org/example/b/{path}", rules=FakeRules(packages=frozenset({"org.example:b"})))
    assert (refused.value.status, refused.value.rule) == (403, "policy: org.example:b: denied")


async def test_an_index_of_a_path_of_one_part_does_not_go_around_the_rules() -> None:
    source = FakeSource(pages={f"{CENTRAL}/maven2/b/maven-metadata.xml": PAGE})
    with pytest.raises(Refused, match="policy: :b: denied"):
        await ask("/b/maven-metadata.xml", source, FakeRules(packages=frozenset({":b"})))


async def test_a_denied_plugin_loses_its_prefix() -> None:
    rules = FakeRules(packages=frozenset({"org.example:c-maven-plugin"}))
    answer = await document("/org/example/maven-metadata.xml", rules=rules)
    assert answer.left_out == (
        LeftOut(reason="policy: org.example:c-maven-plugin: denied", count=1, names=("c-maven-plugin",)),
    )
    (plugin,) = read_metadata(answer.body).plugins
    assert (plugin.name, plugin.prefix, plugin.artifact) == ("B & co", "b", "b-maven-plugin")


@pytest.mark.parametrize("page", [None, Fetched(body=b"<project/>")])
async def test_a_release_whose_time_is_not_known_is_refused_where_ages_count(page: Fetched | None) -> None:
    source = FakeSource(pages={} if page is None else {f"{B}/1.0/b-1.0.pom": page})
    with pytest.raises(Refused, match=r"policy: org\.example:b: age unknown"):
        await ask("/org/example/b/1.0/b-1.0.jar", source, YOUNG)


async def test_an_allowed_version_passes_where_ages_count() -> None:
    assert isinstance(await ask("/org/example/b/1.0/b-1.0.jar", rules=YOUNG), Artefact)


async def test_only_the_newest_of_a_long_index_are_looked_up() -> None:
    versions = [f"1.{minor}" for minor in range(MAX_LOOKUPS + 10)]
    poms = {f"{B}/{version}/b-{version}.pom": pom(2024) for version in versions}
    source = FakeSource(pages={f"{B}/maven-metadata.xml": metadata(*versions, latest=versions[-1]), **poms})
    answer = await document("/org/example/b/maven-metadata.xml", source, YOUNG)
    assert list(read_metadata(answer.body).versions) == versions[10:]
    assert [entry.count for entry in answer.left_out] == [10]
    assert len(source.asked) == 1 + MAX_LOOKUPS
