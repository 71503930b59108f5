"""What planning costs for a large tree."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from pathlib import Path

from bench.figures import Figure, compare
from bench.stack import ROOT, Stack

FILES = 3_000
RUNS = 3
# Imported by the files, in turn; those of the standard library and of the tree itself come on top.
MODULES = ("requests", "yaml", "numpy", "pandas", "bs4", "flask", "jinja2", "sqlalchemy", "click", "rich", "httpx")
NAMES = ("requests", "pyyaml", "beautifulsoup4", "sqlalchemy", "httpx")
PIPREQS = """
import sys
from pipreqs.pipreqs import get_all_imports, get_pkg_names
print(*get_pkg_names(get_all_imports(sys.argv[1])))
"""
BODY = '''
class Worker{number}:
    """Works on numbers."""

    def __init__(self, factor: int = {number}) -> None:
        self.factor = factor
        self.seen: dict[str, int] = {{}}

    def work(self, values: list[int]) -> list[int]:
        result = []
        for index, value in enumerate(values):
            if value % 2:
                result.append(value * self.factor + index)
            else:
                self.seen[f"{{index}}: {{value!r}}"] = value
        return sorted(result, key=lambda item: (-item, str(item)))
'''
# About 100 lines a file.
BODIES = 7


def plan_of_large_tree(_: Stack) -> Figure:
    """Both as a process that reads the tree from the disk. pipreqs is spared what it would look up afterwards."""
    with tempfile.TemporaryDirectory(prefix="qila-bench-") as directory:
        tree = Path(directory)
        write_tree(tree)
        binaries = ROOT / ".venv" / "bin"
        return compare(
            f"plan of a tree of {FILES} Python files",
            lambda: requirements_of([binaries / "qila", "plan", tree]),
            lambda: requirements_of([binaries / "python", "-c", PIPREQS, tree]),
            "pipreqs, its scan and its mapping of names alone",
            RUNS,
        )


def requirements_of(command: list[str | Path]) -> None:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, env=environment)
    if not all(name in done.stdout.lower() for name in NAMES):
        raise SystemExit(f"not all was found: {done.stdout}{done.stderr}")


def write_tree(tree: Path) -> None:
    """The same files each time; each one imports the next, so that all of them belong to the program."""
    chooser = random.Random(7)
    for number in range(FILES):
        package = tree / f"package{number % 50:02}"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
        imports = ["import json", "from pathlib import Path", f"import {chooser.choice(MODULES)}"]
        imports.append(f"from package{(number + 1) % 50:02} import module{(number + 1) % FILES:04}")
        body = "".join(BODY.format(number=number * BODIES + count) for count in range(BODIES))
        (package / f"module{number:04}.py").write_text("\n".join(imports) + "\n" + body, encoding="utf-8")
    (tree / "main.py").write_text("from package00 import module0000\nprint(module0000)\n", encoding="utf-8")
