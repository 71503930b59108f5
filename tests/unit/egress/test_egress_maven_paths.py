import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.egress.ecosystems.maven_paths import (
    FileRequest,
    MetadataRequest,
    SnapshotRequest,
    parse_path,
)

GSON = "/com/google/code/gson/gson"


def file(name: str, version: str, filename: str, *, sibling: bool = False) -> FileRequest:
    group, _, artifact = name.partition(":")
    return FileRequest(group=group, artifact=artifact, version=version, filename=filename, sibling=sibling)


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        (f"{GSON}/maven-metadata.xml", MetadataRequest(parts=("com", "google", "code", "gson", "gson"))),
        ("/junit/maven-metadata.xml", MetadataRequest(parts=("junit",))),
        (
            "/org/apache/maven/plugins/maven-metadata.xml.sha256",
            MetadataRequest(parts=("org", "apache", "maven", "plugins"), checksum="sha256"),
        ),
        (f"{GSON}/2.11.0/gson-2.11.0.pom", file("com.google.code.gson:gson", "2.11.0", "gson-2.11.0.pom")),
        ("/junit/junit/4.13.2/junit-4.13.2.jar", file("junit:junit", "4.13.2", "junit-4.13.2.jar")),
        (
            f"{GSON}/2.11.0/gson-2.11.0.jar.sha1",
            file("com.google.code.gson:gson", "2.11.0", "gson-2.11.0.jar.sha1", sibling=True),
        ),
        (
            f"{GSON}/2.11.0/gson-2.11.0.jar.asc",
            file("com.google.code.gson:gson", "2.11.0", "gson-2.11.0.jar.asc", sibling=True),
        ),
        (
            f"{GSON}/2.11.0/gson-2.11.0.jar.asc.md5",
            file("com.google.code.gson:gson", "2.11.0", "gson-2.11.0.jar.asc.md5", sibling=True),
        ),
        (
            "/io/netty/netty-tcnative/2.0.0.Final/netty-tcnative-2.0.0.Final-linux-x86_64.jar",
            file("io.netty:netty-tcnative", "2.0.0.Final", "netty-tcnative-2.0.0.Final-linux-x86_64.jar"),
        ),
        (
            "/org/scala/core_2.13/1.0/core_2.13-1.0-bin.tar.gz",
            file("org.scala:core_2.13", "1.0", "core_2.13-1.0-bin.tar.gz"),
        ),
        ("/a/b/1.0%2B5/b-1.0%2B5.module", file("a:b", "1.0+5", "b-1.0+5.module")),
        ("/a/b/1.0-SNAPSHOT/maven-metadata.xml", SnapshotRequest()),
        ("/a/b/1.0-SNAPSHOT/b-1.0-SNAPSHOT.jar", SnapshotRequest()),
        ("/a/b/1.0-SNAPSHOT/b-1.0-20260101.000000-1.jar", SnapshotRequest()),
    ],
)
def test_paths(path: str, request_: object) -> None:
    assert parse_path(path) == request_


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/maven-metadata.xml",
        "//maven-metadata.xml",
        "maven-metadata.xml",
        f"{GSON}/",
        f"{GSON}/2.11.0/",
        f"{GSON}/maven-metadata.xml?x",
        f"{GSON}/maven-metadata.xml#x",
        f"{GSON}/maven-metadata.xml.asc",
        f"{GSON}/maven-metadata.xml.sha1.sha1",
        f"{GSON}/maven-metadata-central.xml",
        f"{GSON}/2.11.0/other-2.11.0.jar",
        f"{GSON}/2.11.0/gson-2.10.0.jar",
        f"{GSON}/2.11.0/gson-2.11.0",
        f"{GSON}/2.11.0/gson-2.11.0.sha1",
        f"{GSON}/2.11.0/gson-2.11.0-.jar",
        f"{GSON}/2.11.0/gson-2.11.0..jar",
        f"{GSON}/2.11.0/gson-2.11.0.jar?x",
        f"{GSON}/2.11.0/gson-2.11.0.jar\n",
        f"{GSON}/2.11.0/gson-2.11.0.jar\0",
        f"{GSON}/2.11.0/../2.10.0/gson-2.10.0.jar",
        f"{GSON}/../gson/2.11.0/gson-2.11.0.jar",
        f"{GSON}/./2.11.0/gson-2.11.0.jar",
        f"{GSON}//2.11.0/gson-2.11.0.jar",
        f"{GSON}/2.11.0%2fgson-2.11.0.jar",
        f"{GSON}/%2e%2e/%2e%2e-.jar",
        f"{GSON}/../..-x.jar",
        f"{GSON}/2.11.0\\gson-2.11.0.jar",
        "/a.b/c/1.0/c-1.0.jar",
        "/a/b/1.0-é/b-1.0-é.jar",
        "/b/1.0/b-1.0.jar",
        "/archetype-catalog.xml",
        "/.index/nexus-maven-repository-index.gz",
        "/.meta/repository-metadata.xml",
        "http://127.0.0.1/a/b/1.0/b-1.0.jar",
        f"/{'a/' * 600}b/1.0/b-1.0.jar",
    ],
)
def test_no_such_path(path: str) -> None:
    assert parse_path(path) is None


VALID = [
    f"{GSON}/maven-metadata.xml",
    f"{GSON}/2.11.0/gson-2.11.0.jar.sha1",
    "/a/b_2.13/1.0+5/b_2.13-1.0+5-sources.jar",
]
TRICKS = ["..", "/..", "/../", "//", "%2f", "%2e%2e/", "\\", "?", "#", "\0", "\n", "@", ":", "-SNAPSHOT"]
tricks = st.one_of(st.just(""), st.sampled_from(TRICKS), st.text(alphabet="az09._%/+-", max_size=6))


@given(path=st.sampled_from(VALID), at=st.integers(0, 60), length=st.integers(0, 3), trick=tricks)
def test_what_is_accepted_is_the_same_path(path: str, at: int, length: int, trick: str) -> None:
    path = path[:at] + trick + path[at + length :]
    request = parse_path(path)
    if isinstance(request, FileRequest):
        assert f"/{request.path}" == path.replace("%2B", "+").replace("%2b", "+")
        assert not {"", ".", ".."} & set(request.path.split("/"))
    if isinstance(request, MetadataRequest):
        assert f"/{request.path}" == path.removesuffix(f".{request.checksum}")
        assert not {"", ".", ".."} & set(request.parts)
