"""Which file is the program, and how it is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.resolver.errors import TargetAmbiguousError, TargetNotFoundError
from services.resolver.paths import WORKSPACE, join
from services.resolver.python.modules import PACKAGE_FILE, SOURCE_SUFFIXES
from services.resolver.python.notebook import NOTEBOOK_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.resolver.model import Target
    from services.resolver.python.modules import LocalModules

PYTHON = "python3"
# A program of the image that runs what Python cannot run by itself.
NOTEBOOK_PROGRAM = "/usr/lib/qila/python/run_notebook.py"
MAIN_FILE = "__main__.py"
ENTRIES = ("main.py", "app.py", "__main__.py", "run.py", "src/main.py", "src/app.py")
MAX_CANDIDATES = 10
SOURCE_DIRECTORY = "src"
NEVER_ENTRIES = frozenset({"setup.py", "conftest.py", PACKAGE_FILE})


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """How a program is named to Python, and what it runs.

    `path` is its file; empty where Python runs the module `runs`, which is not of the workspace. `roots` are the
    directories in which it looks for modules, `own_root` the one of them that Python searches by itself. `starts` are
    the files from which its imports are followed, `test_roots` where those look for modules as well.
    """

    path: str
    roots: tuple[str, ...]
    argv: tuple[str, ...]
    own_root: str | None
    starts: tuple[str, ...]
    runs: str = ""
    test_roots: tuple[str, ...] = ()


def find_program(tree: Sequence[str], target: Target) -> str:
    """The target's file, or the workspace's own entry: a usual name, else the only program at the root.

    Raises TargetNotFoundError or TargetAmbiguousError.
    """
    if target.program:
        program = target.program.removeprefix("./").rstrip("/")
        for path in (program, f"{program}/{MAIN_FILE}"):
            if path in tree:
                return path
        name = program.rpartition("/")[2]
        alike = sorted(path for path in tree if path.rpartition("/")[2] == name)
        raise TargetNotFoundError(program=target.program, candidates=tuple(alike[:MAX_CANDIDATES]))
    paths = set(tree)
    usual = next((entry for entry in ENTRIES if entry in paths), "")
    if usual:
        return usual
    for candidates in (programs_at_root(paths), packages_at_root(paths), notebooks_at_root(paths)):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise TargetAmbiguousError(candidates=tuple(candidates[:MAX_CANDIDATES]))
    raise TargetNotFoundError(program="")


def programs_at_root(paths: Iterable[str]) -> list[str]:
    """Python files at the root that may be programs."""
    return sorted(
        path
        for path in paths
        if "/" not in path
        and path.endswith(SOURCE_SUFFIXES)
        and path not in NEVER_ENTRIES
        and not path.startswith("test_")
    )


def packages_at_root(paths: Iterable[str]) -> list[str]:
    """The `__main__.py` of packages at the root or in `src`."""
    return sorted(
        path
        for path in paths
        if path.endswith("/__main__.py") and path.removeprefix(f"{SOURCE_DIRECTORY}/").count("/") == 1
    )


def notebooks_at_root(paths: Iterable[str]) -> list[str]:
    """The notebooks at the root."""
    return sorted(path for path in paths if "/" not in path and path.endswith(NOTEBOOK_SUFFIX))


def program_of(path: str, modules: LocalModules, *, uses_relative_imports: bool) -> Program:
    """How to start a file: as a module of its package if it is one that needs it, else as a script or a notebook."""
    directory = path.rpartition("/")[0]
    if path.endswith(NOTEBOOK_SUFFIX):
        argv: tuple[str, ...] = (NOTEBOOK_PROGRAM, path)
        return Program(path=path, roots=search_roots(directory, modules), argv=argv, own_root=directory, starts=(path,))
    in_package = bool(directory) and modules.has_file(join(directory, PACKAGE_FILE))
    if in_package and (uses_relative_imports or path.endswith("/__main__.py")):
        parent = directory
        while parent and modules.has_file(join(parent, PACKAGE_FILE)):
            parent = parent.rpartition("/")[0]
        module = path.rpartition(".")[0].removeprefix(f"{parent}/" if parent else "").replace("/", ".")
        argv = ("-m", module.removesuffix(".__main__"))
        return Program(path=path, roots=search_roots(parent, modules), argv=argv, own_root="", starts=(path,))
    argv = (_as_argument(path),)
    return Program(path=path, roots=search_roots(directory, modules), argv=argv, own_root=directory, starts=(path,))


def _as_argument(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path


def search_roots(first: str, modules: LocalModules) -> tuple[str, ...]:
    """Where modules are looked for: the program's directory, the workspace's root, and their `src`."""
    roots = [first, ""]
    roots += [root for root in (join(first, SOURCE_DIRECTORY), SOURCE_DIRECTORY) if modules.has_directory(root)]
    return tuple(dict.fromkeys(roots))


def launch_environment(program: Program, environment: str) -> dict[str, str]:
    """The variables of a launch: its environment, and the roots that Python would not search by itself.

    An empty environment is named too: a program that needs nothing must not see an older environment.
    """
    variables = {"QILA_PYTHON_ENV": environment}
    others = [root for root in program.roots if root != program.own_root]
    if others:
        variables["PYTHONPATH"] = ":".join(join(WORKSPACE, root) if root else WORKSPACE for root in others)
    return variables
