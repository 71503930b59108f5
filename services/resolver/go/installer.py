"""The commands that solve and install with the go command, and the files that they start from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from services.resolver.go.bundle import NAME
from services.resolver.go.sources import MOD, SUM
from services.resolver.install import InstallCommands
from services.resolver.model import StagedFile, Step, StepKind
from services.resolver.paths import join

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

SUPPORT = "/usr/lib/qila/go-start"
PYTHON = ("/usr/bin/python3", "-I", "-S")
# The one package that stands for a program: it imports what the program does.
IMPORTS, IMPORTS_ELSEWHERE = "imports.go", "imports_elsewhere.go"
# A tag that nobody sets: what only files for other systems import is solved and not looked into.
ELSEWHERE = "elsewhere"


class Solving(StrEnum):
    """How go.mod and go.sum become complete."""

    TIDY = "--tidy"
    LOCKED = "--locked"
    KEEP = "--keep"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is to be installed: files by path, the directory of the go.mod that counts, and how it is solved.

    `get` holds what the go command is to add, and `language` the version of Go that go.mod is raised to.
    """

    files: Mapping[str, bytes]
    directory: str
    solving: Solving
    get: Sequence[str] = ()
    language: str = ""


def install_commands(environment: str, wanted: Wanted) -> InstallCommands:
    """Solve and install what a go.mod requires."""
    directory = wanted.directory or "."
    solve = ["solve", environment, directory, wanted.solving.value]
    if wanted.language:
        solve += ["--go", wanted.language]
    solve += [f"--get={spec}" for spec in wanted.get]
    install = ("install", environment, directory, wanted.directory, NAME)
    program = (*PYTHON, f"{SUPPORT}/install_modules.py")
    return InstallCommands(
        staged=tuple(StagedFile(path=path, content=content) for path, content in sorted(wanted.files.items())),
        steps=(
            Step(kind=StepKind.SOLVE, argv=(*program, *solve)),
            Step(kind=StepKind.INSTALL, argv=(*program, *install)),
        ),
        native_lock=NAME,
        inventory_argv=inventory_command(environment),
    )


def inventory_command(environment: str) -> tuple[str, ...]:
    """Prints the inventory of an environment."""
    return (*PYTHON, f"{SUPPORT}/inventory.py", environment)


def imports_files(directory: str, imports: Collection[str], elsewhere: Collection[str]) -> dict[str, bytes]:
    """A package of a directory that imports what is given, of which some for other systems only."""
    here = sorted(set(imports) - set(elsewhere))
    files = {join(directory, IMPORTS): _package("", here)}
    if elsewhere:
        files[join(directory, IMPORTS_ELSEWHERE)] = _package(f"//go:build {ELSEWHERE}\n\n", sorted(elsewhere))
    return files


def module_files(directory: str, mod: bytes, sums: bytes) -> dict[str, bytes]:
    """The go.mod of a directory, and its go.sum if it has one."""
    files = {join(directory, MOD): mod}
    if sums.strip():
        files[join(directory, SUM)] = sums
    return files


def _package(constraint: str, imports: Sequence[str]) -> bytes:
    lines = "".join(f'import _ "{path}"\n' for path in imports)
    return f"{constraint}package imports\n\n{lines}".encode()
