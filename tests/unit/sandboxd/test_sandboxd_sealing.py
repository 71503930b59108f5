from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from sandbox.sandboxd.qila_sandboxd.paths import CallError
from sandbox.sandboxd.qila_sandboxd.sealing import seal


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / ".qila"
    (home / "env/python/a/lib").mkdir(parents=True)
    (home / "home/cache").mkdir(parents=True)
    (home / "env/python/a/lib/module.py").write_text("1")
    return home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_opened_is_closed(home: Path, tmp_path: Path) -> None:
    library = home / "env/python/a/lib"
    (library / "tool").touch()
    for path, opened in ((home, 0o777), (library, 0o1777), (library / "module.py", 0o666), (library / "tool", 0o6777)):
        path.chmod(opened)
    (home / "home").chmod(0o777)
    seal(str(tmp_path))
    assert [mode(path) for path in (home, library, library / "module.py", library / "tool")] == [
        0o755, 0o755, 0o644, 0o755,
    ]  # fmt: skip
    assert mode(home / "home") == 0o700


def test_a_directory_that_was_locked_is_sealed_as_well(home: Path, tmp_path: Path) -> None:
    inner = home / "env/python/a/lib/inner"
    inner.mkdir()
    (inner / "module.py").touch()
    (inner / "module.py").chmod(0o666)
    inner.chmod(0)
    seal(str(tmp_path))
    assert mode(inner / "module.py") == 0o644


def test_a_file_that_somebody_holds_open_is_replaced_by_a_copy(home: Path, tmp_path: Path) -> None:
    module = home / "env/python/a/lib/module.py"
    before = module.stat()
    with module.open("r+") as held:
        seal(str(tmp_path))
        held.write("2")
    assert module.read_text() == "1"
    assert module.stat().st_ino != before.st_ino
    assert module.stat().st_mtime_ns == before.st_mtime_ns
    assert [path.name for path in module.parent.iterdir()] == ["module.py"]


def test_a_file_that_nobody_holds_open_stays_as_it_is(home: Path, tmp_path: Path) -> None:
    module = home / "env/python/a/lib/module.py"
    inode = module.stat().st_ino
    with module.open():
        seal(str(tmp_path))
    assert module.stat().st_ino == inode


def test_a_link_is_not_followed(home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    outside.chmod(0o666)
    (home / "env/link").symlink_to(outside)
    (home / "env/directory").symlink_to(tmp_path)
    seal(str(tmp_path))
    assert mode(outside) == 0o666


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away takes root")
def test_what_others_put_there_is_removed(home: Path, tmp_path: Path) -> None:
    file, directory = home / "env/file", home / "env/directory"
    file.touch()
    directory.mkdir()
    os.chown(file, 1000, 1000)
    os.chown(directory, 1000, 1000)
    seal(str(tmp_path))
    assert not file.exists()
    assert not directory.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away takes root")
def test_what_cannot_be_removed_is_told(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root could remove it: the installer cannot empty a directory of the program's.
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    directory = home / "env/directory"
    directory.mkdir()
    os.chown(directory, 1000, 1000)
    with pytest.raises(CallError, match="permission_denied"):
        seal(str(tmp_path))


def test_sealing_is_quick(home: Path, tmp_path: Path) -> None:
    library = home / "env/python/a/lib"
    for number in range(4_000):
        (library / f"{number}.py").touch()
    begin = time.process_time()
    seal(str(tmp_path))
    # numpy and pandas have about so many files: an install waits for this.
    assert time.process_time() - begin < 1
