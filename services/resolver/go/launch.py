"""The command that starts a program: it is built and becomes the process, so that its exit code is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.go.installer import PYTHON, SUPPORT
from services.resolver.go.scan import is_source
from services.resolver.go.sources import OTHER_SYSTEM
from services.resolver.model import Launch
from services.resolver.paths import join

if TYPE_CHECKING:
    from services.resolver.go.needs import Situation
    from services.resolver.model import Target

# Links to the environment's modules: under the same path in each environment, a module is compiled once.
MODULE_CACHE = "/sandbox/.home/.cache/go-modules"
RUN = (*PYTHON, f"{SUPPORT}/run_program.py")


def launch_of(situation: Situation, target: Target, environment: str) -> Launch:
    """How the program starts: in its module's directory, as the go command demands."""
    variables = _environment(situation, environment)
    directory = situation.directory
    if target.command:
        argv = (*target.command, *target.args)
    elif situation.program.tests:
        argv = ("go", "test", *_packages(situation), *target.args)
    else:
        argv = (*RUN, *_packages(situation, files=not _in_module(situation, environment)), "--", *target.args)
    return Launch(argv=argv, working_directory=directory, env=variables)


def _in_module(situation: Situation, environment: str) -> bool:
    return bool(environment) or situation.modules.main.file is not None


def _packages(situation: Situation, *, files: bool = False) -> tuple[str, ...]:
    """A directory, a pattern, or the files of a program where the go command is in no module."""
    program, main = situation.program, situation.directory
    if program.everything:
        return ("./...",)
    chosen = program.files
    if files and not chosen:
        chosen = tuple(path for path in situation.sources.built(program.directory) if not OTHER_SYSTEM.fullmatch(path))
    if chosen:
        return tuple(f"./{_below(main, path)}" for path in chosen if is_source(path))
    inside = _below(main, program.directory)
    return (f"./{inside}" if inside else ".",)


def _below(directory: str, path: str) -> str:
    return path[len(directory) :].lstrip("/") if directory else path


def _environment(situation: Situation, environment: str) -> dict[str, str]:
    """Where the go command finds modules, go.mod and go.sum; what a go.work says is in these."""
    modules = situation.modules
    variables: dict[str, str] = {}
    if modules.work is not None:
        variables["GOWORK"] = "off"
    if not environment:
        return variables
    flags = ["-modcacherw", f"-overlay={environment}/overlay.json"]
    if join(situation.directory, "vendor/modules.txt") in situation.sources.tree:
        flags.append("-mod=readonly")
    return variables | {"GOFLAGS": " ".join(flags), "GOMODCACHE": MODULE_CACHE, "QILA_GO_ENV": environment}
