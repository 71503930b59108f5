import pytest

from services.executor.egress.ecosystems.pypi_paths import FileRequest, ProjectRequest, file_path, parse_path

A = "a" * 64
B = "b" * 64
STORED = f"packages/01/23/{'4' * 60}/demo-1.0.tar.gz"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/simple/requests/", "requests"),
        ("/simple/Ruamel.YAML_x--y/", "ruamel-yaml-x-y"),
        ("/simple/a/", "a"),
        (f"/simple/{'a' * 128}/", "a" * 128),
    ],
)
def test_projects(path: str, name: str) -> None:
    assert parse_path(path) == ProjectRequest(name=name)


@pytest.mark.parametrize(
    "path",
    [
        "/simple/",
        "/simple/requests",
        "/simple/requests/?x=1",
        "/simple/requests/\n",
        "/simple/../",
        "/simple/-a/",
        "/simple/a./",
        "/simple/a%2fb/",
        "/simple/a\x00b/",
        "/simple/é/",
        "/simple//evil.example/",
        f"/simple/{'a' * 129}/",
        "http://127.0.0.1/simple/requests/",
        "/legacy/",
        f"/files/{A}/-/{STORED}?x",
        f"/files/{A}/-/{STORED}#x",
        f"/files/{A[:-1]}/-/{STORED}",
        f"/files/{A.upper()}/-/{STORED}",
        f"/files/{A}//{STORED}",
        f"/files/{A}/-/packages/../{STORED}",
        f"/files/{A}/-/packages/01/23/{'4' * 60}/..",
        f"/files/{A}/-/packages/01/23/{'4' * 60}/a%2Fb.whl",
        f"/files/{A}/-/packages/01/23/{'4' * 60}/a%252Bb.whl",
        f"/files/{A}/-/packages/01/23/{'4' * 60}/{'a' * 256}",
        f"/files/{A}/-/{STORED}.metadata",
    ],
)
def test_no_such_path(path: str) -> None:
    assert parse_path(path) is None


def test_a_file_carries_both_digests() -> None:
    path = file_path(stored_path=STORED, sha256=A, metadata_sha256=B).removeprefix("/pypi")
    assert parse_path(path) == FileRequest(stored_path=STORED, sha256=A)
    assert parse_path(f"{path}.metadata") == FileRequest(stored_path=f"{STORED}.metadata", sha256=B)


def test_the_escapes_of_epochs_and_local_versions() -> None:
    stored = STORED.replace("1.0", "1!1.0+x")
    escaped = STORED.replace("1.0", "1%211.0%2Bx")
    assert parse_path(f"/files/{A}/-/{escaped}") == FileRequest(stored_path=stored, sha256=A)
