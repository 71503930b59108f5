"""Manifests that cannot be had: one clear error that says what to do, and what was probably meant."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qila.client import QilaError

if TYPE_CHECKING:
    from tests.e2e.conftest import Installation
    from tests.e2e.workbench import Workbench

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
PYTHON, NODE = "main.py", "main.js"
NEVER = {PYTHON: "print('never')\n", NODE: "console.log('never')\n"}


def package_json(**dependencies: str) -> str:
    return json.dumps({"dependencies": dependencies})


@pytest.mark.parametrize(
    ("file", "files", "said"),
    [
        pytest.param(
            PYTHON,
            {"pyproject.toml": '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.99"\n'},
            r"^pyproject\.toml:4: requires-python '>=3\.99' leaves out Python 3",
            id="newer Python",
        ),
        pytest.param(
            PYTHON,
            {
                "requirements.txt": "-r requirements-a.txt\n",
                "requirements-a.txt": "idna\n-r requirements-b.txt\n",
                "requirements-b.txt": "-r requirements-a.txt\n",
            },
            r"^requirements-b\.txt:1: .*requirements-a\.txt",
            id="include cycle",
        ),
        pytest.param(
            NODE,
            {"package.json": '{"dependencies": ' + "[" * 100_000 + "]" * 100_000 + "}"},
            r"^package\.json:1: .*nested",
            id="package.json, deep",
        ),
        pytest.param(
            NODE,
            {"package.json": package_json(**{f"p{number}": "1" for number in range(100_000)})},
            r"^package\.json:1: more than \d+ dependencies",
            id="package.json, wide",
        ),
        pytest.param(
            NODE,
            {"package.json": '{"x": "' + "y" * (3 << 20) + '"}'},
            r"^package\.json: \d+ bytes is above the limit",
            id="package.json, big",
        ),
    ],
)
def test_manifest_that_cannot_be_planned_is_a_status_with_its_line(
    workbench: Workbench, file: str, files: dict[str, str], said: str
) -> None:
    sandbox = workbench.sandbox({**files, file: NEVER[file]})
    with pytest.raises(QilaError, match=said) as caught:
        workbench.run(sandbox, file)
    assert caught.value.reason != "INTERNAL"


@pytest.mark.parametrize(
    ("file", "files", "reason", "said"),
    [
        pytest.param(
            PYTHON, {"requirements.txt": "idna==99.0\n"}, "no_solution", ["idna==99.0"], id="no such version, Python"
        ),
        pytest.param(NODE, {"package.json": package_json(ms="99.0.0")}, "no_solution", ["ms@99.0.0"], id="Node"),
        pytest.param(
            PYTHON,
            {"requirements.txt": "beautifulsoop4\n"},
            "not_found",
            ["did you mean 'beautifulsoup4'?"],
            id="invented, Python",
        ),
        pytest.param(
            NODE,
            {"package.json": package_json(**{"lodahs-es": "*"})},
            "not_found",
            ["lodash-es may be meant"],
            id="invented, Node",
        ),
        pytest.param(
            PYTHON, {"requirements.txt": "numba==0.58.1\n"}, "build_failed", ["numba", "3.12"], id="older Python"
        ),
    ],
)
def test_manifest_that_cannot_be_installed_fails_with_what_to_do(
    workbench: Workbench, file: str, files: dict[str, str], reason: str, said: list[str]
) -> None:
    sandbox = workbench.sandbox({**files, file: NEVER[file]})
    told = workbench.run(sandbox, file)
    assert told.failure.partition("\n")[0] == reason, told.everything()
    for words in said:
        assert words in told.failure
    assert told.output() == ""


def test_engines_of_a_newer_node_are_told_and_the_program_runs(workbench: Workbench) -> None:
    manifest = '{"engines": {"node": ">=99"}, "dependencies": {"ms": "2.1.3"}}'
    sandbox = workbench.sandbox({"package.json": manifest, NODE: "console.log(require('ms')('1s'))\n"})
    told = workbench.run(sandbox, NODE)
    [notice] = told.notices
    assert (notice.code, notice.path, told.output()) == ("SETTING_IGNORED", "package.json", "1000\n")
    assert "Node >=99" in notice.message


def test_scripts_of_the_project_and_its_local_packages_are_no_part_of_an_install(workbench: Workbench) -> None:
    scripts = dict.fromkeys(("preinstall", "install", "postinstall", "prepare"), "exit 9")
    local = {"name": "local", "version": "1.0.0", "main": "index.js", "scripts": scripts}
    root = {"workspaces": ["packages/*"], "scripts": scripts, "dependencies": {"local": "*", "ms": "2.1.3"}}
    files = {
        "package.json": json.dumps(root),
        "packages/local/package.json": json.dumps(local),
        "packages/local/index.js": "module.exports = require('ms')('1s')\n",
        NODE: "console.log(require('local'))\n",
    }
    told = workbench.run(workbench.sandbox(files), NODE)
    assert told.output() == "1000\n", told.everything()


UV_LOCK = """version = 1
requires-python = ">=3.13"

