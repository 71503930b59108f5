"""Egress policies, package rules and the audit, through the command line and all services."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]
RULES = '[pypi]\ndeny = ["colorama", "six<99"]\n'
# Asks again and again, and tells each status that is not the one before.
ASKS = """
import http.client
last = 0
while last != 403:
    connection = http.client.HTTPConnection("127.0.0.1", 7480)
    try:
        connection.request("GET", "/pypi/simple/idna/")
        status = connection.getresponse().status
    except (http.client.RemoteDisconnected, ConnectionError):
        # What is under way when the policy changes is cut.
        continue
    finally:
        connection.close()
    if status != last:
        print(status, flush=True)
        last = status
"""


@dataclass(frozen=True, kw_only=True)
class Restricted:
    """An installation with a package policy."""

    variables: dict[str, str]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "qila.cli", *arguments]

    def qila(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.variables,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def done(self, *arguments: str) -> str:
        ended = self.qila(*arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def refusals(self, sandbox: str, *options: str) -> list[dict[str, str]]:
        lines = self.done("egress", "--json", "--refused", *options, sandbox).splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def restricted(sandbox_image: str) -> Iterator[Restricted]:
    # Sockets below it need a short path.
    directory = Path(tempfile.mkdtemp(prefix="qp", dir="/tmp"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    policy = directory / "packages.toml"
    policy.write_text(RULES)
    made = Restricted(
        variables={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
            "QILA_STATE_DIR": str(directory / "state"),
            "QILA_RUN_DIR": str(directory / "run"),
            "QILA_GATEWAY_ADDRESS": f"127.0.0.1:{port}",
            "QILA_HTTP_ADDRESS": "",
            "QILA_PREVIEW_ADDRESS": "127.0.0.1:0",
            "QILA_INSTANCE": f"e2e-policy-{port}",
            "QILA_SANDBOX_IMAGE": sandbox_image,
            "QILA_PACKAGE_POLICY": str(policy),
            "QILA_CONNECT_HOSTS": "plugins.example.org",
        }
    )
    made.done("up")
    yield made
    for line in made.done("ls").splitlines():
        made.qila("rm", line.split()[0])
    made.done("down")
    shutil.rmtree(directory)


@pytest.fixture
def make(restricted: Restricted) -> Iterator[Callable[..., str]]:
    sandboxes: list[str] = []

    def create(*options: str, **files: str) -> str:
        sandboxes.append(restricted.done("create", *options))
        with tempfile.TemporaryDirectory() as directory:
            for name, text in {"main": "print('ran')\n", **files}.items():
                (Path(directory) / (f"{name}.py" if name != "requirements" else "requirements.txt")).write_text(text)
            restricted.done("put", sandboxes[-1], directory)
        return sandboxes[-1]

    yield create
    for sandbox in sandboxes:
        restricted.qila("rm", sandbox)


def test_a_closed_sandbox_s_install_is_network_denied(restricted: Restricted, make: Callable[..., str]) -> None:
    sandbox = make("--egress", "none", requirements="idna\n")
    failed = restricted.qila("exec", sandbox, "main.py")
    assert failed.returncode == 125
    assert "install failed: network_denied\nthe doors refused: policy: closed\n" in failed.stderr
    refusals = restricted.refusals(sandbox)
    assert {(row["rule"], row["phase"]) for row in refusals} == {("policy: closed", "EGRESS_PHASE_INSTALL")}
    assert {row["exec_id"][:3] for row in refusals} == {"ex_"}
    restricted.done("policy", "--egress", "registries", sandbox)
    assert restricted.done("exec", "-q", sandbox, "main.py") == "ran"


def test_a_denied_package_is_named_with_its_rule(restricted: Restricted, make: Callable[..., str]) -> None:
    sandbox = make(requirements="colorama\n")
    failed = restricted.qila("exec", sandbox, "main.py")
    assert failed.returncode == 125
    assert "install failed: policy_denied\nthe doors refused: policy: colorama: denied by 'colorama'\n" in failed.stderr
    (exec_id,) = {row["exec_id"] for row in restricted.refusals(sandbox)}
    assert restricted.refusals(sandbox, "--exec", exec_id) == restricted.refusals(sandbox)
    assert restricted.refusals(sandbox, "--exec", "ex_" + "a" * 26) == []
    shown = restricted.done("egress", "--refused", sandbox)
    assert "colorama/ (policy: colorama: denied by 'colorama')" in shown


def test_denied_releases_are_left_out_and_named(restricted: Restricted, make: Callable[..., str]) -> None:
    sandbox = make(requirements="six\n")
    failed = restricted.qila("exec", sandbox, "main.py")
    assert "install failed: policy_denied\n" in failed.stderr
    assert "left out: policy: six: denied by 'six<99'\n" in failed.stderr


def test_doors_for_installs_alone_are_closed_to_the_program(restricted: Restricted, make: Callable[..., str]) -> None:
    sandbox = make("--egress", "install", requirements="idna\n")
    assert restricted.done("exec", "-q", sandbox, "main.py") == "ran"
    by_hand = restricted.qila("exec", "-q", sandbox, "--", "pip", "install", "--retries", "0", "certifi")
    assert by_hand.returncode == 1
    assert {(row["rule"], row["phase"]) for row in restricted.refusals(sandbox)} == {
        ("policy: install only", "EGRESS_PHASE_RUN")
    }


def test_a_policy_changes_while_a_program_runs(restricted: Restricted, make: Callable[..., str]) -> None:
    sandbox = make(main=ASKS)
    command = restricted.command("exec", "-q", sandbox, "main.py")
    with subprocess.Popen(command, env=restricted.variables, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "200\n"
        assert restricted.done("policy", "--egress", "none", sandbox) == "egress none"
        assert running.stdout.readline() == "403\n"
        assert running.wait(60) == 0


def test_the_policy_survives_kill_9_of_the_executor(restricted: Restricted, make: Callable[..., str]) -> None:
    sandbox = make("--egress", "none", requirements="idna\n")
    pid_file = Path(restricted.variables["QILA_RUN_DIR"]) / "executor.pid"
    os.kill(json.loads(pid_file.read_text())["pid"], signal.SIGKILL)
    restricted.done("up")
    assert restricted.done("policy", sandbox) == "egress none"
    assert "install failed: network_denied" in restricted.qila("exec", sandbox, "main.py").stderr
    before = restricted.refusals(sandbox)
    os.kill(json.loads(pid_file.read_text())["pid"], signal.SIGKILL)
    restricted.done("up")
    assert restricted.refusals(sandbox) == before


def test_a_tail_shows_what_happens_and_ends_with_the_sandbox(restricted: Restricted, make: Callable[..., str]) -> None:
    sandbox = make("--egress", "none", requirements="idna\n")
    command = restricted.command("egress", "--follow", sandbox)
    with subprocess.Popen(command, env=restricted.variables, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tail:
        stuck = threading.Timer(300, tail.kill)
        stuck.start()
        restricted.qila("exec", sandbox, "main.py")
        assert tail.stdout is not None
        assert "(policy: closed)" in tail.stdout.readline()
        restricted.done("rm", sandbox)
        assert tail.wait(60) == 0
        stuck.cancel()


def test_a_host_that_the_operator_does_not_allow(restricted: Restricted, make: Callable[..., str]) -> None:
    sandbox = make()
    refused = restricted.qila("policy", "--egress", "registries", "--allow-host", "evil.example.org", sandbox)
    assert refused.returncode == 125
    assert "evil.example.org is not allowed on this installation" in refused.stderr
    allowed = restricted.done("policy", "--egress", "registries", "--allow-host", "plugins.example.org", sandbox)
    assert allowed == "egress registries\nallow-host plugins.example.org"


def test_a_broken_package_policy_stops_the_executor_with_one_line(restricted: Restricted, tmp_path: Path) -> None:
    policy = tmp_path / "packages.toml"
    policy.write_text("[pypi]\ndenny = []\n")
    directory = Path(tempfile.mkdtemp(prefix="qp", dir="/tmp"))
    variables = {
        **restricted.variables,
        "QILA_PACKAGE_POLICY": str(policy),
        "QILA_STATE_DIR": str(directory / "state"),
        "QILA_RUN_DIR": str(directory / "run"),
    }
    command = [sys.executable, "-m", "services.executor"]
    ended = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"qila executor: QILA_PACKAGE_POLICY={policy}: [pypi] has 'denny'")
    shutil.rmtree(directory)
