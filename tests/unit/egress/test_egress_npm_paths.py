import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from services.executor.egress.ecosystems.npm_paths import (
    ManifestRequest,
    NpmRequest,
    PackumentRequest,
    TagsRequest,
    TarballRequest,
    packument_path,
    parse_path,
    tarball_path,
)

LONGEST = "a" * 214


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/express", PackumentRequest(name="express")),
        ("/JSONStream", PackumentRequest(name="JSONStream")),
        ("/socket.io-client_2", PackumentRequest(name="socket.io-client_2")),
        ("/@babel/core", PackumentRequest(name="@babel/core")),
        ("/@babel%2fcore", PackumentRequest(name="@babel/core")),
        ("/@babel%2Fcore", PackumentRequest(name="@babel/core")),
        ("/@-xun/scripts", PackumentRequest(name="@-xun/scripts")),
        ("/--", PackumentRequest(name="--")),
        (f"/{LONGEST}", PackumentRequest(name=LONGEST)),
        ("/express/latest", ManifestRequest(name="express", version="latest")),
        ("/express/4.0.0-rc.1", ManifestRequest(name="express", version="4.0.0-rc.1")),
        ("/x/1.0.0+build", ManifestRequest(name="x", version="1.0.0+build")),
        ("/x/1.0.0%2Bbuild", ManifestRequest(name="x", version="1.0.0+build")),
        ("/@babel%2fcore/7.0.0", ManifestRequest(name="@babel/core", version="7.0.0")),
        ("/@babel/core/next", ManifestRequest(name="@babel/core", version="next")),
        ("/-/package/express/dist-tags", TagsRequest(name="express")),
        ("/-/package/@babel%2fcore/dist-tags", TagsRequest(name="@babel/core")),
        ("/express/-/express-4.0.0.tgz", TarballRequest(name="express", file="express-4.0.0.tgz")),
        ("/x/-/x-1.0.0%2bb.tgz", TarballRequest(name="x", file="x-1.0.0+b.tgz")),
        ("/@babel/core/-/core-7.0.0.tgz", TarballRequest(name="@babel/core", file="core-7.0.0.tgz")),
        ("/@babel%2Fcore/-/core-7.0.0.tgz", TarballRequest(name="@babel/core", file="core-7.0.0.tgz")),
    ],
)
def test_paths(path: str, expected: NpmRequest) -> None:
    assert parse_path(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//express",
        "/express/",
        "/express?write=true",
        "/express#x",
        "/express\n",
        "/express\x00",
        "/expréss",
        "/.hidden",
        "/_private",
        "/..",
        "/../express",
        "/express/..",
        "/express/../request",
        "/express%2frequest",
        "/express%2F..%2Frequest",
        "/%65xpress",
        "/%40babel/core",
        "/@babel",
        "/@babel/",
        "/@/core",
        "/@babel//core",
        "/@babel/.core",
        "/@babel%252fcore",
        "/@babel%2f%2fcore",
        "/@babel/core/7.0.0/x",
        "/@evil.example:443/x",
        "/user@evil.example/x",
        "/node_modules",
        "/favicon.ico",
        f"/{LONGEST}a",
        f"/@a/{LONGEST}",
        "/express/^4.0.0",
        "/express/*",
        f"/express/{'1' * 257}",
        "/-",
        "/-/express-1.0.0.tgz",
        "/@babel/-/core-7.0.0.tgz",
        "/express/-/",
        "/express/-/express-4.0.0.zip",
        "/express/-/../express-4.0.0.tgz",
        "/express/-/a/express-4.0.0.tgz",
        "/express/-/a%2fexpress-4.0.0.tgz",
        "/express/-/.tgz",
        f"/express/-/{'a' * 300}.tgz",
        "/express/-/express-4.0.0.tgz?x",
        "/express/-rev/1-0",
        "/express/-/express-4.0.0.tgz/-rev/1-0",
        "http://127.0.0.1/npm/express",
        # What the registry has besides packages.
        "/-/ping",
        "/-/whoami",
        "/-/all",
        "/-/v1/search?text=x",
        "/-/v1/login",
        "/-/npm/v1/security/audits/quick",
        "/-/npm/v1/security/advisories/bulk",
        "/-/npm/v1/user",
        "/-/npm/v1/keys",
        "/-/npm/v1/attestations/express@4.0.0",
        "/-/user/org.couchdb.user:me",
        "/-/org/x/package",
        "/-/package/express/dist-tags/latest",
        "/-/package/express/access",
        "/-/package/express/collaborators",
    ],
)
def test_no_such_path(path: str) -> None:
    assert parse_path(path) is None


FORMS = re.compile(
    r"/(?:-/package/)?(?:@[\w.-]+(?:/|%2[fF]))?[\w.-]+(?:/-/[\w.+%-]+\.tgz|/[\w.+%-]+|/dist-tags)?", re.ASCII
)
PIECES = st.sampled_from(
    ["/", "-", "@", "%2f", "%2F", "%2B", "%00", "..", ".", "a", "Z", "9", "_", "+", "~", ":", "?", "#", "\\", ";", "é",
     "package", "dist-tags", "x-1.0.0.tgz", ".tgz", "\n", " ", "//", "evil.example", "http:"]
)  # fmt: skip  # an alphabet
PATHS = st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join).map(lambda text: f"/{text}"))


@given(path=PATHS)
def test_what_is_accepted_is_of_a_form_and_stays_on_the_registry(path: str) -> None:
    wanted = parse_path(path)
    if wanted is None:
        return
    assert FORMS.fullmatch(path)
    upstream = packument_path(wanted.name)
    if isinstance(wanted, TarballRequest):
        upstream = tarball_path(wanted.name, wanted.file)
    url = URL(f"https://registry.example.org{upstream}", encoded=True)
    assert (url.scheme, url.host, url.explicit_port, url.user, url.query_string, url.fragment) == (
        "https",
        "registry.example.org",
        None,
        None,
        "",
        "",
    )
    assert url.raw_path == upstream
    assert not {"", ".", ".."} & set(upstream.split("/")[1:])
    assert re.fullmatch(r"(?:[A-Za-z0-9/@._-]|%2f|%2B)+", upstream)


@given(path=PATHS)
def test_another_spelling_of_an_accepted_path_asks_for_the_same(path: str) -> None:
    wanted = parse_path(path)
    if isinstance(wanted, PackumentRequest):
        assert parse_path(packument_path(wanted.name)) == wanted
    elif isinstance(wanted, TarballRequest):
        assert parse_path(tarball_path(wanted.name, wanted.file)) == wanted