[[package]]
name = "x"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "six" }]

[[package]]
name = "six"
version = "1.16.0"
source = { registry = "https://registry.example/simple" }
wheels = [{ url = "https://registry.example/six-1.16.0-py2.py3-none-any.whl", hash = "sha256:HASH" }]
"""


def test_lock_that_contradicts_its_manifest_is_told_and_the_manifest_counts(workbench: Workbench) -> None:
    manifest = '[project]\nname = "x"\nversion = "1"\ndependencies = ["six>=1.17"]\n'
    source = "import six\nprint(six.__version__)\n"
    lock = UV_LOCK.replace("HASH", "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254")
    sandbox = workbench.sandbox({"pyproject.toml": manifest, "uv.lock": lock, PYTHON: source})
    told = workbench.run(sandbox, PYTHON)
    assert told.output().startswith("1.17"), told.everything()
    assert [(notice.path, notice.line) for notice in told.notices if notice.code == "LOCK_DRIFT"] == [
        ("pyproject.toml", 4)
    ]


def test_ten_thousand_requirements_are_planned(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / PYTHON).write_text(NEVER[PYTHON])
    (tmp_path / "requirements.txt").write_text("".join(f"name-{number}=={number}\n" for number in range(10_000)))
    begin = time.monotonic()
    planned = installation.qila("plan", "--json", str(tmp_path))
    assert planned.returncode == 0, planned.stderr.decode()
    assert len(json.loads(planned.stdout)["requirements"]) == 10_000
    assert time.monotonic() - begin < 30


@pytest.fixture(scope="module")
def no_scripts(installation: Installation) -> Iterator[None]:
    """The operator says that packages run no code of their own when they are installed."""
    _restart_gateway(installation, "never")
    yield
    _restart_gateway(installation, "run")


def _restart_gateway(installation: Installation, scripts: str) -> None:
    pid_file = Path(installation.variables["QILA_RUN_DIR"]) / "gateway.pid"
    os.kill(json.loads(pid_file.read_text())["pid"], signal.SIGKILL)
    changed: Any = type(installation)(variables={**installation.variables, "QILA_INSTALL_SCRIPTS": scripts})
    done = changed.qila("up")
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.usefixtures("no_scripts")
class TestOperatorForbidsInstallScripts:
    """QILA_INSTALL_SCRIPTS=never."""

    def test_python_package_without_a_wheel_is_refused(self, workbench: Workbench) -> None:
        sandbox = workbench.sandbox({"requirements.txt": "crcmod==1.7\n", PYTHON: "import crcmod\n"})
        told = workbench.run(sandbox, PYTHON)
        assert told.failure.partition("\n")[0] == "policy_denied", told.everything()
        assert "crcmod has no wheel for this Python, and the operator does not allow" in told.failure

    def test_python_package_with_a_wheel_is_installed(self, workbench: Workbench) -> None:
        sandbox = workbench.sandbox({"requirements.txt": "six==1.17.0\n", PYTHON: "import six\nprint(six.__name__)\n"})
        told = workbench.run(sandbox, PYTHON)
        assert told.output() == "six\n", told.everything()

    def test_node_package_is_installed_and_its_script_does_not_run(self, workbench: Workbench) -> None:
        source = "console.log(require('fs').existsSync(require.resolve('fs-ext/package.json') + '/../build'))\n"
        sandbox = workbench.sandbox({"package.json": package_json(**{"fs-ext": "2.1.1"}), NODE: source})
        told = workbench.run(sandbox, NODE)
        assert told.output() == "false\n", told.everything()
