"""Programs that nobody prepared for, through the command line and all services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from typing import Protocol

    class Installation(Protocol):
        def qila(self, *arguments: str) -> subprocess.CompletedProcess[bytes]: ...


pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo" / "main.py"


def test_demo_installs_once_and_leaves_a_lock(installation: Installation, sandbox: str) -> None:
    assert installation.qila("put", sandbox, str(DEMO)).returncode == 0
    first = installation.qila("exec", sandbox, "main.py")
    second = installation.qila("exec", sandbox, "main.py")
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr + second.stderr).decode()
    assert b"sklearn: 3 x 10 + 1 = 31\n" in first.stdout
    assert first.stdout == second.stdout
    assert b"\nINSTALL\n" in first.stderr
    assert b"INSTALL" not in second.stderr
    assert b"\nRUN\n" in second.stderr
    names = {package["name"] for package in json.loads(installation.qila("lock", sandbox).stdout)["packages"]}
    assert {"requests", "pyyaml", "opencv-python", "scikit-learn"} <= names


@pytest.mark.parametrize(("code", "expected"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("exit 255", 255)])
def test_exit_code_is_the_program_s_own(installation: Installation, sandbox: str, code: str, expected: int) -> None:
    assert installation.qila("exec", sandbox, "--", "sh", "-c", code).returncode == expected


def test_streams_are_apart_and_exact(installation: Installation, sandbox: str) -> None:
    done = installation.qila("exec", "-q", sandbox, "--", "sh", "-c", r"printf 'a\377\0'; printf 'b\r' >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\xff\0", b"b\r")


def test_timeout_is_124(installation: Installation, sandbox: str) -> None:
    done = installation.qila("exec", "--timeout", "0.5", sandbox, "--", "sleep", "100")
    assert done.returncode == 124


def test_a_package_that_does_not_exist(installation: Installation, sandbox: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print('never')\n")
    (tmp_path / "requirements.txt").write_text("qila-no-such-package-8f1c2d\n")
    assert installation.qila("put", sandbox, str(tmp_path)).returncode == 0
    done = installation.qila("exec", sandbox, "main.py")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"install failed: not_found" in done.stderr
    assert b"qila-no-such-package-8f1c2d" in done.stderr


@pytest.mark.parametrize("path", ["../out", "a//b", "a/./b", "x" * 300, "y/" * 2500 + "z"])
def test_bad_file_names_are_refused(installation: Installation, sandbox: str, path: str) -> None:
    done = installation.qila("put", sandbox, str(DEMO), f":{path}")
    assert done.returncode == 125
    assert b"[INTERNAL]" not in done.stderr
    assert done.stderr.startswith(b"qila: ")


def test_unknown_sandbox_is_named(installation: Installation) -> None:
    done = installation.qila("exec", "sb_" + "a" * 26, "--", "true")
    assert done.returncode == 125
    assert b"sb_" + b"a" * 26 in done.stderr
