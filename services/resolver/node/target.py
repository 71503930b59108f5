"""Which file or script is the program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.resolver.errors import TargetAmbiguousError, TargetNotFoundError
from services.resolver.model import Target
from services.resolver.node.modules import LocalFiles
from services.resolver.node.package import Packages
from services.resolver.node.scan import DECLARATION_SUFFIXES, SOURCE_SUFFIXES
from services.resolver.paths import join, normal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from services.resolver.node.detect import Detection
    from services.resolver.node.package import Package, Workspace

SUFFIX_ORDER = (".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".tsx", ".jsx")
ENTRIES = tuple(
    f"{directory}{name}{suffix}"
    for directory in ("", "src/")
    for name in ("index", "main", "app", "server")
    for suffix in SUFFIX_ORDER
)
START = "start"
MAX_CANDIDATES = 10
# Files at the root that tools read, and tests: never the program.
TOOL_MARKS = (".config.", ".conf.", ".test.", ".spec.", ".setup.", "rc.")
TOOL_FILES = frozenset({"gulpfile", "gruntfile", "karma", "webpack", "jest", "vite-env", "next-env", "setupTests"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What is run: a file, or a script of the package in `directory`."""

    path: str = ""
    script: str = ""
    directory: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A program, as it was asked for, and what its files import."""

    program: Program
    target: Target
    detection: Detection


def is_program(path: str) -> bool:
    """Whether Node can be given the file to run."""
    return path.endswith(SOURCE_SUFFIXES) and not path.endswith(DECLARATION_SUFFIXES)


def has_entry(paths: Iterable[str]) -> bool:
    """Whether a workspace has a file of a usual name to start with."""
    return not frozenset(ENTRIES).isdisjoint(paths)


def find_program(tree: Collection[str], packages: Packages, target: Target) -> Program:
    """The target's file or script, or the workspace's own entry.

    Without a target: `main` or the one `bin` of package.json, a usual name, the only program at the root, the script
    `start`. Raises ManifestError, TargetNotFoundError or TargetAmbiguousError.
    """
    if target.script:
        return _script(packages, target.script)
    if target.program:
        return _file(tree, target.program)
    package = packages.at("")
    local = LocalFiles(tree)
    named = _named_entry(package, local) if package is not None else ""
    usual = named or next((entry for entry in ENTRIES if local.has_file(entry)), "")
    if usual:
        return Program(path=usual)
    candidates = programs_at_root(tree)
    if len(candidates) == 1:
        return Program(path=candidates[0])
    if package is not None and START in package.scripts:
        return Program(script=START)
    if candidates:
        raise TargetAmbiguousError(candidates=tuple(candidates[:MAX_CANDIDATES]))
    raise TargetNotFoundError(program="")


def program_of_project(workspace: Workspace, directory: str) -> Program:
    """What a project would start if its directory were the workspace; one without a program is run by its scripts.

    Raises ManifestError.
    """
    package = workspace.packages.at(directory)
    # Read here, so that what is wrong with it is told by its own path.
    scripts = package.scripts if package is not None else {}
    start = f"{directory}/" if directory else ""
    files = {path[len(start) :]: content for path, content in workspace.files.items() if path.startswith(start)}
    tree = frozenset(path[len(start) :] for path in workspace.tree if path.startswith(start))
    try:
        found = find_program(tree, Packages(files), Target())
    except (TargetNotFoundError, TargetAmbiguousError):
        return Program(script=next(iter(scripts), ""), directory=directory)
    return Program(path=join(directory, found.path) if found.path else "", script=found.script, directory=directory)


def programs_at_root(paths: Iterable[str]) -> list[str]:
    """Files at the root that may be programs."""
    return sorted(path for path in paths if "/" not in path and is_program(path) and not _is_of_a_tool(path))


def _is_of_a_tool(name: str) -> bool:
    return (
        name.startswith(".")
        or any(mark in name for mark in TOOL_MARKS)
        or name.partition(".")[0].lower() in {item.lower() for item in TOOL_FILES}
    )


def _script(packages: Packages, script: str) -> Program:
    package = packages.at("")
    if package is None:
        raise TargetNotFoundError(program=script, what="script")
    if script not in package.scripts:
        known = tuple(sorted(package.scripts)[:MAX_CANDIDATES])
        raise TargetNotFoundError(program=script, candidates=known, what="script")
    return Program(script=script)


def _file(tree: Collection[str], wanted: str) -> Program:
    program = wanted.removeprefix("./")
    if program in tree:
        return Program(path=program)
    name = program.rpartition("/")[2]
    alike = sorted(path for path in tree if path.rpartition("/")[2] == name)
    raise TargetNotFoundError(program=wanted, candidates=tuple(alike[:MAX_CANDIDATES]))


def _named_entry(package: Package, local: LocalFiles) -> str:
    """The file that package.json names, if it is there: `main` may be what a build would write."""
    programs = package.programs if len(package.programs) == 1 else ()
    for name in (*([package.main] if package.main else []), *programs):
        base = normal(join(package.directory, name))
        found = local.find(base) if base else None
        if found is not None and is_program(found.path):
            return found.path
    return ""
