"""Installed libraries keep to a sandbox's processors, and load behind its filter of system calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from typing import Protocol

    class Installation(Protocol):
        def qila(self, *arguments: str) -> subprocess.CompletedProcess[bytes]: ...


pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
PROGRAM = """
import multiprocessing
import cv2
import numpy
import threadpoolctl

matrix = numpy.ones((300, 300))
assert (matrix @ matrix)[0, 0] == 300
assert cv2.GaussianBlur(matrix, (5, 5), 0).shape == (300, 300)
print({row["num_threads"] for row in threadpoolctl.threadpool_info()}, multiprocessing.cpu_count())
"""


def test_numpy_takes_as_many_threads_as_the_sandbox_has_processors(
    installation: Installation, sandbox: str, tmp_path: Path
) -> None:
    file = tmp_path / "main.py"
    file.write_text(PROGRAM, encoding="utf-8")
    assert installation.qila("put", sandbox, str(file)).returncode == 0
    ran = installation.qila("exec", sandbox, "main.py")
    assert (ran.returncode, ran.stdout) == (0, b"{1} 1\n"), ran.stderr.decode()
    chosen = installation.qila("exec", "-e", "PYTHON_CPU_COUNT=7", sandbox, "main.py")
    assert (chosen.returncode, chosen.stdout) == (0, b"{1} 7\n"), chosen.stderr.decode()


def test_packages_typed_by_hand_install_behind_the_filter(installation: Installation, sandbox: str) -> None:
    script = "pip install -q idna && uv pip install -q --target x wrapt && PYTHONPATH=x python -c 'import idna, wrapt'"
    ran = installation.qila("exec", sandbox, "--", "bash", "-euc", script)
    assert ran.returncode == 0, ran.stderr.decode()
