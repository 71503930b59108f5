"""The survey's own program, compiled from this checkout's source, over the workspaces that programs make."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.sandboxd.qila_sandboxd.frames import Channel, Header

SOURCE = Path(__file__).resolve().parents[3] / "sandbox/sandboxd/survey.c"
# What a program leaves unfreed at its end is not at issue.
NO_LEAKS = {"ASAN_OPTIONS": "detect_leaks=0"}
Survey = Callable[..., tuple[list[list[Any]], Header]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc: tests/integration runs the image's own")
    built = tmp_path_factory.mktemp("survey") / "survey"
    options = ["-Wall", "-Wextra", "-DOPENSSL_API_COMPAT=0x10101000L", "-fsanitize=address,undefined"]
    subprocess.run([compiler, *options, "-o", str(built), str(SOURCE), "-lcrypto"], check=True, timeout=60)
    return built


@pytest.fixture
def survey(program: Path) -> Survey:
    def run(root: Path, known: str = "") -> tuple[list[list[Any]], Header]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [str(program), str(os.getuid()), str(root)]
            child = subprocess.Popen(command, stdin=theirs.fileno(), env=NO_LEAKS)
            theirs.close()
            ours.sendall(f"{known}\n".encode())
            frames = list(_frames(ours))
            assert child.wait(30) == 0
        rows = [row for frame in frames[:-1] for row in frame["entries"]]
        assert {frame["type"] for frame in frames[:-1]} <= {"data"}
        assert frames[-1]["type"] == "result"
        return rows, frames[-1]

    return run


def _frames(connection: socket.socket) -> Iterator[Header]:
    channel = Channel(connection)
    while (frame := channel.receive()) is not None:
        yield frame[0]


def test_a_line_that_is_no_digest_ends_it(tmp_path: Path, program: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen([str(program), str(os.getuid()), str(tmp_path)], stdin=theirs.fileno())
        theirs.close()
        ours.sendall(b"0" * 66)
        assert child.wait(30) == 1


def _names(rows: list[list[Any]]) -> list[str]:
    return [row[0] for row in rows]


def test_skips_what_is_not_the_programs_and_follows_no_link(tmp_path: Path, survey: Survey) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    names = ["b.py", "a/x.py", "a/.local/kept", "a/node_modules/m.js", ".local/x", ".qila/x", "v/pyvenv.cfg", ".git/x"]
    for name in [*names, "../outside/secret"]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "deps").symlink_to(outside)
    (root / "b.link").symlink_to(root / "b.py")
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"\xff")).write_text("")
    rows, result = survey(root)
    assert _names(rows) == ["a/.local/kept", "a/x.py", "b.py"]
    assert (result["file_count"], result["skipped_count"], result["own_directories"]) == (3, 1, [])
    (root / "deps").unlink()
    (root / "deps").mkdir()
    result = survey(root)[1]
    assert result["own_directories"] == ["deps"]
    assert [row["path"] for row in result["unmanaged"]] == [f"{root}/deps", f"{root}/a/node_modules"]


def test_rows_are_what_the_kernel_says_and_the_digest_is_theirs(tmp_path: Path, survey: Survey) -> None:
    names = ['quo"te', "back\\slash", "new\nline", "Grüße", "日本", "z" * 255]
    for name in names:
        (tmp_path / name).write_text(name)
    os.utime(tmp_path / "Grüße", ns=(-1, -1))
    rows, result = survey(tmp_path)
    expected = []
    for name in sorted(names, key=os.fsencode):
        status = (tmp_path / name).stat()
        expected.append([name, status.st_size, max(0, status.st_mtime_ns), status.st_ctime_ns, status.st_ino])
    assert rows == expected
    lines = (json.dumps(row, separators=(",", ":"), ensure_ascii=False).replace("\\n", "\\u000a") for row in rows)
    text = "".join(f"{line}\n" for line in lines).replace('\\"', "\\u0022").replace("\\\\", "\\u005c")
    assert result["digest"] == hashlib.sha256(text.encode()).hexdigest()


def _rewrite(root: Path) -> None:
    (root / "a").write_text("12")


def _same_size_later(root: Path) -> None:
    os.utime(root / "a", ns=(1, 1))


def _same_size_and_time(root: Path) -> None:
    # The change of the inode remains.
    status = (root / "a").stat()
    (root / "a").write_text("2")
    os.utime(root / "a", ns=(status.st_atime_ns, status.st_mtime_ns))


def _renamed(root: Path) -> None:
    (root / "a").rename(root / "b")


def _swapped(root: Path) -> None:
    (root / "new").write_text("1")
    (root / "new").replace(root / "a")


def _added(root: Path) -> None:
    (root / "d" / "b").write_text("")


def _removed(root: Path) -> None:
    (root / "d" / "c").unlink()


@pytest.mark.parametrize(
    "change", [_rewrite, _same_size_later, _same_size_and_time, _renamed, _swapped, _added, _removed]
)
def test_any_change_is_seen_and_no_change_costs_no_row(
    tmp_path: Path, survey: Survey, change: Callable[[Path], None]
) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "c").write_text("")
    rows, first = survey(tmp_path)
    assert _names(rows) == ["a", "d/c"]
    assert survey(tmp_path, first["digest"]) == ([], first)
    change(tmp_path)
    rows, second = survey(tmp_path, first["digest"])
    assert second["digest"] != first["digest"]
    assert len(rows) == second["file_count"] > 0


def test_tells_what_programs_installed_by_themselves(tmp_path: Path, survey: Survey) -> None:
    library = tmp_path / ".local/lib/python3.13/site-packages"
    library.mkdir(parents=True)
    assert survey(tmp_path)[1]["unmanaged"] == []
    (library / "six-1.17.0.dist-info").mkdir()
    scope = tmp_path / "node_modules/@a"
    scope.mkdir(parents=True)
    first = survey(tmp_path)[1]["unmanaged"]
    assert [row["path"] for row in first] == [str(library), f"{tmp_path}/node_modules"]
    assert survey(tmp_path)[1]["unmanaged"] == first
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/notes.txt").write_text("")
    assert survey(tmp_path)[1]["unmanaged"] == first
    (tmp_path / "lib/a.jar").write_text("")
    assert f"{tmp_path}/lib" in [row["path"] for row in survey(tmp_path)[1]["unmanaged"]]
    (tmp_path / "lib/a.jar").unlink()
    (scope / "b").mkdir()
    second = survey(tmp_path)[1]["unmanaged"]
    assert [one["digest"] == two["digest"] for one, two in zip(first, second, strict=True)] == [True, False]


def test_names_complete_environments(tmp_path: Path, survey: Survey) -> None:
    for name in ("one", "two", "half"):
        (tmp_path / ".qila/env/python" / name).mkdir(parents=True)
    for name in ("one", "two"):
        (tmp_path / ".qila/env/python" / name / ".complete").touch()
    (tmp_path / ".qila/current").mkdir()
    (tmp_path / ".qila/current/python").symlink_to("../env/python/two")
    assert survey(tmp_path)[1]["environments"] == [
        {"ecosystem": "python", "fingerprint": "one", "current": False},
        {"ecosystem": "python", "fingerprint": "two", "current": True},
    ]


def test_a_deep_tree_ends_at_the_limit(tmp_path: Path, survey: Survey) -> None:
    deep = tmp_path.joinpath(*["d"] * 70)
    deep.mkdir(parents=True)
    (deep / "x").touch()
    rows, result = survey(tmp_path)
    assert (rows, result["skipped_count"]) == ([], 1)


def test_paths_that_are_too_long_are_counted(tmp_path: Path, survey: Survey) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("l" * 255, dir_fd=here)
        below = os.open("l" * 255, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    rows, result = survey(tmp_path)
    assert (rows, result["skipped_count"]) == ([], 1)


def test_files_beyond_the_limit_are_counted(tmp_path: Path, survey: Survey) -> None:
    for number in range(20_003):
        os.mknod(tmp_path / f"f{number:05}")
    rows, result = survey(tmp_path)
    assert (len(rows), result["file_count"], result["skipped_count"]) == (20_000, 20_000, 3)
    assert _names(rows)[-1] == "f19999"


@pytest.mark.parametrize(
    "name",
    [b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe0\x80\xaf", b"\xc3", b"\xf0\x9f\x92", b"\x80", b"\xfe"],
)
def test_a_name_that_is_not_utf8_is_counted(tmp_path: Path, survey: Survey, name: bytes) -> None:
    (tmp_path / os.fsdecode(name + b".py")).touch()
    (tmp_path / os.fsdecode(name)).mkdir()
    (tmp_path / os.fsdecode(name) / "below").touch()
    rows, result = survey(tmp_path)
    assert (rows, result["skipped_count"]) == ([], 2)
