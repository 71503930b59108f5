"""What the inventory says of installed packages, honest and hostile ones."""

import base64
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from sandbox.image.python import inventory

METADATA = b"""Metadata-Version: 2.4
Name: Some.Thing
Version: 1.2
License-Expression: MIT
License: UNKNOWN
Requires-Python: >=3.9
Classifier: License :: OSI Approved :: MIT License
Classifier: Topic :: Software Development
Requires-Dist: other>=1
Requires-Dist: more; extra == "x"

Author: only the description
"""


def record_line(path: str, content: bytes, *, size: int | str | None = None) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content) if size is None else size}"


def install(library: Path, files: dict[str, bytes], *, metadata: bytes = METADATA, extra: str = "") -> Path:
    lines = []
    for name, content in files.items():
        path = library / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        lines.append(record_line(name, content))
    directory = library / "some_thing-1.2.dist-info"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "METADATA").write_bytes(metadata)
    (directory / "RECORD").write_text("\n".join([*lines, f"{directory.name}/RECORD,,", extra]))
    return directory


def only_package(library: Path) -> dict[str, Any]:
    result: Any = inventory.inventory(library)
    assert result["format"] == 1
    assert result["ecosystem"] == "python"
    assert result["machine"] == platform.machine()
    (package,) = result["packages"]
    return dict(package)


def test_an_honest_package(tmp_path: Path) -> None:
    files = {"thing/__init__.py": b"x", "thing/data.bin": b"y", "alone.py": b"z", "bin/tool": b"#!", "a-b/c.py": b""}
    directory = install(tmp_path, files)
    (directory / "WHEEL").write_text("Wheel-Version: 1.0\nBuild: 2a\nTag: py2-none-any\nTag: py3-none-any\n")
    assert only_package(tmp_path) == {
        "name": "Some.Thing",
        "version": "1.2",
        "license_expression": "MIT",
        "license": None,
        "requires_python": ">=3.9",
        "classifiers": ["License :: OSI Approved :: MIT License"],
        "requires_dist": ["other>=1", 'more; extra == "x"'],
        "top_level": ["alone", "thing"],
        "tags": ["py2-none-any", "py3-none-any"],
        "build": "2a",
        "record_sha256": hashlib.sha256((directory / "RECORD").read_bytes()).hexdigest(),
        "file_count": 6,
        "verified": "hashes",
        "missing": [],
        "modified": [],
    }


def test_missing_and_modified_files_are_named(tmp_path: Path) -> None:
    install(tmp_path, {"a.py": b"one", "b.py": b"two", "c.py": b"three"})
    (tmp_path / "a.py").unlink()
    (tmp_path / "b.py").write_bytes(b"TWO")
    (tmp_path / "c.py").write_bytes(b"longer")
    package = only_package(tmp_path)
    assert package["missing"] == ["a.py"]
    assert package["modified"] == ["b.py", "c.py"]


def test_a_big_environment_is_compared_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "HASHED_LIMIT_BYTES", 4)
    install(tmp_path, {"a.py": b"one", "b.py": b"two"})
    (tmp_path / "b.py").write_bytes(b"TWO")
    (tmp_path / "a.py").write_bytes(b"four")
    package = only_package(tmp_path)
    assert package["verified"] == "sizes"
    assert package["modified"] == ["a.py"]


@pytest.mark.parametrize(
    "line",
    [
        record_line("../outside.py", b"x"),
        record_line("/etc/passwd", b"x"),
        record_line("pipe", b"", size=0),
        record_line("link", b"", size=0),
        record_line("plain.py", b"plain", size=""),
        "plain.py,md5=abc,5",
    ],
)
def test_hostile_lines_count_as_modified_and_are_not_read(line: str, tmp_path: Path) -> None:
    library = tmp_path / "lib"
    install(library, {}, extra=line)
    (tmp_path / "outside.py").write_bytes(b"x")
    (library / "plain.py").write_bytes(b"plain")
    os.mkfifo(library / "pipe")
    (library / "link").symlink_to("/dev/zero")
    assert only_package(library)["modified"] == [line.split(",", maxsplit=1)[0]]


@pytest.mark.parametrize(
    "record", [b"\xff\xfe,,", b"a,b\n", b"a,sha256=x,-1\n", b"a,,1e9\n", b'"open\n' + b"x" * 200_000]
)
def test_a_broken_record_verifies_nothing_and_says_so(record: bytes, tmp_path: Path) -> None:
    directory = install(tmp_path, {"a.py": b"one"})
    (directory / "RECORD").write_bytes(record)
    package = only_package(tmp_path)
    assert package["modified"] == ["some_thing-1.2.dist-info/RECORD"]
    assert package["file_count"] == 0


def test_an_absent_record_is_missing(tmp_path: Path) -> None:
    (install(tmp_path, {}) / "RECORD").unlink()
    package = only_package(tmp_path)
    assert package["missing"] == ["some_thing-1.2.dist-info/RECORD"]
    assert package["record_sha256"] is None


@pytest.mark.parametrize("metadata", [b"", b"\xff" * 1000, b"Name: " + b"x" * (inventory.METADATA_LIMIT_BYTES + 1)])
def test_metadata_that_says_nothing_leaves_the_directory_s_name(metadata: bytes, tmp_path: Path) -> None:
    install(tmp_path, {}, metadata=metadata)
    package = only_package(tmp_path)
    assert (package["name"], package["version"]) == ("some_thing", "1.2")


def test_metadata_in_utf_8_and_not_quite(tmp_path: Path) -> None:
    install(tmp_path, {}, metadata=b"Name: x\nVersion: 1\nLicense: \xc2\xa9 Ren\xc3\xa9 \xff\n")
    assert only_package(tmp_path)["license"] == "© René \ufffd"


def test_texts_and_lists_have_limits(tmp_path: Path) -> None:
    lines = b"".join(b"Requires-Dist: p%d\n" % number for number in range(inventory.LIST_LIMIT + 5))
    install(tmp_path, {}, metadata=b"Name: x\nVersion: 1\nLicense: " + b"y" * 100_000 + b"\n" + lines)
    package = only_package(tmp_path)
    assert len(package["requires_dist"]) == inventory.LIST_LIMIT
    assert len(package["license"]) == inventory.TEXT_LIMIT


def test_a_library_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inventory.main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
