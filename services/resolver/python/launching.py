"""What a target means: a file, a module, a script of the project, or the workspace's own entry point."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from services.resolver.errors import TargetAmbiguousError, TargetNotFoundError
from services.resolver.model import Target
from services.resolver.paths import join
from services.resolver.python.manifests.readers import PYPROJECT
from services.resolver.python.modules import SOURCE_SUFFIXES
from services.resolver.python.scan import scan_source
from services.resolver.python.scripts import read_scripts
from services.resolver.python.table import import_table, standard_library
from services.resolver.python.target import (
    MAIN_FILE,
    MAX_CANDIDATES,
    Program,
    find_program,
    program_of,
    search_roots,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.resolver.python.modules import LocalModules

# The workspace's own entry point.
ENTRY = Target()
SCRIPT_PROGRAM = "/usr/lib/qila/python/run_script.py"
MODULE_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
TEST_FILE = re.compile(r"(^|/)(test_[^/]*|[^/]*_test|conftest)\.py")
TEST_RUNNERS = frozenset({"coverage", "nose2", "pytest", "unittest"})


class Launcher:
    """Chooses how a target is started, from the files of its workspace."""

    def __init__(
        self, *, files: Mapping[str, bytes], paths: Sequence[str], modules: LocalModules, python: tuple[int, ...]
    ) -> None:
        self._files = files
        self._paths = paths
        self._modules = modules
        self._python = python
        self._roots = search_roots("", modules)

    def choose(self, target: Target, *, has_manifest: bool) -> Program:
        """The program of a target; raises TargetNotFoundError, TargetAmbiguousError.

        A module that is nobody's is given the benefit of the doubt where a manifest may bring it.
        """
        if target.project:
            return self._project(target.project_directory)
        if target.module:
            return self._module(target, has_manifest=has_manifest)
        if target.script:
            return self._script(target.script)
        try:
            return self._file(find_program(self._paths, target))
        except (TargetNotFoundError, TargetAmbiguousError):
            if target.program:
                raise
            scripts = self._scripts()
            if len(scripts) == 1 and self._file_of(next(iter(scripts.values())).partition(":")[0]):
                return self._script(next(iter(scripts)))
            if target.command:
                return self._bare(target)
            raise

    def _file(self, path: str) -> Program:
        scan = scan_source(self._files.get(path, b"") if path.endswith(SOURCE_SUFFIXES) else b"", self._python)
        return program_of(path, self._modules, uses_relative_imports=any(item.level for item in scan.imports))

    def _module(self, target: Target, *, has_manifest: bool) -> Program:
        module = target.module
        path = self._file_of(module)
        if path:
            return Program(path=path, roots=self._roots, argv=("-m", module), own_root="", starts=(path,))
        top = module.partition(".")[0]
        is_local = self._modules.find(top, (), self._roots) is not None
        known = top in standard_library().modules or import_table().find(module) is not None
        if is_local or not MODULE_NAME.fullmatch(module) or not (known or has_manifest):
            raise TargetNotFoundError(program=module, candidates=self._runnable_modules(), what="module")
        starts = self._started(target, top)
        tests = tuple(dict.fromkeys(start.rpartition("/")[0] for start in starts))
        return Program(
            path="", roots=self._roots, argv=("-m", module), own_root="", starts=starts, runs=module, test_roots=tests
        )

    def _script(self, name: str) -> Program:
        scripts = self._scripts()
        if name not in scripts:
            raise TargetNotFoundError(program=name, candidates=tuple(sorted(scripts)[:MAX_CANDIDATES]), what="script")
        module = scripts[name].partition(":")[0]
        # A package runs by its `__init__.py`, not its `__main__.py`.
        local = self._modules.find(module, (), self._roots)
        starts = local.files if local else ()
        runs = "" if starts else module
        argv = (SCRIPT_PROGRAM, name, scripts[name])
        return Program(path="", roots=self._roots, argv=argv, own_root=None, starts=starts, runs=runs)

    def _project(self, directory: str) -> Program:
        """What all programs of a project may import."""
        start = f"{directory}/" if directory else ""
        starts = tuple(path for path in self._paths if path.startswith(start) and path.endswith(SOURCE_SUFFIXES))
        roots = search_roots(directory, self._modules)
        places = tuple(dict.fromkeys(path.rpartition("/")[0] for path in starts))
        return Program(path="", roots=roots, argv=(), own_root=None, starts=starts, test_roots=places)

    def _bare(self, target: Target) -> Program:
        """What a command of the client's own may run: the files that it names, else all tests."""
        words = (*target.command, *target.args)
        starts = self._named(words) or self._tests()
        tests = tuple(dict.fromkeys(start.rpartition("/")[0] for start in starts))
        return Program(path="", roots=self._roots, argv=(), own_root=None, starts=starts, test_roots=tests)

    def _started(self, target: Target, top: str) -> tuple[str, ...]:
        """The files that a module of others will run: those that the arguments name, tests, or the usual entry."""
        named = self._named(target.args)
        if named or top in TEST_RUNNERS:
            return named or self._tests()
        if top in standard_library().modules:
            return ()
        try:
            return (find_program(self._paths, ENTRY),)
        except (TargetNotFoundError, TargetAmbiguousError):
            return ()

    def _named(self, words: Sequence[str]) -> tuple[str, ...]:
        """Files that words name by path, or as modules (`main:app`)."""
        paths = set(self._paths)
        found = []
        for word in words:
            path = word.partition("::")[0].removeprefix("./")
            module = word.partition(":")[0]
            if path in paths and path.endswith(SOURCE_SUFFIXES):
                found.append(path)
            elif MODULE_NAME.fullmatch(module) and self._file_of(module):
                found.append(self._file_of(module))
        return tuple(dict.fromkeys(found))

    def _tests(self) -> tuple[str, ...]:
        return tuple(path for path in self._paths if TEST_FILE.search(path))

    def _file_of(self, module: str) -> str:
        """The file that `python -m` would run for a module of the workspace, or the empty string."""
        place = module.replace(".", "/")
        candidates = (join(root, f"{place}{end}") for root in self._roots for end in (".py", f"/{MAIN_FILE}"))
        return next((path for path in candidates if self._modules.has_file(path)), "")

    def _runnable_modules(self) -> tuple[str, ...]:
        places = (path.removesuffix(f"/{MAIN_FILE}") for path in self._paths if path.endswith(f"/{MAIN_FILE}"))
        return tuple(sorted(place.removeprefix("src/").replace("/", ".") for place in places)[:MAX_CANDIDATES])

    def _scripts(self) -> dict[str, str]:
        return read_scripts(self._files.get(PYPROJECT, b""))
