from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yarl
from hypothesis import given, settings
from hypothesis import strategies as st

from services.executor.egress.registries import DEFAULT_FILE, InvalidRegistries, Origin, Registry, load_registries

from .harness import registries_text

URL = "http://127.0.0.1:1"


def test_the_shipped_file() -> None:
    registries = load_registries()
    assert registries.pypi.url("index") == "https://pypi.org"
    assert registries.pypi.origins["files"].host == "files.pythonhosted.org"
    assert registries.go.redirects == ("https://storage.googleapis.com/proxy-golang-org-prod/",)
    assert len(registries.hosts) == 6


@pytest.mark.parametrize(
    "origin",
    [
        "http://pypi.example.org",
        "https://pypi.example.org/",
        "https://pypi.example.org:8443",
        "https://user@pypi.example.org",
        "https://127.0.0.1",
        "https://localhost",
        "https://pypi.example.org.",
        "http://127.0.0.1",
        "http://127.0.0.2:80",
        "ftp://pypi.example.org",
        "",
    ],
)
def test_origins_that_are_refused(origin: str, tmp_path: Path) -> None:
    file = tmp_path / "registries.toml"
    file.write_text(registries_text(URL).replace(f'index = "{URL}"', f'index = "{origin}"'))
    with pytest.raises(InvalidRegistries, match=r"pypi\.index must look like"):
        load_registries(file)


@pytest.mark.parametrize("prefix", ["https://a.example", "https://a.example/x", "https://a.example/../", "x", 1, "*"])
def test_redirects_that_are_refused(prefix: object, tmp_path: Path) -> None:
    file = tmp_path / "registries.toml"
    file.write_text(registries_text(URL).replace("redirects = []", f"redirects = [{prefix!r}]", 1))
    with pytest.raises(InvalidRegistries, match=r"pypi\.redirects must hold"):
        load_registries(file)


@pytest.mark.parametrize("text", ["", "[pypi]\n", "x", "pypi = 1\n", DEFAULT_FILE.read_text() + "more = 1\n"])
def test_files_that_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "registries.toml"
    file.write_text(text)
    with pytest.raises(InvalidRegistries, match=r"registries\.toml"):
        load_registries(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidRegistries, match="No such file"):
        load_registries(tmp_path / "none.toml")


REGISTRY = Registry(
    origins={"index": Origin(url="https://index.example.org", host="index.example.org")},
    redirects=("https://bucket.example.org/proxy/",),
)
PIECES = [
    "https://", "http://", "HTTPS://", "//", "/", "\\", "index.example.org", "bucket.example.org", "proxy", "other",
    "..", ".", "%2e", "%2E%2e", "%2f", "%5c", "%252e", "@", ":", ":443", ":8443", "?", "#", "evil.example", "a", "\n",
    " ", "\0",     "İ", "127.0.0.1", "[::1]", ";",
]  # fmt: skip


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text())
def test_accepted_implies_in_the_exact_set(text: str) -> None:
    """Whatever is followed leads, as three parsers read it, to an origin or below a prefix, and to no other port."""
    for url in (text, f"https://index.example.org{text}", f"https://bucket.example.org/proxy/{text}"):
        if not REGISTRY.follows(url):
            continue
        parts, parsed = urlsplit(url), yarl.URL(url)
        assert (parts.scheme, parts.username, parts.password, parts.port) == ("https", None, None, None)
        assert parts.hostname == parsed.host == parsed.raw_host
        assert (parsed.explicit_port, parsed.user) == (None, None)
        if parts.hostname != "index.example.org":
            assert parts.hostname == "bucket.example.org"
            assert parsed.path.startswith("/proxy/")
            assert not {".", ".."} & set(parsed.path.replace("\\", "/").split("/"))
        assert REGISTRY.owns(url) == (parts.hostname == "index.example.org")


@pytest.mark.parametrize(
    ("url", "followed"),
    [
        ("https://index.example.org/x?y=z%2F", True),
        ("https://bucket.example.org/proxy/x:y@v1.0!a+b~(1).zip?Expires=1&Signature=a%2Bb%3D", True),
        ("https://bucket.example.org/proxy/", True),
        ("https://bucket.example.org/proxy", False),
        ("https://bucket.example.org/proxy/../x", False),
        ("https://bucket.example.org/proxy/./x", False),
        ("https://bucket.example.org/proxy/..", False),
        ("https://index.example.org", False),
        ("https://index.example.org/" + "a" * 9000, False),
    ],
)
def test_what_is_followed(url: str, *, followed: bool) -> None:
    assert REGISTRY.follows(url) is followed
