"""Which package, files or tests are to be run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.resolver.errors import TargetAmbiguousError, TargetNotFoundError
from services.resolver.go.scan import is_source, is_test
from services.resolver.go.sources import MOD, directory_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.resolver.go.sources import Sources
    from services.resolver.model import Target

TEST = "test"
MAX_CANDIDATES = 10
ENTRY = re.compile(r"(?:cmd/[^/]+/)?main\.go")


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What is run: the package in `directory`, or those of its files that are one of several programs there.

    With `tests`, what runs are tests: the directory's, or (`everything`) those of its whole module. Nothing is to be
    run for a command of the client's own (`bare`).
    """

    directory: str = ""
    files: tuple[str, ...] = ()
    tests: bool = False
    everything: bool = False
    bare: bool = False


def claims(paths: Iterable[str], target: Target) -> int:
    """See Planner."""
    if target.module:
        return 0
    names = list(paths)
    if target.program:
        program = target.program.removeprefix("./")
        return 2 if is_source(program) or any(_lies_in(path, program) for path in names) else 0
    programs = [path for path in names if is_source(path)]
    if target.script:
        return (2 if target.script == TEST else 1) if programs else 0
    if not programs:
        return 0
    return 2 if MOD in names or any(_is_entry(path) for path in programs) else 1


def find_program(sources: Sources, target: Target) -> Program:
    """The target's file, directory or tests, or the workspace's own program.

    Without a target: the root's package, else the only program in `cmd/`, else the only one at all. Raises
    TargetNotFoundError, TargetAmbiguousError.
    """
    if target.project:
        return Program(directory=target.project_directory, bare=True, everything=True)
    if target.script:
        return _script(sources, target.script)
    if target.program:
        return _named(sources, target.program)
    try:
        return _entry(sources)
    except (TargetNotFoundError, TargetAmbiguousError):
        if target.command:
            return Program(bare=True, everything=True)
        raise


def _script(sources: Sources, script: str) -> Program:
    if script != TEST:
        raise TargetNotFoundError(program=script, candidates=(TEST,), what="script")
    if MOD in sources.tree:
        return Program(tests=True, everything=True)
    modules = sorted(directory_of(path) for path in sources.tree if path.rpartition("/")[2] == MOD)
    if len(modules) > 1:
        raise TargetAmbiguousError(candidates=tuple(f"{place}/{MOD}" for place in modules[:MAX_CANDIDATES]))
    return Program(directory=modules[0] if modules else "", tests=True, everything=True)


def _named(sources: Sources, wanted: str) -> Program:
    path = wanted.removeprefix("./").rstrip("/")
    if path in sources.tree:
        return _file(sources, path)
    if sources.has_package(path):
        mains = sources.mains(path)
        return Program(directory=path) if mains or not sources.tests(path) else Program(directory=path, tests=True)
    if path.endswith(f"/{MOD}") or path == MOD:
        raise TargetNotFoundError(program=wanted)
    name = path.rpartition("/")[2]
    alike = sorted(item for item in sources.tree if item.rpartition("/")[2] == name)
    raise TargetNotFoundError(program=wanted, candidates=tuple(alike[:MAX_CANDIDATES]))


def _file(sources: Sources, path: str) -> Program:
    """The whole package of a file, unless its directory holds several programs."""
    directory = directory_of(path)
    if is_test(path):
        return Program(directory=directory, tests=True)
    mains = sources.mains(directory)
    scanned = sources.scan(path)
    if not scanned.ignored and len(mains) <= 1:
        return Program(directory=directory)
    if scanned.ignored:
        return Program(directory=directory, files=(path,))
    shared = [item for item in sources.built(directory) if item not in mains and sources.scan(item).package == "main"]
    return Program(directory=directory, files=tuple(sorted({path, *shared})))


def _entry(sources: Sources) -> Program:
    mains = {directory: sources.mains(directory) for directory in sources.packages_anywhere()}
    found = {directory: paths for directory, paths in mains.items() if paths}
    in_cmd = {directory: paths for directory, paths in found.items() if directory_of(directory) == "cmd"}
    for chosen in ({"": found[""]} if "" in found else {}, in_cmd, found):
        if chosen:
            return _only(sources, chosen)
    raise TargetNotFoundError(program="")


def _only(sources: Sources, found: dict[str, list[str]]) -> Program:
    paths = sorted(path for group in found.values() for path in group)
    usual = [path for path in paths if path.rpartition("/")[2] == "main.go"]
    if len(paths) == 1 or (len(found) == 1 and usual):
        return _file(sources, (usual or paths)[0])
    raise TargetAmbiguousError(candidates=tuple(paths[:MAX_CANDIDATES]))


def _lies_in(path: str, directory: str) -> bool:
    return is_source(path) and directory_of(path) == directory.rstrip("/")


def _is_entry(path: str) -> bool:
    return ENTRY.fullmatch(path) is not None
