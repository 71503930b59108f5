"""Runs the code cells of a Jupyter notebook in order, in one namespace, as one program.

Usage: run_notebook.py NOTEBOOK [ARGUMENT ...]

The last expression of a cell is shown. With IPython in the environment its magics work; without it `!command` and
`%%bash` run in a shell, the value of `%%time` and its like is the cell itself, and other magics are passed over with a
note on stderr. `%pip` and its like are passed over either way: what the notebook needs is installed before it runs.
An error ends the run with exit code 1; its traceback names the cell. Reads nbformat 3 and 4.
"""

import ast
import asyncio
import builtins
import inspect
import io
import json
import linecache
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

LIMIT_BYTES = 64 * 1024 * 1024
LIMIT_CELLS = 10_000
INSTALLS = re.compile(r"\s*[%!]{1,2}\s*(?:\S*/)?(?:python[\d.]*\s+-m\s+)?(?:pip[\d.]*|conda|mamba|uv)\s")
PLOTS = re.compile(r"%matplotlib\b")
SHELL = re.compile(r"(?P<indent>\s*)(?:(?P<name>[A-Za-z_]\w*)\s*=\s*)?!{1,2}(?P<command>.*)")
MAGIC = re.compile(r"(?P<indent>\s*)(?:[A-Za-z_]\w*\s*=\s*)?(?P<magic>%{1,2}[A-Za-z]\w*)(?P<rest>.*)")
HELP = re.compile(r"\s*\?{1,2}[\w.]+\s*|\s*[\w.]+\?{1,2}\s*")
# Cell magics whose body is Python all the same, and those whose body is another language's that a shell can start.
PYTHON_BODIES = frozenset({"%%time", "%%timeit", "%%capture", "%%prun", "%%python", "%%python3"})
SHELL_BODIES = {"%%bash": "bash", "%%sh": "sh", "%%perl": "perl", "%%ruby": "ruby"}
LINE_BODIES = frozenset({"%time", "%timeit", "%prun"})


class NotebookError(Exception):
    """The file is not a notebook that can be run here."""


def read_cells(content: bytes) -> list[str]:
    """The source of each code cell; raises NotebookError."""
    if len(content) > LIMIT_BYTES:
        raise NotebookError(f"is above {LIMIT_BYTES} bytes; clear the outputs")
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise NotebookError(f"is not JSON: {error}") from error
    if not isinstance(notebook, dict):
        raise NotebookError("is not a notebook: no object with cells")
    sheets = notebook.get("worksheets", [notebook])
    cells = [cell for sheet in sheets if isinstance(sheet, dict) for cell in sheet.get("cells") or ()]
    if not cells and "cells" not in notebook and "worksheets" not in notebook:
        raise NotebookError("is not a notebook: it has no cells")
    if len(cells) > LIMIT_CELLS:
        raise NotebookError(f"has more than {LIMIT_CELLS} cells")
    return [source_of(cell) for cell in cells if isinstance(cell, dict) and cell.get("cell_type") == "code"]


def source_of(cell: dict[str, Any]) -> str:
    """A cell's text: nbformat 4 calls it `source`, 3 `input`; a string or a list of lines."""
    source = cell.get("source", cell.get("input", ""))
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def plain_python(source: str, note: Callable[[str], None]) -> str:
    """A cell without IPython's own syntax, each line where it was."""
    first = source.lstrip().split("\n", 1)[0].split()
    if first and first[0] in SHELL_BODIES:
        body = source.lstrip().partition("\n")[2]
        return f"__shell__({body!r}, {SHELL_BODIES[first[0]]!r})"
    if first and first[0].startswith("%%") and first[0] not in PYTHON_BODIES:
        note(f"{first[0]} is passed over: it needs IPython")
        return ""
    if parses(source):
        return source
    return "\n".join(plain_line(line, note) for line in source.split("\n"))


