"""A whole installation of its own: three services, a directory, a port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from workbench import Workbench  # type: ignore[import-not-found]  # pytest puts this directory on the path

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Installation:
    variables: dict[str, str]

    def qila(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "qila.cli", *arguments]
        return subprocess.run(command, env=self.variables, cwd=ROOT, capture_output=True, check=False, timeout=600)


@pytest.fixture(scope="session")
def installation(sandbox_image: str) -> Iterator[Installation]:
    # Sockets below it need a short path.
    directory = Path(tempfile.mkdtemp(prefix="qe", dir="/tmp"))
    with socket.socket() as probe, socket.socket() as http_probe:
        probe.bind(("127.0.0.1", 0))
        http_probe.bind(("127.0.0.1", 0))
        port, http_port = probe.getsockname()[1], http_probe.getsockname()[1]
    made = Installation(
        variables={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
            "QILA_STATE_DIR": str(directory / "state"),
            "QILA_RUN_DIR": str(directory / "run"),
            "QILA_GATEWAY_ADDRESS": f"127.0.0.1:{port}",
            "QILA_HTTP_ADDRESS": f"127.0.0.1:{http_port}",
            "QILA_PREVIEW_ADDRESS": "127.0.0.1:0",
            "QILA_INSTANCE": f"e2e-{port}",
            "QILA_SANDBOX_IMAGE": sandbox_image,
        }
    )
    started = made.qila("up")
    assert started.returncode == 0, started.stderr.decode()
    yield made
    for line in made.qila("ls").stdout.decode().splitlines():
        made.qila("rm", line.split()[0])
    stopped = made.qila("down")
    assert stopped.returncode == 0, stopped.stderr.decode()
    shutil.rmtree(directory)


@pytest.fixture
def sandbox(installation: Installation) -> Iterator[str]:
    created = installation.qila("create")
    assert created.returncode == 0, created.stderr.decode()
    identifier = created.stdout.decode().strip()
    yield identifier
    assert installation.qila("rm", identifier).returncode == 0


@pytest.fixture
def workbench(installation: Installation) -> Iterator[Workbench]:
    made = Workbench(installation.variables["QILA_GATEWAY_ADDRESS"])
    yield made
    made.close()
