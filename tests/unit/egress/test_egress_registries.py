from pathlib import Path

import pytest

from services.executor.egress.registries import InvalidRegistries, load_registries


def test_the_shipped_file() -> None:
    registries = load_registries()
    assert registries.pypi.index.url == "https://pypi.org"
    assert registries.pypi.files.host == "files.pythonhosted.org"


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
    file.write_text(f'[pypi]\nindex = "{origin}"\nfiles = "https://files.example.org"\n')
    with pytest.raises(InvalidRegistries, match=r"pypi\.index must look like"):
        load_registries(file)


@pytest.mark.parametrize("text", ["", "[pypi]\n", "x", "pypi = 1\n", "[pypi]\nindex='a'\nfiles='b'\nmore='c'\n"])
def test_files_that_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "registries.toml"
    file.write_text(text)
    with pytest.raises(InvalidRegistries, match=r"registries\.toml"):
        load_registries(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidRegistries, match="No such file"):
        load_registries(tmp_path / "none.toml")
