"""The runners of notebooks and scripts, by this machine's Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).parents[3] / "sandbox" / "image" / "python"


def run(program: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"]} | variables
    # Without what is installed: most environments have no IPython.
    argv = [sys.executable, "-S", str(PROGRAMS / program), *arguments]
    return subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60)


def write(path: Path, *cells: str, **document: Any) -> None:
    code = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    path.write_text(
        json.dumps({"nbformat": 4, "cells": [{"cell_type": "markdown", "source": "x = ("}, *code]} | document)
    )


@pytest.mark.parametrize(
    ("cells", "printed"),
    [
        (["x = 1\nx + 1", "x;", "None", "_ + 1"], "2\n3\n"),
        (["!echo a $((1 + 1))", "found = !printf 'b\\nc'", "found"], "a 2\n['b', 'c']\n"),
        (["%%bash\necho from bash"], "from bash\n"),
        (["if True:\n    !pip install nothing-at-all\n    print('inside')"], "inside\n"),
        (["s = '''\n!not a command\n%nor a magic\n'''\nprint(s.count('!'))"], "1\n"),
        (["%matplotlib inline\n%load_ext autoreload\nprint('on')", "len?\n"], "on\n"),
        (["%%time\nprint('timed')", "%time print('line')"], "timed\nline\n"),
        (["import asyncio\nawait asyncio.sleep(0)", "await asyncio.sleep(0, 'awaited')"], "'awaited'\n"),
        (["class A:\n    pass", "import pickle\nlen(pickle.dumps(A())) > 0"], "True\n"),
        (["import sys\nsys.argv[1:]", "__name__"], "['one', 'two']\n'__main__'\n"),
        (["import beside\nbeside.VALUE"], "7\n"),
    ],
)
def test_cells_run_in_order(cells: list[str], printed: str, tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", *cells)
    (tmp_path / "beside.py").write_text("VALUE = 7\n")
    done = run("run_notebook.py", "a.ipynb", "one", "two", cwd=tmp_path)
    assert (done.stdout, done.returncode) == (printed, 0), done.stderr


def test_traceback_names_the_cell_and_nothing_of_the_runner(tmp_path: Path) -> None:
    write(
        tmp_path / "a.ipynb", "def fail():\n    import no_such_module_xyz", "print('before')\nfail()", "print('after')"
    )
    done = run("run_notebook.py", "a.ipynb", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("before\n", 1)
    assert f'File "{tmp_path}/a.ipynb, cell 2", line 2, in <module>\n    fail()' in done.stderr
    assert f'File "{tmp_path}/a.ipynb, cell 1", line 2, in fail' in done.stderr
    assert "run_notebook" not in done.stderr
    assert done.stderr.endswith("No module named 'no_such_module_xyz'\n")


def test_exit_code_is_the_programs(tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", "import sys", "sys.exit(7)")
    assert run("run_notebook.py", "a.ipynb", cwd=tmp_path).returncode == 7


def test_what_is_skipped_is_said(tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", "%pip install x\n%who", "%%html\n<p>")
    lines = run("run_notebook.py", "a.ipynb", cwd=tmp_path).stderr.splitlines()
    assert [line.partition(" is passed over")[0] for line in lines] == [
        "notebook: cell 1: %pip install x",
        "notebook: cell 1: %who",
        "notebook: cell 2: %%html",
    ]


def test_old_format(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "input": ["print(", "3)"]}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]}))
    assert run("run_notebook.py", "a.ipynb", cwd=tmp_path).stdout == "3\n"


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", "[" * 100_000, '{"cells": [' + "1," * 20_000 + "1]}"])
def test_file_that_is_no_notebook(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text(content)
    done = run("run_notebook.py", "a.ipynb", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("a.ipynb: ")
    assert "Traceback" not in done.stderr


def test_magics_of_ipython_work_where_it_is_there(tmp_path: Path) -> None:
    library = Path(pytest.importorskip("IPython").__file__).parents[1]
    write(
        tmp_path / "a.ipynb",
        "%pip install x\n%env QILA_X=5",
        "%%capture out\nprint(1)",
        "out.stdout",
        "x = !echo y\nx[0]",
    )
    done = run("run_notebook.py", "a.ipynb", cwd=tmp_path, PYTHONPATH=str(library), HOME=str(tmp_path))
    assert (done.stdout, done.returncode) == ("env: QILA_X=5\n'1\\n'\n'y'\n", 0), done.stderr


def test_script_of_a_project(tmp_path: Path) -> None:
    (tmp_path / "pkg.py").write_text(
        "import sys\nclass app:\n    def run():\n        print(sys.argv)\n        return 5\n"
    )
    done = run("run_script.py", "hello", "pkg:app.run", "-x", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.stdout, done.returncode) == ("['hello', '-x']\n", 5)