def parses(source: str) -> bool:
    """Whether a cell is Python as it stands: then no line of it is a magic, whatever its strings hold."""
    try:
        compile(source, "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError):
        return False
    return True


def plain_line(line: str, note: Callable[[str], None]) -> str:
    """One line without IPython's own syntax."""
    shell = SHELL.fullmatch(line)
    if shell:
        name = f"{shell['name']} = " if shell["name"] else ""
        return f"{shell['indent']}{name}__shell__({shell['command']!r}, {'list' if name else 'sh'!r})"
    magic = MAGIC.fullmatch(line)
    if magic and magic["magic"] in LINE_BODIES:
        return f"{magic['indent']}{magic['rest'].lstrip()}"
    if magic and magic["magic"] not in PYTHON_BODIES:
        note(f"{magic['magic']} is passed over: it needs IPython")
    if magic or HELP.fullmatch(line):
        return f"{(magic['indent'] if magic else '')}pass"
    return line


def without_installs(source: str, note: Callable[[str], None]) -> str:
    """A cell without `%pip install` and its like, and without the choice of a window for plots: there is none."""
    lines = source.split("\n")
    for number, line in enumerate(lines):
        if PLOTS.match(line):
            lines[number] = ""
        if INSTALLS.match(line):
            note(f"{line.strip()[:200]} is passed over: what the notebook needs is installed before it runs")
            lines[number] = f"{line[: len(line) - len(line.lstrip())]}pass"
    return "\n".join(lines)


def run_shell(command: str, interpreter: str) -> list[str] | None:
    """Run a cell's or a line's command; its output as lines if it is assigned."""
    sys.stdout.flush()
    if interpreter == "list":
        done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603, S607
        return done.stdout.splitlines()
    subprocess.run([interpreter, "-c" if interpreter in {"sh", "bash"} else "-e", command], check=False)  # noqa: S603
    return None


class Runner:
    """The cells of one notebook and the namespace that they share."""

    def __init__(self, path: str, namespace: dict[str, Any], transform: Callable[[str], str] | None) -> None:
        self.path = path
        self.namespace = namespace
        self.transform = transform
        self.loop: asyncio.AbstractEventLoop | None = None

    def run(self, number: int, source: str) -> None:
        """Run one cell; whatever the program raises is raised."""

        def note(message: str) -> None:
            sys.stderr.write(f"notebook: cell {number}: {message}\n")

        name = f"{self.path}, cell {number}"
        text = without_installs(source, note)
        text = self.transform(text) if self.transform else plain_python(text, note)
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        tree = compile(text, name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        shown = last if last and not text.rstrip().endswith(";") else None
        if last and not shown:
            tree.body.append(last)
        self.execute(compile(tree, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        if isinstance(shown, ast.Expr):
            expression = ast.Expression(shown.value)
            self.show(self.execute(compile(expression, name, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)))

    def execute(self, code: Any) -> Any:
        """Run compiled code; where it awaits at the top, in one loop for the whole notebook."""
        if not code.co_flags & inspect.CO_COROUTINE:
            return eval(code, self.namespace)  # noqa: S307 -- running the notebook is the purpose
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
        return self.loop.run_until_complete(eval(code, self.namespace))  # noqa: S307 -- as above

    def show(self, value: object) -> None:
        """Show the value of a cell's last expression."""
        if value is not None:
            self.namespace["_"] = value
            sys.stdout.write(f"{value!r}\n")


def ipython() -> tuple[dict[str, Any], Callable[[str], str]] | None:
    """The namespace and the syntax of IPython, if the environment has it."""
    try:
        from IPython.core.interactiveshell import InteractiveShell  # noqa: PLC0415 -- only if it is there
    except ImportError:
        return None
    shell = InteractiveShell.instance()
    return shell.user_ns, shell.transform_cell


def namespace_of(path: str) -> dict[str, Any]:
    """The namespace of a plain notebook: that of a new `__main__`, so that what it defines can be pickled."""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    module.__dict__.update(__file__=path, __builtins__=builtins, __shell__=run_shell, display=display)
    return module.__dict__


def display(*values: object) -> None:
    """What IPython's `display` is to a notebook, as text."""
    for value in values:
        sys.stdout.write(f"{value!r}\n")


def report(error: BaseException) -> None:
    """The traceback from the first frame of the notebook on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    sys.stdout.flush()
    traceback.print_exception(error.with_traceback(frames))


def main() -> int:
    """Answers with an exit code: 0 all cells ran, 1 one failed, 2 the file is no notebook."""
    path = os.path.abspath(sys.argv[1])  # noqa: PTH100 -- every start pays for what is imported here
    try:
        with io.open_code(path) as file:
            cells = read_cells(file.read(LIMIT_BYTES + 1))
    except (OSError, NotebookError) as error:
        sys.stderr.write(f"{sys.argv[1]}: {error}\n")
        return 2
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(path)  # noqa: PTH120 -- as above
    found = ipython()
    namespace, transform = found or (namespace_of(path), None)
    runner = Runner(path, namespace, transform)
    for number, source in enumerate(cells, start=1):
        try:
            runner.run(number, source)
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001 -- whatever the program raised is reported
            report(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
