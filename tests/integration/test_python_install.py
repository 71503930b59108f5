"""The steps of Python plans, run by the shipped image's uv in a real sandbox, through the PyPI door."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator

import pytest
from doors_harness import Workplace  # type: ignore[import-not-found]  # pytest puts this directory on the path
from sandboxd_harness import Sandbox  # type: ignore[import-not-found]  # as above

from services.executor.egress.registries import load_registries
from services.resolver.model import Context, Options, Plan, Target
from services.resolver.plan import explain_run, plan
from services.resolver.python.lock import read_native_lock
from services.resolver.python.native_pylock import public_lock

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

PYTHON = "3.13.5"
DOOR = "http://127.0.0.1:7480/pypi"
PYPI = load_registries().pypi
REGISTRY_URLS = {f"{DOOR}/simple/": f"{PYPI.url('index')}/simple/", f"{DOOR}/files/": f"{PYPI.url('files')}/"}


@pytest.fixture(scope="module")
def place(sandbox_image: str) -> Iterator[Workplace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QILA_TEST_IMAGE", sandbox_image)
        with Sandbox() as sandbox, Workplace(sandbox) as made:
            yield made


def planned(files: dict[str, str], **options: object) -> Plan:
    context = Context(toolchain={"python": PYTHON}, options=Options(**options))  # type: ignore[arg-type]  # by name
    return plan({path: text.encode() for path, text in files.items()}, list(files), Target(), context)


def install(place: Workplace, made: Plan, *, code: int = 0) -> str:
    """Run the steps as the install user; what they print, and the native lock behind a mark."""
    lines = ["exec 2>&1"]
    lines += [
        f"echo {base64.b64encode(file.content).decode()} | base64 -d > {shlex.quote(file.path)}" for file in made.staged
    ]
    for step in made.steps:
        assignments = [f"{name}={value}" for name, value in step.env.items()]
        lines.append(shlex.join(["env", *assignments, *step.argv]))
    lines += ["echo '=== lock'", f"cat {made.native_lock}"]
    return str(place.run("\n".join(lines), user="install", code=code))


def test_solved_lock_installs_and_names_no_door(place: Workplace) -> None:
    made = planned({"main.py": "import requests\nimport docopt\n"})
    output, _, lock = install(place, made).partition("=== lock\n")
    assert "lock-version" not in output
    assert re.search(r"^Resolved \d+ packages in", output, re.MULTILINE)
    assert " + requests==" in output
    public = public_lock(lock.encode(), REGISTRY_URLS)
    assert b"127.0.0.1" in lock.encode()
    assert b"127.0.0.1" not in public
    assert f'url = "{PYPI.url("files")}/packages/'.encode() in public
    assert {pin.name for pin in read_native_lock(public, PYTHON)} > {"requests", "docopt", "idna"}


def test_authors_lock_keeps_its_hashes_when_something_is_added(place: Workplace) -> None:
    first = install(place, planned({"main.py": "import idna\n"})).partition("=== lock\n")[2]
    (pin,) = read_native_lock(first.encode(), PYTHON)
    hashes = " ".join(f"--hash={value}" for value in pin.hashes)
    files = {"main.py": "import idna\nimport six\n", "requirements.txt": f"idna=={pin.version} {hashes}\n"}
    lock = install(place, planned(files, added=("six",))).partition("=== lock\n")[2]
    assert {pin.name for pin in read_native_lock(lock.encode(), PYTHON)} == {"idna", "six"}
    wrong = re.sub(r"sha256:.{8}", "sha256:deadbeef", files["requirements.txt"])
    refused = planned(files | {"requirements.txt": wrong}, added=("six",))
    assert "ash mismatch" in install(place, refused, code=1)


def test_package_without_a_wheel_is_not_built_where_builds_are_not_allowed(place: Workplace) -> None:
    assert "no usable wheels" in install(place, planned({"main.py": "import docopt\n"}, scripts=False), code=1)


def test_notebook_runs_with_what_it_needs(place: Workplace) -> None:
    cells = [["%pip install six\n", "import six, docopt"], ["six.__version__.count('.')"], ["import docopt.nope"]]
    notebook = {"nbformat": 4, "cells": [{"cell_type": "code", "source": source} for source in cells]}
    files = {"a.ipynb": json.dumps(notebook, indent=1)}
    made = planned(files)
    install(place, made)
    variables = [f"{name}={value}" for name, value in made.launch.env.items()]
    script = f"""
        echo {base64.b64encode(files["a.ipynb"].encode()).decode()} | base64 -d > a.ipynb
        {shlex.join(["env", *variables, *made.launch.argv])}
        """
    output = place.run(script, code=1)
    assert output.startswith("2\n")
    assert 'a.ipynb, cell 3", line 1' in output
    (missing,) = explain_run("python", output.encode(), ()).missing
    assert (missing.module, missing.line, missing.suggestion) == ("docopt.nope", 1, "")


def test_script_of_a_project_runs(place: Workplace) -> None:
    project = '[project]\nname = "x"\ndependencies = []\n[project.scripts]\nhello = "pkg.cli:main"\n'
    files = {"pyproject.toml": project, "pkg/__init__.py": "", "pkg/cli.py": "def main():\n    print('hello')\n"}
    made = planned(files)
    script = f"""
        mkdir pkg
        touch pkg/__init__.py
        echo {base64.b64encode(files["pkg/cli.py"].encode()).decode()} | base64 -d > pkg/cli.py
        {shlex.join(["env", "PYTHONPATH=.", *made.launch.argv])}
        """
    assert place.run(script) == "hello\n"
