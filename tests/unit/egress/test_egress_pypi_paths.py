import pytest

from services.executor.egress.ecosystems.pypi_paths import FileRequest, ProjectRequest, file_path, parse_path

A = "a" * 64
B = "b" * 64
STORED = f"packages/01/23/{'4' * 60}/demo-1.0.tar.gz"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/pypi/simple/requests/", "requests"),
        ("/pypi/simple/Ruamel.YAML_x--y/", "ruamel-yaml-x-y"),
        ("/pypi/simple/a/", "a"),
        (f"/pypi/simple/{'a' * 128}/", "a" * 128),
    ],
)
def test_projects(path: str, name: str) -> None:
    assert parse_path(path) == ProjectRequest(name=name)


@pytest.mark.parametrize(
    "path",
    [
        "/pypi/simple/",
        "/pypi/simple/requests",
        "/pypi/simple/requests/?x=1",
        "/pypi/simple/requests/\n",
        "/pypi/simple/../",
        "/pypi/simple/-a/",
        "/pypi/simple/a./",
        "/pypi/simple/a%2fb/",
        "/pypi/simple/a\x00b/",
        "/pypi/simple/é/",
        "/pypi/simple//evil.example/",
        f"/pypi/simple/{'a' * 129}/",
        "http://127.0.0.1/pypi/simple/requests/",
        "/legacy/",
        f"/pypi/files/{A}/-/{STORED}?x",
        f"/pypi/files/{A}/-/{STORED}#x",
        f"/pypi/files/{A[:-1]}/-/{STORED}",
        f"/pypi/files/{A.upper()}/-/{STORED}",
        f"/pypi/files/{A}//{STORED}",
        f"/pypi/files/{A}/-/packages/../{STORED}",
        f"/pypi/files/{A}/-/packages/01/23/{'4' * 60}/..",
        f"/pypi/files/{A}/-/packages/01/23/{'4' * 60}/a%2Fb.whl",
        f"/pypi/files/{A}/-/packages/01/23/{'4' * 60}/a%252Bb.whl",
        f"/pypi/files/{A}/-/packages/01/23/{'4' * 60}/{'a' * 256}",
        f"/pypi/files/{A}/-/{STORED}.metadata",
    ],
)
def test_no_such_path(path: str) -> None:
    assert parse_path(path) is None


def test_a_file_carries_both_digests() -> None:
    path = file_path(stored_path=STORED, sha256=A, metadata_sha256=B)
    assert parse_path(path) == FileRequest(stored_path=STORED, sha256=A)
    assert parse_path(f"{path}.metadata") == FileRequest(stored_path=f"{STORED}.metadata", sha256=B)


def test_the_escapes_of_epochs_and_local_versions() -> None:
    stored = STORED.replace("1.0", "1!1.0+x")
    escaped = STORED.replace("1.0", "1%211.0%2Bx")
    assert parse_path(f"/pypi/files/{A}/-/{escaped}") == FileRequest(stored_path=stored, sha256=A)
