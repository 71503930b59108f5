"""What a Python of the sandbox finds at its start."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.image.python.compile_bytecode import compile_tree

SUPPORT = Path(__file__).resolve().parents[3] / "sandbox/image/python"
# The interpreter behind this virtual environment: one of a virtual environment is left alone.
BASE_PYTHON = str(getattr(sys, "_base_executable", sys.executable))


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    library = tmp_path / "env/python/fp/lib"
    files = {
        "pack/__init__.py": "def shout():\n    raise RuntimeError('from pack')\n",
        "pack/data.txt": "data",
        "space/part.py": "VALUE = 1\n",
        "single.py": "VALUE = 1\n",
        "extra.pth": "linked\n",
        "linked/through.py": "VALUE = 1\n",
    }
    for name, content in files.items():
        path = library / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return library.parent


def run(
    code: str, chosen: str, tmp_path: Path, *options: str, python: str = BASE_PYTHON
) -> subprocess.CompletedProcess[str]:
    settings = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SUPPORT),
        "PYTHONUSERBASE": str(tmp_path / "user"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "QILA_PYTHON_ENV": chosen,
    }
    return subprocess.run(
        [python, *options, "-c", code], env=settings, capture_output=True, text=True, timeout=30, check=False
    )


def value(code: str, chosen: str, tmp_path: Path, *options: str) -> object:
    answer = run(f"import json; {code}", chosen, tmp_path, *options)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    return json.loads(answer.stdout)


def compile_environment(environment: Path) -> Path:
    out = environment.parents[2] / "bytecode/python" / environment.name
    compile_tree(environment / "lib", out)
    return out


def test_packages_come_after_the_users_own_and_before_the_systems(environment: Path, tmp_path: Path) -> None:
    user = tmp_path / f"user/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    user.mkdir(parents=True)
    path = value("import sys, site; print(json.dumps([sys.path, site.getsitepackages()]))", str(environment), tmp_path)
    assert isinstance(path, list)
    entries, system = path
    library = str(environment / "lib")
    assert entries.index(str(user)) < entries.index(library) < entries.index(library + "/linked")
    assert entries.index(library + "/linked") < entries.index(system[0])


@pytest.mark.parametrize("chosen", ["", "/nowhere", "relative"])
def test_without_an_environment_nothing_changes(chosen: str, tmp_path: Path) -> None:
    plain = value("import sys; print(json.dumps([sys.path, len(sys.path_hooks)]))", chosen, tmp_path)
    assert plain == value("import sys; print(json.dumps([sys.path, len(sys.path_hooks)]))", "", tmp_path)


def test_a_link_is_followed_once_so_that_a_switch_does_not_reach_a_running_program(
    environment: Path, tmp_path: Path
) -> None:
    link = tmp_path / "current"
    link.symlink_to(environment)
    assert value("import single; print(json.dumps(single.__file__))", str(link), tmp_path) == str(
        environment / "lib/single.py"
    )


def test_a_virtual_environment_keeps_its_own_packages(environment: Path, tmp_path: Path) -> None:
    assert sys.prefix != sys.base_prefix
    answer = run("import single", str(environment), tmp_path, python=sys.executable)
    assert "ModuleNotFoundError" in answer.stderr


@pytest.mark.parametrize("module", ["single", "space.part", "through"])
def test_compiled_modules_are_read_instead_of_their_source(module: str, environment: Path, tmp_path: Path) -> None:
    compile_environment(environment)
    # The compiled form is not compared with the source, so a source that changed shows which one was read.
    for path in (environment / "lib").rglob("*.py"):
        path.write_text("VALUE = 2\n")
    code = f"import {module} as module; print(json.dumps(module.VALUE))"
    assert value(code, str(environment), tmp_path) == 1
    assert value(code, str(environment), tmp_path, "-O") == 2


@pytest.mark.parametrize("content", [b"", b"garbage", b"\0" * 40])
def test_a_broken_compiled_file_falls_back_to_the_source(content: bytes, environment: Path, tmp_path: Path) -> None:
    (compile_environment(environment) / "single.pyc").write_bytes(content)
    assert value("import single; print(json.dumps(single.VALUE))", str(environment), tmp_path) == 1


@pytest.mark.parametrize("header", [b"\0\0\r\n\x01\0\0\0", importlib.util.MAGIC_NUMBER + b"\0\0\0\0"])
def test_a_compiled_file_of_another_python_or_kind_falls_back_to_the_source(
    header: bytes, environment: Path, tmp_path: Path
) -> None:
    compiled = compile_environment(environment) / "single.pyc"
    compiled.write_bytes(header + compiled.read_bytes()[8:])
    (environment / "lib/single.py").write_text("VALUE = 2\n")
    assert value("import single; print(json.dumps(single.VALUE))", str(environment), tmp_path) == 2


def test_a_cut_compiled_file_falls_back_to_the_source(environment: Path, tmp_path: Path) -> None:
    compiled = compile_environment(environment) / "single.pyc"
    compiled.write_bytes(compiled.read_bytes()[:-5])
    assert value("import single; print(json.dumps(single.VALUE))", str(environment), tmp_path) == 1


def test_source_traceback_and_resources_work_with_compiled_modules(environment: Path, tmp_path: Path) -> None:
    compile_environment(environment)
    code = (
        "import inspect, importlib.resources as r, pack, pkgutil;"
        "print(json.dumps([inspect.getsource(pack.shout), r.files('pack').joinpath('data.txt').read_text(),"
        "sorted(m.name for m in pkgutil.iter_modules([pack.__path__[0] + '/..']))]))"
    )
    printed = value(code, str(environment), tmp_path)
    assert isinstance(printed, list)
    source, data, names = printed
    assert source.startswith("def shout")
    assert data == "data"
    assert {"pack", "single"} <= set(names)
    answer = run("import pack; pack.shout()", str(environment), tmp_path)
    assert f'File "{environment}/lib/pack/__init__.py", line 2, in shout' in answer.stderr
    assert "raise RuntimeError('from pack')" in answer.stderr
