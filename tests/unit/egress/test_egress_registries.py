from pathlib import Path

import pytest

from services.executor.egress.registries import DEFAULT_FILE, InvalidRegistries, load_registries

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
