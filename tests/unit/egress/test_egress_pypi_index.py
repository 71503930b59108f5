import json
from typing import Any

import pytest

from services.executor.egress.ecosystems.pypi_index import (
    InvalidIndex,
    ProjectIndex,
    read_index,
    render_html,
    render_json,
    wants_html,
)

ORIGIN = "https://files.example.org"
STORED = f"packages/01/23/{'4' * 60}/demo-1.0.tar.gz"
A = "a" * 64
B = "b" * 64


def entry(**changes: Any) -> dict[str, Any]:
    good = {"filename": "demo-1.0.tar.gz", "url": f"{ORIGIN}/{STORED}", "hashes": {"sha256": A}}
    return {key.replace("_", "-"): value for key, value in (good | changes).items()}


def read(*entries: Any) -> ProjectIndex:
    page = json.dumps({"name": "Demo", "versions": ["1.0", 2], "files": entries}).encode()
    return read_index(page, name="demo", files_origin=ORIGIN)


def test_what_installers_need_survives() -> None:
    index = read(
        entry(
            core_metadata={"sha256": B},
            requires_python=">=3.8",
            size=7,
            upload_time="2026-01-01T00:00:00Z",
            yanked="bad",
            gpg_sig=True,
        )
    )
    document = json.loads(render_json(index))
    assert document["versions"] == ["1.0"]
    assert document["files"] == [
        {
            "filename": "demo-1.0.tar.gz",
            "url": f"/pypi/files/{A}/{B}/{STORED}",
            "hashes": {"sha256": A},
            "requires-python": ">=3.8",
            "yanked": "bad",
            "core-metadata": {"sha256": B},
            "dist-info-metadata": {"sha256": B},
            "size": 7,
            "upload-time": "2026-01-01T00:00:00Z",
        }
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (entry(hashes={}), "no SHA-256"),
        (entry(hashes={"sha256": "A" * 64}), "no SHA-256"),
        (entry(hashes={"md5": A}), "no SHA-256"),
        (entry(url=f"http://files.example.org/{STORED}"), "link to another host"),
        (entry(url=f"{ORIGIN}.evil.example/{STORED}"), "link to another host"),
        (entry(url=f"{ORIGIN}:8443/{STORED}"), "link to another host"),
        (entry(url=f"https://x@files.example.org/{STORED}"), "link to another host"),
        (entry(url=None), "link to another host"),
        (entry(url=f"{ORIGIN}/../{STORED}"), "link of an unknown form"),
        (entry(url=f"{ORIGIN}/{STORED}?x"), "link of an unknown form"),
        (entry(filename="other-1.0.tar.gz"), "link of an unknown form"),
        (entry(filename='"><script>'), "link of an unknown form"),
        (entry(filename=None), "no file name"),
        ("text", "no file name"),
    ],
)
def test_bad_files_are_left_out_and_named(bad: Any, reason: str) -> None:
    index = read(bad, entry())
    assert [file.filename for file in index.files] == ["demo-1.0.tar.gz"]
    assert [file.reason for file in index.dropped] == [reason]


def test_metadata_without_a_digest_is_not_offered() -> None:
    (file,) = read(entry(core_metadata=True)).files
    assert file.metadata_sha256 is None
    assert b"core-metadata" not in render_json(read(entry(core_metadata=True)))


@pytest.mark.parametrize(
    "page", [b"", b"\xff", b"[]", b'{"name":"demo"}', b'{"name":"other","files":[]}', b"[" * 100_000]
)
def test_pages_that_cannot_be_used(page: bytes) -> None:
    with pytest.raises(InvalidIndex):
        read_index(page, name="demo", files_origin=ORIGIN)


def test_html_escapes_what_authors_write() -> None:
    page = render_html(read(entry(requires_python='"><script>', yanked="<b>"))).decode()
    assert "<script>" not in page
    assert "<b>" not in page
    assert f'href="/pypi/files/{A}/-/{STORED}#sha256={A}"' in page


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/html", True),
        ("text/html;q=0.9, application/xhtml+xml", True),
        ("*/*", False),
        ("application/vnd.pypi.simple.v1+json, text/html; q=0.01", False),
        ("", False),
    ],
)
def test_html_only_for_those_who_know_nothing_else(accept: str, *, expected: bool) -> None:
    assert wants_html(accept) is expected
